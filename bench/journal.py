"""What the journal costs: CPU of this process per call with it and without, and how long a sync is.

Run by `make bench-journal`. Calls go through admit, gather, breaker and store to a Redis of their
own, without a transport; rounds with and without a journal take turns.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.journal.files import DiskFiles
from tallygate.adapters.journal.journal import JournalOptions, open_journal
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import EventId, OperationId, SourceId
from tallygate.domain.request import ConsumeRequest, Durability, Item, UsageRequest
from tallygate.flow.admit import Admit
from tallygate.flow.backlog import Backlog, BacklogOptions, BacklogParts
from tallygate.flow.breaker import Breaker, BreakerOptions
from tallygate.flow.decide import Decide, DecideParts
from tallygate.flow.durable import Durable
from tallygate.flow.gather import Gather
from tallygate.flow.journal import JournaledStore
from tallygate.flow.outage import OutageGate
from tallygate.ports.journal import Journal
from tests.builders import ACME, REQUESTS, SHARDS, CatalogInMemory, catalog, window
from tests.flow.lease_parts import LeaseTold
from tests.journal.parts import Heard

CALLS: Final = 4_000
CALLERS: Final = 64
ROUNDS: Final = 5
SYNCS: Final = 200
MIB: Final = 1024 * 1024
_NUMBERS: Final = count(1)


class TimedSyncs(Heard):
    """Keeps how long syncs took, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def synced(self, seconds: float, entries: int) -> None:
        """Keep it."""
        super().synced(seconds, entries)
        self.seconds.append(seconds)


@asynccontextmanager
async def admitting(store: RedisQuotaStore, journal: Journal | None) -> AsyncIterator[Admit]:
    """Lend what decides, over a store, with a journal or without."""
    told, clock = LeaseTold(), SystemClock()
    behind = store if journal is None else JournaledStore(store, journal)
    breaker = Breaker(behind, clock, BreakerOptions(hang_ms=10_000), told)
    gather = Gather(breaker, clock, queue_max=10_000, batch_max=128)
    backlog = Backlog(BacklogParts(breaker, _NoDates(), clock, told), BacklogOptions(0, 0))
    view = CatalogInMemory(catalog(window(limit=10**9)))
    gate = OutageGate(gather, backlog, told)
    encoder, durable = ProtobufEventEncoder(), Durable(journal)
    decide = Decide(DecideParts(view, gate, clock, encoder, told, SHARDS, durable))
    task = asyncio.create_task(gather.run())
    try:
        yield Admit(decide)
    finally:
        gather.close()
        await task


class _NoDates:
    def dated(self, payload: bytes, at_us: int) -> bytes:
        """Return it as it is: nothing waits for a store here."""
        del at_us
        return payload


async def one(admit: Admit, kind: str) -> None:
    """Make one call."""
    name = f"call-{next(_NUMBERS)}"
    if kind == "RecordUsage":
        event = UsageRequest(ACME, REQUESTS, 1, EventId(name), OperationId(name))
        [recorded] = await admit.record([event])
        assert not isinstance(recorded, TallygateError), recorded
        return
    [decided] = await admit.consume([ConsumeRequest(ACME, (Item(REQUESTS, 1),), OperationId(name))])
    assert not isinstance(decided, TallygateError), decided
    assert decided.durability is Durability.REDIS


async def calls(admit: Admit, kind: str) -> tuple[float, float]:
    """Return CPU and elapsed time per call, in µs, with many callers at once."""

    async def caller() -> None:
        for _ in range(CALLS // CALLERS):
            await one(admit, kind)

    cpu_s, wall_s = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    made = CALLS // CALLERS * CALLERS
    cpu_us = (time.process_time() - cpu_s) / made * 1e6
    return cpu_us, (time.perf_counter() - wall_s) / made * 1e6


async def alone(admit: Admit) -> list[float]:
    """Return how long RecordUsage takes, in µs, with one caller."""
    took: list[float] = []
    for _ in range(SYNCS):
        began_s = time.perf_counter()
        await one(admit, "RecordUsage")
        took.append((time.perf_counter() - began_s) * 1e6)
    return took


async def main() -> None:
    """Measure and print."""
    heard = TimedSyncs()
    async with AsyncExitStack() as stack:
        # Beside the working folder: a folder in memory has no disk to sync.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd())))
        redis = await stack.enter_async_context(EmbeddedRedis(folder / "redis"))
        client = connect(redis.url, 5_000)
        stack.push_async_callback(client.aclose)
        store = RedisQuotaStore(client, StoreOptions(SourceId("bench"), SHARDS, 60_000))
        await store.open()
        options = JournalOptions(512 * MIB)
        journal = await open_journal(DiskFiles(folder / "journal"), options, heard)
        stack.push_async_callback(journal.close)
        with_it = await stack.enter_async_context(admitting(store, journal))
        without = await stack.enter_async_context(admitting(store, None))
        print(f"{CALLERS} callers, {ROUNDS} rounds of {CALLS} calls, medians, µs per call:")
        for kind in ("CheckAndConsume", "RecordUsage"):
            rounds = [
                (await calls(without, kind), await calls(with_it, kind)) for _ in range(ROUNDS)
            ]
            off = [statistics.median(each[0][n] for each in rounds) for n in (0, 1)]
            on = [statistics.median(each[1][n] for each in rounds) for n in (0, 1)]
            print(
                f"  {kind:16} CPU {off[0]:6.1f} without, {on[0]:6.1f} with the journal"
                f" ({on[0] - off[0]:+.1f}); elapsed {off[1]:6.1f}, {on[1]:6.1f}"
            )
        for name, admit in (("without", without), ("with", with_it)):
            took = sorted(await alone(admit))
            median, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
            print(f"  one caller's RecordUsage {name:8} p50 {median:6.0f} µs, p99 {p99:6.0f} µs")
        seconds = sorted(heard.seconds)
        print(
            f"  {len(seconds)} syncs, p50 {seconds[len(seconds) // 2] * 1e6:.0f} µs,"
            f" p99 {seconds[len(seconds) * 99 // 100] * 1e6:.0f} µs"
        )


if __name__ == "__main__":
    asyncio.run(main())
