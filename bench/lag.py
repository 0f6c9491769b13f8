"""`make bench-lag`: how long an accepted event takes to the ledger, steadily and after a burst.

Guarantees: events are accepted by the product's script in a process of its own, at a fixed rate
whatever the ledger does, and stored by the product's own step. An event's time is from Redis' clock
at its acceptance to the moment its transaction has returned. The ledger is asked in the end
whether it has every event.
Refuses to know: gRPC, and budgets.
"""

import argparse
import asyncio
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.ledger_cost import Cost, Servers, servers
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.usage_reader import PostgresUsageReader
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.adapters.redis.seen import RedisSeenNumbers
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.commands.output import Cell, Sheet, show
from tallygate.domain.decision import Decided, Mode, Operation
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, OperationId, SourceId, TenantId, shard_of
from tallygate.flow.ingest import Ingest, IngestParts
from tallygate.ports import LedgerBatch, Persisted, SourceProgress, UsageQuery

SHARDS: Final = 16
TENANTS: Final = 1_000
# What one pipeline accepts when nothing is paced: some thirty operations per script call.
TOGETHER: Final = 500
TICK_S: Final = 0.01
# Lag is back when what is stored within a second had waited no longer than this, at the median.
BACK_S: Final = 0.5
REDIS_TIMEOUT_MS: Final = 30_000
# Often beside how long a transaction holds the rows that others want.
SAMPLE_S: Final = 0.005


@dataclass(slots=True)
class TimedLedger:
    """The ledger, and how long each event took to it: seconds by the time of the commit."""

    ledger: PostgresLedger
    commits: list[tuple[float, list[float]]] = field(default_factory=list)
    stored: int = 0

    async def persist(self, batch: LedgerBatch) -> Persisted:
        """Store, and note how old its events were then."""
        persisted = await self.ledger.persist(batch)
        now = time.time()
        waited = [now - event.received_at_us / 1e6 for event in batch.events]
        self.commits.append((now, waited))
        self.stored += persisted.events
        return persisted

    async def progress(self) -> list[SourceProgress]:
        """Ask the ledger."""
        return await self.ledger.progress()


async def accept(redis_url: str, *, events: int, per_s: int, first: int, busy: int) -> None:
    """Accept events from number `first` on, `per_s` a second, 0 for as fast as it goes.

    Of a hundred events, `busy` are of one tenant, the others of many.
    """
    client = connect(redis_url, REDIS_TIMEOUT_MS)
    store = RedisQuotaStore(client, StoreOptions(SourceId("bench"), SHARDS, 60_000))
    together = int(per_s * TICK_S) if per_s else TOGETHER
    started, sent = time.perf_counter(), 0
    while sent < events:
        numbers = range(first + sent, first + min(sent + together, events))
        outcomes = await store.decide([operation(number, busy) for number in numbers])
        assert all(isinstance(outcome, Decided) for outcome in outcomes)
        sent += together
        if per_s:
            await asyncio.sleep(max(0.0, started + sent / per_s - time.perf_counter()))
    await client.aclose()


def operation(number: int, busy: int = 0) -> Operation:
    """Return the operation of an event: of one busy tenant, so many of a hundred, or of many."""
    tenant = TenantId("busy" if number % 100 < busy else f"tenant-{number % TENANTS}")
    identity = OperationId(f"0193a7c2-7d1e-7c3e-9d53-{number:012x}")
    event = UsageEvent(
        event_id=EventId(f"{identity}/0"),
        tenant_id=tenant,
        meter=MeterName("requests"),
        amount=1,
        event_time_us=int(time.time() * 1e6),
        operation_id=identity,
        dimensions={"method": "GET", "status": "200"},
    )
    return Operation(
        mode=Mode.RECORD,
        tenant_id=tenant,
        shard=shard_of(tenant, SHARDS),
        event_count=1,
        payload=ProtobufEventEncoder().encode([event]),
    )


@contextmanager
def accepting(redis_url: str, *, events: int, per_s: int, first: int) -> Iterator[None]:
    """Accept events in another process while the block runs; it must have ended well by then."""
    numbers = [
        f"--{name}={value}"
        for name, value in (("accept", events), ("per-s", per_s), ("first", first))
    ]
    process = subprocess.Popen([sys.executable, "-m", "bench.lag", redis_url, *numbers])
    try:
        yield
        if process.wait(60):
            raise RuntimeError("what accepts events has failed")
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def ingesting(on: Servers, name: str) -> AsyncIterator[tuple[Ingest, TimedLedger]]:
    """Give an ingester with the product's own parts and pace."""
    client, postgres = connect(on.redis_url, REDIS_TIMEOUT_MS), Postgres(on.dsn)
    told = connect(on.redis_url, REDIS_TIMEOUT_MS)
    ledger = TimedLedger(PostgresLedger(postgres))
    stream = RedisUsageStream(client, StreamOptions(SHARDS, consumer=name))
    encoder, clock = ProtobufEventEncoder(), SystemClock()
    parts = IngestParts(stream, ledger, encoder, clock, seen=RedisSeenNumbers(told))
    try:
        yield Ingest(parts), ledger
    finally:
        for each in (client, told):
            await each.aclose()
        await postgres.close()


async def drain(ingest: Ingest, ledgers: Sequence[TimedLedger], events: int) -> None:
    """Run the step until the ledgers together have stored so many events."""
    while sum(ledger.stored for ledger in ledgers) < events:
        await ingest.run_once()


async def emptied(on: Servers, *, events: int, first: int = 0) -> Cost:
    """Fill the streams with events from number `first` on; return what storing them took."""
    await accept(on.redis_url, events=events, per_s=0, first=first, busy=0)
    async with ingesting(on, "one") as (ingest, ledger):
        before = await Cost.now(on)
        await drain(ingest, [ledger], events)
        return (await Cost.now(on)).since(before)


async def backlog(on: Servers, events: int) -> list[tuple[Cell, ...]]:
    """Measure what one ingester costs per event from full streams, and what the ledger holds."""
    spent = await emptied(on, events=events)
    return [
        (f"one ingester, {events:,} events waiting", f"{events / spent.seconds:,.0f} events/s"),
        ("processor time of the ingester", f"{spent.own_s / events * 1e6:.1f} us/event"),
        ("processor time of Postgres", f"{spent.postgres_s / events * 1e6:.1f} us/event"),
        ("write-ahead log", f"{spent.wal_bytes / events:,.0f} B/event"),
        *(
            (what, f"{size / events:,.0f} B/event")
            for what, size in (await on.sizes()).items()
            if size
        ),
    ]


async def contended(on: Servers, events: int) -> list[tuple[Cell, ...]]:
    """Measure how often two ingesters wait for each other, one tenant having 80 % of all."""
    await accept(on.redis_url, events=events, per_s=0, first=10_000_000, busy=80)
    done = asyncio.Event()
    async with (
        ingesting(on, "two") as (one, first),
        ingesting(on, "three") as (other, second),
    ):
        before = await Cost.now(on)
        async with asyncio.TaskGroup() as group:
            waits = group.create_task(on.lock_waits(done, SAMPLE_S))
            async with asyncio.TaskGroup() as both:
                for ingest in (one, other):
                    both.create_task(drain(ingest, [first, second], events))
            done.set()
        spent = (await Cost.now(on)).since(before)
    return [
        ("two ingesters, 80 % of one tenant", f"{events / spent.seconds:,.0f} events/s"),
        ("stored by the first", f"{first.stored / events:.0%}"),
        ("one waits for the other", f"{waits.result():.1%} of the time"),
    ]


@dataclass(frozen=True, slots=True)
class Steady:
    """What events met at a fixed rate: seconds to the ledger in order, and what storing took."""

    waited: Sequence[float]
    transactions: int
    own_s: float

    def at_ms(self, share: float) -> float:
        """Return the milliseconds within which so large a share was stored."""
        return _at(self.waited, share) * 1000


async def steady(on: Servers, *, per_s: int, seconds: int, first: int = 20_000_000) -> Steady:
    """Accept so many events a second from number `first` on, and store them meanwhile."""
    events = per_s * seconds
    with accepting(on.redis_url, events=events, per_s=per_s, first=first):
        async with ingesting(on, "steady") as (ingest, ledger):
            own_s = time.process_time()
            await drain(ingest, [ledger], events)
            own_s = time.process_time() - own_s
    waited = sorted(each for _, some in ledger.commits for each in some)
    return Steady(waited, len(ledger.commits), own_s)


async def paced(on: Servers, *, per_s: int, seconds: int) -> list[tuple[Cell, ...]]:
    """Measure lag at a steady rate."""
    found = await steady(on, per_s=per_s, seconds=seconds)
    events = per_s * seconds
    return [
        (f"accept to ledger at {per_s:,}/s, p50", f"{found.at_ms(0.5):,.0f} ms"),
        ("p99", f"{found.at_ms(0.99):,.0f} ms"),
        ("longest", f"{found.at_ms(1):,.0f} ms"),
        ("events per transaction", f"{events / found.transactions:,.0f}"),
        ("processor time of the ingester", f"{found.own_s / events * 1e6:.1f} us/event"),
    ]


async def after_burst(
    on: Servers, *, burst: int, per_s: int, seconds: int
) -> list[tuple[Cell, ...]]:
    """Measure how long lag takes to come back after a burst that had to wait."""
    first = 30_000_000
    await accept(on.redis_url, events=burst, per_s=0, first=first, busy=0)
    events = per_s * seconds
    started = time.time()
    with accepting(on.redis_url, events=events, per_s=per_s, first=first + burst):
        async with ingesting(on, "paced") as (ingest, ledger):
            await drain(ingest, [ledger], burst + events)
    # From the first commit on: starting is not the ledger's time.
    started = max(started, ledger.commits[0][0])
    of_seconds = _seconds(ledger.commits)
    back = next((end for end, waited in of_seconds if _at(waited, 0.5) < BACK_S), None)
    figure = f"{back - started:.0f} s" if back else f"not in {seconds} s"
    return [(f"{burst:,} events at once, then {per_s:,}/s: lag is back after", figure)]


def _seconds(commits: Sequence[tuple[float, list[float]]]) -> Iterator[tuple[float, list[float]]]:
    """Group what was committed by second: its end, and how long its events had waited."""
    for second, some in itertools.groupby(commits, lambda commit: int(commit[0])):
        yield second + 1.0, sorted(each for _, waited in some for each in waited)


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def main(asked: argparse.Namespace) -> None:
    """Measure everything on servers of its own, then print one table."""
    rows: list[tuple[Cell, ...]] = []
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as name:
        async with servers(Path(name)) as on:
            rows += await backlog(on, asked.events)
            rows += await contended(on, asked.events // 2)
            rows += await paced(on, per_s=asked.rate, seconds=asked.seconds)
            rows += await after_burst(
                on, burst=asked.burst, per_s=asked.rate, seconds=asked.seconds
            )
            wanted = asked.events + asked.events // 2 + asked.burst + 2 * asked.rate * asked.seconds
            postgres = Postgres(on.dsn)
            [total] = await PostgresUsageReader(postgres).totals(UsageQuery())
            await postgres.close()
            assert total.count == wanted, f"{total.count} of {wanted} events are in the ledger"
    show([Sheet("lag", ("what", "figure"), rows)], as_json=False)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.lag")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--burst", type=int, default=200_000)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--seconds", type=int, default=30)
    # What the bench says to the process that it starts.
    parser.add_argument("redis_url", nargs="?", help=argparse.SUPPRESS)
    for name in ("--accept", "--per-s", "--first"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    said = _parsed()
    if said.redis_url:
        asyncio.run(
            accept(said.redis_url, events=said.accept, per_s=said.per_s, first=said.first, busy=0)
        )
    else:
        asyncio.run(main(said))
