"""The script in Redis and its specification in `domain/account.py` never differ."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import decode_entry
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.domain.account import Accounts, Entry
from tallygate.domain.catalog import Limit, LimitKind, OnExceed
from tallygate.domain.decision import Mode, Operation
from tallygate.domain.ids import AMOUNT_MAX, LimitId, MeterName, OperationId, SourceId, TenantId
from tallygate.domain.limit import EMPTY, charge
from tallygate.domain.window import DAY_US, MINUTE_US, SECOND_US, Calendar, Period

SHARD = 3
SHARDS = 16
SOURCE = SourceId("source-1")
MEMORY_MS = 60_000
METER = MeterName("requests")
TENANTS = [TenantId("acme"), TenantId("ümläut,;|"), TenantId("203.0.113.7")]

# Small numbers around small limits meet often; the large ones meet the edge of what is exact.
amounts = st.one_of(st.integers(1, 6), st.integers(1, 6), st.sampled_from([AMOUNT_MAX, 2**52]))
PERIODS = [Period.SECOND, Period.MINUTE, Period.DAY, Period.BILLING_PERIOD]

windows = st.builds(
    Limit,
    limit_id=st.sampled_from([LimitId("window-1"), LimitId("window-2")]),
    meter=st.just(METER),
    kind=st.just(LimitKind.WINDOW),
    period=st.sampled_from(PERIODS),
    limit=st.one_of(st.integers(0, 20), st.just(AMOUNT_MAX)),
    on_exceed=st.sampled_from(list(OnExceed)),
    warn_at_ppm=st.sampled_from([(), (800_000,), (500_000, 750_000, 1_000_000)]),
)
rates = st.builds(
    Limit,
    limit_id=st.sampled_from([LimitId("rate-1"), LimitId("rate-2")]),
    meter=st.just(METER),
    kind=st.just(LimitKind.RATE),
    period=st.sampled_from([Period.SECOND, Period.MINUTE, Period.DAY]),
    limit=st.integers(0, 7),
    burst=st.integers(1, 9),
    on_exceed=st.sampled_from(list(OnExceed)),
)
plans = st.lists(
    st.one_of(windows, rates), min_size=1, max_size=4, unique_by=lambda limit: limit.limit_id
)


@dataclass(frozen=True)
class Call:
    """One operation as the machine draws it; `skew_us` is how far the caller's clock is off."""

    mode: Mode
    tenants: tuple[TenantId, ...]
    amount: int
    identity: int | None
    skew_us: int
    used_before_us: int


calls = st.builds(
    Call,
    mode=st.sampled_from([Mode.CONSUME, Mode.CONSUME, Mode.RECORD, Mode.CHECK, Mode.REJECT]),
    tenants=st.sampled_from([(TENANTS[0],), (TENANTS[0],), (TENANTS[1],), tuple(TENANTS[1:])]),
    amount=amounts,
    identity=st.one_of(st.none(), st.none(), st.integers(0, 3)),
    skew_us=st.sampled_from([0, 0, 0, 0, 900_000, -900_000, 40 * DAY_US, -40 * DAY_US]),
    used_before_us=st.sampled_from([0, 0, 0, 1, SECOND_US, MINUTE_US, DAY_US, 31 * DAY_US]),
)


class AdmitMachine(RuleBasedStateMachine):
    """Drives the model and Redis with the same commands at the same, moving, time."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        super().__init__()
        self._run = cast(Callable[[Any], Any], runner.run)
        self._client = connect(url, 5_000)
        self._run(self._client.flushall())
        # From now on: keys expire by the server's clock, which the virtual one never falls behind.
        self.now_us = time.time_ns() // 1000
        self._store = RedisQuotaStore(
            self._client, StoreOptions(SOURCE, SHARDS, MEMORY_MS, now_us=lambda: self.now_us)
        )
        self._model = Accounts(MEMORY_MS * 1000)
        self._calendar = Calendar()
        self._plan: list[Limit] = []

    @initialize(zone=st.sampled_from(["UTC", "America/Havana", "Asia/Kolkata"]), plan=plans)
    def set_up(self, zone: str, plan: list[Limit]) -> None:
        """Tenants live in one zone, on one plan."""
        self._calendar = Calendar(zone, self.now_us - 40 * DAY_US)
        self._plan = plan

    @rule(plan=plans)
    def plan_changes(self, plan: list[Limit]) -> None:
        """The plan is replaced while it is used."""
        self._plan = plan

    @rule(index=st.integers(0, 3), ceiling=st.integers(0, 20))
    def limit_changes(self, index: int, ceiling: int) -> None:
        """A limit is raised or lowered while it is used."""
        index %= len(self._plan)
        self._plan[index] = replace(self._plan[index], limit=ceiling)

    @rule(step_us=st.sampled_from([1, 100_000, SECOND_US, MINUTE_US, DAY_US, 30 * DAY_US]))
    def time_goes_on(self, step_us: int) -> None:
        """The clock moves."""
        self.now_us += step_us

    @rule(step_us=st.sampled_from([1, SECOND_US, 5 * SECOND_US]))
    def clock_runs_back(self, step_us: int) -> None:
        """The clock is set back a little, as after a failover."""
        self.now_us -= step_us

    @rule()
    def clock_reaches_the_window(self) -> None:
        """The clock stands exactly where the next minute begins."""
        self.now_us += MINUTE_US - self.now_us % MINUTE_US

    @rule()
    def memory_ends(self) -> None:
        """The clock stands exactly where the last operation is forgotten."""
        known = list(self._model.operations.values())
        if known:
            self.now_us = max(self.now_us, known[-1].at_us + MEMORY_MS * 1000)

    @rule(drawn=st.lists(calls, min_size=1, max_size=6))
    def decide(self, drawn: list[Call]) -> None:
        """Both decide a list, with the same outcomes."""
        operations = [self._operation(call) for call in drawn]
        expected = self._model.decide(operations, SOURCE, self.now_us)
        assert self._run(self._store.decide(operations)) == expected

    def _operation(self, call: Call) -> Operation:
        charges = tuple(
            charge(limit, tenant, self._calendar, call.amount, self.now_us - call.skew_us)
            for tenant in call.tenants
            for limit in self._plan
        )
        stores = call.mode is not Mode.CHECK
        remembered = call.mode in (Mode.CONSUME, Mode.RECORD) and call.identity is not None
        return Operation(
            mode=call.mode,
            tenant_id=call.tenants[0],
            shard=SHARD,
            operation_id=OperationId(f"op-{call.identity}") if remembered else None,
            fingerprint=f"{call.mode.value}{call.amount:x}",
            charges=() if call.mode is Mode.REJECT else charges,
            event_count=1 if stores else 0,
            event_time_us=self.now_us - call.used_before_us if call.used_before_us else 0,
            payload=f"payload of {call.amount}".encode() if stores else b"",
            reject_reason="EVENT_TIME_TOO_OLD" if call.mode is Mode.REJECT else "",
        )

    @rule()
    def scripts_are_lost(self) -> None:
        """The server forgets its scripts, as after a restart."""
        self._run(self._client.script_flush())

    @invariant()
    def counters_agree(self) -> None:
        """Every counter of the model stands in Redis, and no other."""
        found: dict[tuple[str, str], str] = {}
        for tenant in TENANTS:
            stored = self._run(self._client.hgetall(keys.account(SHARD, tenant)))
            for name, value in stored.items():
                if name != b"x":
                    found[tenant, name.decode()] = value.decode()
        expected = {
            key: f"{counter.at_us}:{counter.amount}:{counter.mark}"
            for key, counter in self._model.counters.items()
            if counter != EMPTY
        }
        assert found == expected

    @invariant()
    def streams_agree(self) -> None:
        """The stream holds what the model accepted, with the same numbers and crossings."""
        stored = self._run(self._client.xrange(keys.stream(SHARD)))
        assert [_shown(dict(fields)) for _, fields in stored] == [
            _expected(entry) for entry in self._model.stream
        ]

    def teardown(self) -> None:
        """Close the connection."""
        self._run(self._client.aclose())


def _shown(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    epoch = fields.pop(b"e")
    assert fields[b"s"] == f"{SOURCE}.{epoch.decode()}".encode()
    fields[b"s"] = SOURCE.encode()
    entry = decode_entry(SHARD, "1-0", fields)
    assert len(entry.ranges) >= 1
    return fields


def _expected(entry: Entry) -> dict[bytes, bytes]:
    fields = {b"t": str(entry.at_us).encode(), b"s": entry.source_id.encode()}
    for record in entry.records:
        letter = "j" if record.reject_reason else "u"
        prefix = f"{record.reject_reason}|".encode() if record.reject_reason else b""
        name = f"{letter}{record.first_seq}+{record.event_count}"
        fields[name.encode()] = prefix + record.payload
        for number, crossed in enumerate(record.crossings):
            parts = (
                crossed.limit_id,
                crossed.meter,
                crossed.ratio_ppm,
                crossed.threshold,
                crossed.used,
                crossed.limit,
                crossed.starts_us,
                crossed.ends_us,
                crossed.account,
            )
            name = f"x{record.first_seq}.{number}"
            fields[name.encode()] = ",".join(str(part) for part in parts).encode()
    return fields


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all steps of a run."""
    with asyncio.Runner() as running:
        yield running


def test_the_script_and_its_specification_never_differ(
    redis_url: str, runner: asyncio.Runner
) -> None:
    """Outcomes, counters and stream are equal after every step, on every server version."""

    class Machine(AdmitMachine):
        """The machine on this test's server."""

        def __init__(self) -> None:
            super().__init__(redis_url, runner)

    run_state_machine_as_test(
        Machine,
        # Fewer than 200 runs were seen to miss a planted error in the script.
        settings=settings(max_examples=max(200, settings().max_examples), deadline=None),
    )
