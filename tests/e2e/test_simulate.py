"""A simulation against the truth: what a sidecar on the other plan refuses, call by call."""

import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.usage_replay import PostgresUsageReplay
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.domain.catalog import Limit, LimitKind, OnExceed, Plan
from tallygate.domain.decision import Charge, Decided
from tallygate.domain.ids import PlanName, TenantId
from tallygate.domain.simulation import Findings
from tallygate.domain.window import HOUR_US, MINUTE_US, SECOND_US, Period
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tallygate.flow.simulate import Simulate, SimulateOptions, SimulateParts
from tallygate.gen.v1 import event_pb2, quota_pb2, quota_pb2_grpc
from tallygate.ports import ParsedCatalog
from tests.builders import BYTES, SHARDS, CatalogInMemory, catalog, now_us, rate, tenant, window
from tests.e2e import catalogs
from tests.e2e.processes import tallygate
from tests.faults.world import SystemClock
from tests.servers import flush
from tests.sidecar import channel, charge, sidecar

CALLS = 500
ORG, FREE = PlanName("org"), PlanName("free")
FAMILY = (
    tenant("org", plan=ORG),
    tenant("one", parent=TenantId("org")),
    tenant("two", parent=TenantId("org")),
    tenant("alone"),
)
OWN = (
    window("minutely", 40, period=Period.MINUTE, warn_at_ppm=(500_000,)),
    rate("rate", 1, burst=25),
    rate("slow", 7, burst=40, period=Period.MINUTE, meter=BYTES),
    window("trailing", 90, kind=LimitKind.SLIDING, period=None, duration_us=10 * MINUTE_US),
    window("each", 60, per="subject_id", period=Period.HOUR),
    window("large", 25, where=(("model", ("large", "xl")),), period=Period.HOUR),
    window("soft", 30, on_exceed=OnExceed.ALLOW, period=Period.HOUR),
    window("shadow", 30, on_exceed=OnExceed.SHADOW, period=Period.HOUR),
)
ABOVE = (window("minutely", 60, period=Period.MINUTE), rate("rate", 2, burst=45))


@dataclass(slots=True)
class StoreTime:
    """The store's time as a test moves it, in microseconds; 0 would be Redis' own."""

    at_us: int

    def now_us(self) -> int:
        """Return the time."""
        return self.at_us


@dataclass(frozen=True, slots=True)
class Call:
    """A call and when it is made, after the beginning, and a refund that follows at once."""

    after_us: int
    request: quota_pb2.CheckAndConsumeRequest
    refund: quota_pb2.RefundRequest | None = None


class Heard(Findings):
    """Findings that keep each decision beside what they count of it."""

    def __init__(self) -> None:
        super().__init__()
        self.decisions: dict[tuple[int, str], list[tuple[bool, str]]] = defaultdict(list)

    def decided(
        self, tenant_id: TenantId, events: int, charges: Sequence[Charge], decision: Decided
    ) -> None:
        """Keep it, and count it."""
        made = (decision.allowed, decision.refused_by or "")
        self.decisions[decision.at_us, tenant_id].append(made)
        super().decided(tenant_id, events, charges, decision)


def plans(*, refusing: bool) -> dict[str, Any]:
    """Return the two plans, as they are or with nothing refused."""

    def of(limits: Sequence[Limit]) -> tuple[Limit, ...]:
        return tuple(
            limit if refusing else replace(limit, on_exceed=OnExceed.ALLOW) for limit in limits
        )

    return {"plans": {FREE: Plan(FREE, of(OWN)), ORG: Plan(ORG, of(ABOVE))}}


def traffic(seed: int) -> list[Call]:
    """Return calls of a family and a stranger: bursts, pauses, several items, users, refunds."""
    dice = random.Random(seed)
    calls: list[Call] = []
    after_us = 0
    for number in range(CALLS):
        after_us += dice.choice((0, 1, 1_000, SECOND_US // 3, SECOND_US, 7 * SECOND_US))
        if dice.random() < 0.02:
            after_us += dice.randrange(2 * MINUTE_US)
        request = quota_pb2.CheckAndConsumeRequest(
            tenant_id=dice.choice(("one", "two", "alone", "org")), operation_id=f"op-{number}"
        )
        request.context.CopyFrom(event_pb2.EventContext(subject_id=dice.choice("abc")))
        for _ in range(dice.randrange(1, 4)):
            item = request.items.add(
                meter=dice.choice(("requests", "requests", "egress_bytes")),
                amount=dice.randrange(1, 9),
            )
            if dice.random() < 0.5:
                item.dimensions["model"] = dice.choice(("small", "large", "xl"))
        refund = None
        if calls and dice.random() < 0.1:
            # Of a recent call, so that it counts still; some ask for more than there is left.
            of = dice.choice(calls[-20:]).request
            refund = quota_pb2.RefundRequest(
                tenant_id=of.tenant_id,
                event_id=f"{of.operation_id}:0",
                amount=dice.choice((0, 1, 2)),
                operation_id=f"back-{number}",
            )
        calls.append(Call(after_us, request, refund))
    return calls


@asynccontextmanager
async def answering(
    url: str, view: CatalogInMemory, time: StoreTime
) -> AsyncIterator["quota_pb2_grpc.QuotaServiceAsyncStub"]:
    """Lend a sidecar whose store goes by a time of ours."""
    async with sidecar(url, view, now_us=time.now_us) as address, channel(address) as opened:
        yield quota_pb2_grpc.QuotaServiceStub(opened)


async def made(
    url: str, view: CatalogInMemory, begins_us: int, calls: Sequence[Call]
) -> list[quota_pb2.CheckAndConsumeResponse]:
    """Make the calls, each at its instant; return the replies."""
    time = StoreTime(begins_us)
    replies: list[quota_pb2.CheckAndConsumeResponse] = []
    refunded = 0
    async with answering(url, view, time) as quota:
        for call in calls:
            time.at_us = begins_us + call.after_us
            replies.append(await quota.CheckAndConsume(call.request))
            if call.refund is not None:
                refunded += await given_back(quota, call.refund)
    assert refunded > len(calls) // 50 or not any(call.refund for call in calls)
    return replies


async def given_back(
    quota: "quota_pb2_grpc.QuotaServiceAsyncStub", refund: quota_pb2.RefundRequest
) -> bool:
    """Take an event back; say whether it could be: not of a call that was refused, nor twice."""
    try:
        await quota.Refund(refund)
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
            raise
        return False
    return True


async def stored(url: str, postgres: Postgres) -> None:
    """Bring everything in the streams into the ledger."""
    client = connect(url, 10_000)
    try:
        stream = RedisUsageStream(client, StreamOptions(SHARDS, "ingester"))
        ledger = PostgresLedger(postgres)
        parts = IngestParts(stream, ledger, ProtobufEventEncoder(), SystemClock())
        ingest = Ingest(parts, IngestOptions(block_ms=1))
        while any(depth.entries for depth in await stream.depths()):
            await ingest.run_once()
    finally:
        await client.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, pytest.param(8, marks=pytest.mark.faults_long)])
async def test_a_simulation_refuses_what_a_sidecar_would(
    redis_url: str, postgres_dsn: str, seed: int
) -> None:
    """Call by call, at the same instants, for every kind that the ledger tells of.

    The usage is recorded with nothing refused, and simulated on plans that refuse.
    """
    calls = traffic(seed)
    tenants = {each.tenant_id: each for each in FAMILY}
    open_plans = catalog(**plans(refusing=False))
    strict = catalog(**plans(refusing=True))
    # Ahead of Redis' own time, by which keys expire: none may be gone early. And at the same place
    # in every window whenever the test runs.
    begins_us = (now_us() // HOUR_US + 1) * HOUR_US + 10 * SECOND_US
    postgres = Postgres(postgres_dsn)
    try:
        lax = await made(redis_url, CatalogInMemory(open_plans, tenants), begins_us, calls)
        assert all(reply.allowed for reply in lax)
        await stored(redis_url, postgres)
        await flush(redis_url)
        truth = await made(redis_url, CatalogInMemory(strict, tenants), begins_us, calls)
        parts = SimulateParts(
            ParsedCatalog(strict, FAMILY),
            PostgresCatalogStore(postgres),
            PostgresUsageReplay(postgres),
            PostgresCreditLedger(postgres),
            lambda _: None,
        )
        simulate = Simulate(parts, SimulateOptions())
        simulate._findings = heard = Heard()
        await simulate.run()
    finally:
        await postgres.close()

    expected: dict[tuple[int, str], list[tuple[bool, str]]] = defaultdict(list)
    for call, reply in zip(calls, truth, strict=True):
        key = (begins_us + call.after_us, call.request.tenant_id)
        expected[key].append((reply.allowed, reply.refused_by))
    assert heard.decisions == expected
    refused = Counter(reply.refused_by for reply in truth if not reply.allowed)
    assert {*refused} == {"minutely", "rate", "slow", "trailing", "each", "large"}
    found: Counter[str] = Counter()
    for each in heard.standings():
        found[each.limit_id] += each.refused
    assert +found == refused
    assert heard.refused_calls == refused.total()
    assert heard.calls - heard.refunds == CALLS
    assert heard.refunds > CALLS // 50
    over = {each.limit_id for each in heard.standings() if each.over}
    assert over == {"soft", "shadow"}


@pytest.mark.slow
async def test_the_command_tells_who_would_have_been_refused(
    redis_url: str, postgres_dsn: str, tmp_path: Any
) -> None:
    """It ends with 0 where nobody is refused, with 1 where somebody is, and says who and when."""
    postgres = Postgres(postgres_dsn)
    try:
        begins_us = now_us() + SECOND_US
        view = CatalogInMemory(catalog(window(limit=1_000)))
        requests = [charge(f"op-{number}", 4, tenant=f"t{number % 2}") for number in range(6)]
        calls = [Call(number * 1_000, request) for number, request in enumerate(requests)]
        await made(redis_url, view, begins_us, calls)
        await stored(redis_url, postgres)
    finally:
        await postgres.close()
    file = catalogs.write(tmp_path, catalogs.OPEN)
    asked = ("simulate-plan", "-f", file, "--json")
    open_ = await tallygate(*asked, postgres_dsn=postgres_dsn)
    assert (open_.code, open_.figures("simulation")["refused calls"]) == (0, 0)
    assert open_.err.strip() == ""

    file = catalogs.write(tmp_path, catalogs.limited(8))
    tight = await tallygate(*asked, postgres_dsn=postgres_dsn)
    assert tight.code == 1
    figures = tight.figures("simulation")
    assert (figures["calls"], figures["refused calls"], figures["tenants refused"]) == (6, 2, 2)
    rows = {row["tenant"]: row for row in tight.json()["limits"]}
    assert {*rows} == {"t0", "t1"}
    assert (rows["t0"]["refused units"], rows["t0"]["highest"], rows["t0"]["share"]) == (
        4,
        8,
        "100.0%",
    )
    assert rows["t0"]["first refusal"] < rows["t1"]["first refusal"]
    assert any("RecordUsage" in row["note"] for row in tight.json()["notes"])

    one = await tallygate(*asked, "--tenant", "t0", postgres_dsn=postgres_dsn)
    assert (one.code, one.figures("simulation")["calls"]) == (1, 3)
    none = await tallygate(*asked, "--to", "2001-01-01", postgres_dsn=postgres_dsn)
    assert (none.code, none.figures("simulation")["calls"]) == (0, 0)
    table = await tallygate("simulate-plan", "-f", file, postgres_dsn=postgres_dsn)
    assert (table.code, "monthly" in table.out) == (1, True)


@pytest.mark.slow
async def test_what_cannot_be_simulated_is_told(postgres_dsn: str, tmp_path: Any) -> None:
    """A faulty catalog, a plan that it lacks, a date that is none, a ledger that is not there."""
    good = catalogs.write(tmp_path, catalogs.OPEN, "good.yaml")
    bad = catalogs.write(tmp_path, catalogs.FAULTY, "bad.yaml")
    for arguments, words in (
        (("-f", bad), "did you mean"),
        (("-f", good, "--plan", "huge"), "'huge'"),
        (("-f", good, "--from", "yesterday"), "--from"),
        (("-f", tmp_path / "absent.yaml"), "absent.yaml"),
        (("-f", good, "--postgres-dsn", "postgresql://127.0.0.1:1/x"), "Postgres"),
    ):
        finished = await tallygate("simulate-plan", *arguments, postgres_dsn=postgres_dsn)
        assert finished.code == 1, words
        assert words in finished.err
        assert "Traceback" not in finished.err
