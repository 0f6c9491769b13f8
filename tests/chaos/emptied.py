"""Redis emptied under load: what was granted, what is counted afterwards, how long that took.

`python -m tests.chaos.emptied [--tenants N] [--seconds S] [--per-s R]`. Guarantees that what was
granted is added up by the callers alone. Refuses to know how counters are rebuilt.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import yaml
from redis.asyncio import Redis

from tallygate.gen.v1 import quota_pb2, usage_pb2
from tests.chaos.callers import METER, Line
from tests.chaos.installation import (
    DESTINATION,
    SECRET_VARIABLE,
    Installation,
    Shape,
    installation,
)
from tests.chaos.kept import keep_larger
from tests.chaos.rest import SHARDS, drained, quota_of
from tests.e2e.calls import LOST
from tests.servers import connection, eventually

STRICT: Final = 100
"""Tenants whose limit is reached during the run; all others are far from theirs."""

LIST: Final = 10
TIMEOUT_S: Final = 5.0
RETRY_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
OPEN_S: Final = 300.0
DRAIN_S: Final = 120.0
FILL_LIST: Final = 1_000
SUMS: Final = "select tenant_id, sum(amount)::bigint from tallygate.usage_event group by 1"


@dataclass(frozen=True, slots=True)
class Plan:
    """How many tenants have usage, how long there is load, and how much of it."""

    seed: int = 1
    tenants: int = 1_000
    seconds: float = 20.0
    per_s: float = 2_000.0
    limit: int = 60
    times: int = 1


@dataclass(slots=True)
class Found:
    """What a run came to. `open_s` is how long it took, each time, until every shard decided."""

    plan: Plan
    calls: int = 0
    load_s: float = 0.0
    granted: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)
    first_s: list[float] = field(default_factory=list)
    open_s: list[float] = field(default_factory=list)
    # Of the lists of calls: how many were under way at once, and the longest time to all answers.
    waiting: int = 0
    waiting_most: int = 0
    answered_s: float = 0.0
    filled: Counter[str] = field(default_factory=Counter)
    ledger: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    drained_s: float | None = None

    @property
    def wrong(self) -> list[str]:
        """What is not as promised."""
        found = [
            f"{tenant}: granted {units} of {self.plan.limit}"
            for tenant, units in self.granted.items()
            if tenant.startswith("strict") and units > self.plan.limit
        ]
        for tenant in sorted(self.granted.keys() | self.filled.keys()):
            told = self.granted[tenant] + self.filled[tenant]
            figures = (told, self.ledger.get(tenant, 0), self.counters.get(tenant, 0))
            if len({*figures}) > 1:
                found.append(f"{tenant}: told, in the ledger and counted are {figures}")
        if self.drained_s is None:
            found.append("something still waits")
        return found


def document(limit: int) -> Callable[[str], str]:
    """Return what makes the catalog for a destination."""

    def plan(units: int) -> dict[str, object]:
        monthly = {"id": "monthly", "meter": METER, "kind": "window", "period": "month"}
        return {"limits": [{**monthly, "limit": units}]}

    def text(url: str) -> str:
        return yaml.safe_dump(
            {
                "version": 1,
                "default_plan": "open",
                "meters": {METER: {"aggregation": "sum"}},
                "plans": {"open": plan(10**12), "strict": plan(limit)},
                "tenants": {f"strict-{n}": {"plan": "strict"} for n in range(STRICT)},
                "destinations": {
                    DESTINATION: {
                        "kind": "webhook",
                        "url": url,
                        "types": ["limit.threshold_crossed"],
                        "secret": {"env": SECRET_VARIABLE},
                    }
                },
            }
        )

    return text


async def run(folder: Path, plan: Plan) -> Found:
    """Fill the ledger, put load on, empty Redis in the middle of it, and compare at the end."""
    found = Found(plan)
    shape = Shape(replica=False, disks=False)
    async with installation(folder, shape, seed=plan.seed, text=document(plan.limit)) as place:
        lines = [await place.line(name) for name in sorted(place.sockets)]
        await _fill(found, lines[0])
        assert await drained(place, DRAIN_S) is not None
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(_load(found, lines, over, group))
            part_s = plan.seconds / (plan.times + 1)
            for _ in range(plan.times):
                await asyncio.sleep(part_s)
                await _empty(found, place)
            await asyncio.sleep(part_s)
            over.set()
        found.drained_s = await drained(place, DRAIN_S)
        async with connection(place.ground.near_dsn) as opened:
            found.ledger = {row[0]: row[1] for row in await opened.fetch(SUMS)}
        found.counters = await _counters(place, lines[0], found)
    return found


async def _fill(found: Found, line: Line) -> None:
    for start in range(0, found.plan.tenants, FILL_LIST):
        requests = [
            usage_pb2.RecordUsageRequest(
                tenant_id=f"open-{n}", meter=METER, amount=7, event_id=f"fill-{n}"
            )
            for n in range(start, min(start + FILL_LIST, found.plan.tenants))
        ]
        left = requests
        while left:
            reply = await line.usage.BatchRecordUsage(
                usage_pb2.BatchRecordUsageRequest(requests=left), timeout=10 * TIMEOUT_S
            )
            failed = [each.error.code for each in reply.results if each.HasField("error")]
            assert {*failed} <= {code.value[0] for code in LOST}, failed
            pairs = zip(left, reply.results, strict=True)
            left = [request for request, each in pairs if each.HasField("error")]
        found.filled.update({each.tenant_id: 7 for each in requests})


async def _load(
    found: Found, lines: list[Line], over: asyncio.Event, group: asyncio.TaskGroup
) -> None:
    """Begin list after list at the rate, whatever has become of those before."""
    plan, loop = found.plan, asyncio.get_running_loop()
    chance = random.Random(plan.seed)
    began = due = loop.time()
    while not over.is_set():
        left: list[quota_pb2.CheckAndConsumeRequest] = []
        for _ in range(LIST):
            strict = chance.random() < 0.5
            number = chance.randrange(STRICT if strict else plan.tenants)
            found.calls += 1
            request = quota_pb2.CheckAndConsumeRequest(
                tenant_id=f"{'strict' if strict else 'open'}-{number}",
                operation_id=f"c-{found.calls}",
            )
            request.items.add(meter=METER, amount=chance.randint(1, 3))
            left.append(request)
        line = lines[found.calls // LIST % len(lines)]
        group.create_task(_insist(found, line, left, random.Random(found.calls)))
        due += LIST / plan.per_s
        await asyncio.sleep(max(0.0, due - loop.time()))
    found.load_s = loop.time() - began


async def _insist(
    found: Found,
    line: Line,
    left: list[quota_pb2.CheckAndConsumeRequest],
    chance: random.Random,
) -> None:
    """Ask until each call of the list is answered, less and less often."""
    loop = asyncio.get_running_loop()
    began, wait_s = loop.time(), RETRY_S
    found.waiting += 1
    found.waiting_most = max(found.waiting, found.waiting_most)
    while left := await _ask(found, line, left):
        await asyncio.sleep(wait_s * (0.5 + chance.random()))
        wait_s = min(2 * wait_s, RETRY_MAX_S)
    found.waiting -= 1
    found.answered_s = max(found.answered_s, loop.time() - began)


async def _ask(
    found: Found, line: Line, requests: list[quota_pb2.CheckAndConsumeRequest]
) -> list[quota_pb2.CheckAndConsumeRequest]:
    try:
        reply = await line.quota.BatchCheckAndConsume(
            quota_pb2.BatchCheckAndConsumeRequest(requests=requests), timeout=TIMEOUT_S
        )
    except grpc.aio.AioRpcError as error:
        if error.code() not in LOST:
            raise
        found.unanswered[error.code().name] += len(requests)
        return requests
    again: list[quota_pb2.CheckAndConsumeRequest] = []
    for request, result in zip(requests, reply.results, strict=True):
        if result.HasField("error"):
            assert result.error.code in {code.value[0] for code in LOST}, result.error
            found.unanswered["UNAVAILABLE"] += 1
            again.append(request)
        elif result.response.allowed:
            found.granted[request.tenant_id] += request.items[0].amount
        else:
            found.refused += 1
    return again


async def _empty(found: Found, place: Installation) -> None:
    """Empty Redis; wait until each shard decides again, in another epoch."""
    client = place.ground.redis.client()
    try:
        before = await epochs(client)
        await client.flushall()
        began = time.monotonic()

        async def opened() -> bool:
            now = await epochs(client)
            return all(
                now[shard][0] not in (b"", before[shard][0]) and now[shard][1] == b"1"
                for shard in range(SHARDS)
            )

        await eventually(opened, OPEN_S, what="every shard's counters")
        found.open_s.append(time.monotonic() - began)
    finally:
        await client.aclose()


async def epochs(client: Redis) -> list[tuple[bytes, bytes]]:
    """Return each shard's epoch, and its stage as Redis has it."""
    pipeline = client.pipeline(transaction=False)
    for shard in range(SHARDS):
        pipeline.hmget(f"{{tg:{shard:02x}}}:m", ["epoch", "open"])
    return [(each[0] or b"", each[1] or b"") for each in await pipeline.execute()]


async def _counters(place: Installation, line: Line, found: Found) -> dict[str, int]:
    counters: dict[str, int] = {}
    for tenant in sorted(found.granted.keys() | found.filled.keys()):
        reply = await quota_of(line, tenant)
        counters[tenant] = reply.limits[0].used
    return counters


def table(found: Found) -> str:
    """Return the outcome as text."""
    plan = found.plan
    strict = [units for tenant, units in found.granted.items() if tenant.startswith("strict")]
    rows = {
        "tenants with usage in the ledger": f"{plan.tenants + STRICT:,}",
        "calls": f"{found.calls:,} in {found.load_s:.0f} s, {found.calls / found.load_s:,.0f}/s",
        "in lists of": f"{LIST}, over 2 sidecars, each begun when it was due",
        "under way at once, at most": f"{found.waiting_most * LIST:,} calls",
        "answered after, at most": f"{found.answered_s:.1f} s",
        "granted, refused": f"{sum(found.granted.values()):,} units, {found.refused:,} calls",
        "sent again": ", ".join(f"{n:,} {name}" for name, n in found.unanswered.items()),
        "emptied": f"{len(found.open_s)} times",
        "until every shard decides": ", ".join(f"{each:.2f} s" for each in found.open_s),
        "most granted of a strict limit": f"{max(strict, default=0)} of {plan.limit}",
        "tenants whose figures differ": f"{len(found.wrong)}",
    }
    return "\n".join(f"{name:34}{value}" for name, value in rows.items())


def main() -> int:
    """Run it as the command line says; exit 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.emptied", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--per-s", type=float, default=2_000.0)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep it for docs/guarantees.md")
    given = vars(parser.parse_args())
    keep = given.pop("keep")
    plan = Plan(**given)
    sys.stdout.write(f"seed {plan.seed}\n")
    with tempfile.TemporaryDirectory(prefix="tallygate-emptied-") as folder:
        found = asyncio.run(run(Path(folder), plan))
    sys.stdout.write(table(found) + "\n")
    sys.stdout.writelines(f"WRONG {each}\n" for each in found.wrong[:40])
    if keep:
        keep_larger("make emptied", f"{table(found)}\n{'seed':34}{plan.seed}")
    return bool(found.wrong)


if __name__ == "__main__":
    sys.exit(main())
