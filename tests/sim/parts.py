"""The processes of the simulator: sidecars, ingesters and relays, put together as wiring does.

Owns how one life of a process is built. Guarantees: all of `flow/` runs unmodified. Refuses to know
when processes die.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.dating import ProtobufEventDater
from tallygate.domain.ids import SourceId
from tallygate.flow.admit import Admit
from tallygate.flow.backlog import Backlog, BacklogOptions, BacklogParts
from tallygate.flow.breaker import Breaker, BreakerOptions
from tallygate.flow.correct import Correct, CorrectOptions, CorrectParts
from tallygate.flow.decide import Decide, DecideParts
from tallygate.flow.draft import Drafter
from tallygate.flow.durable import Durable, LedgerWatch
from tallygate.flow.gather import Gather
from tallygate.flow.hand_in import HandIn, HandInParts
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tallygate.flow.journal import JournaledStore
from tallygate.flow.lag import IngestWatch
from tallygate.flow.loop import Counts, Loop, LoopOptions, Step
from tallygate.flow.outage import OutageGate
from tallygate.flow.rebuild import Rebuild, RebuildOptions, RebuildParts
from tallygate.flow.refund import Refunds
from tallygate.flow.relay import Relay, RelayOptions
from tallygate.flow.reserve import Reserve
from tallygate.flow.resubmit import Rebinder
from tallygate.ports.journal import Journal
from tests.builders import CatalogInMemory
from tests.sim.destination import SimDestination
from tests.sim.disk import Disk
from tests.sim.journaling import opened
from tests.sim.loop import Process, SimClock, SimTask, VirtualLoop
from tests.sim.postgres import Database, SimLedger, SimOutbox
from tests.sim.rebuilding import DeclaredInMemory, SimCorrections, SimRebuildLedger
from tests.sim.redis import (
    MEMORY_US,
    RedisState,
    SimQuotaStore,
    SimSeenNumbers,
    SimStages,
    SimUsageStream,
)
from tests.sim.wire import Server

T = TypeVar("T")

SHARDS: Final = 2
SIDECAR_DIED: Final = "sidecar died"
# Slower than in service: most of a run's cost is in loops that find nothing to do.
PROBE_MS: Final = 200
BACKLOG_MS: Final = 150
HAND_IN_MS: Final = 250
READY_S: Final = 0.01
INGEST_MS: Final = 250
WATCH_MS: Final = 1_000
REBUILD_MS: Final = 300
CORRECT_MS: Final = 700
# Journals look every quarter of a second; one that has announced itself may be down for longer.
SETTLE_MS: Final = 1_000
PATIENCE_MS: Final = 10_000
LEAD_MS: Final = 2_000
RELAY_MS: Final = 500
RELAY: Final = RelayOptions(
    lease_ms=4_000, send_timeout_ms=1_000, attempts_max=1_000, backoff_ms=100, backoff_max_ms=1_000
)
INGEST: Final = IngestOptions(claim_idle_ms=3_000, claim_every_ms=500)


@dataclass(slots=True)
class Told:
    """Hears everything, and keeps what may hold a secret."""

    counts: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)

    def failed(self, name: str, error: Exception | None = None, delay_s: float = 0) -> None:
        """Keep what would be logged."""
        self.lines.append(f"{name} failed: {type(error).__name__} {error}")

    def turned(self, state: StrEnum) -> None:
        """Count it."""
        self.counts[f"breaker {state.value}"] += 1

    def __getattr__(self, name: str) -> Callable[..., None]:
        def heard(*told: object, **more: object) -> None:
            self.counts[name] += 1

        return heard


@dataclass(frozen=True, slots=True)
class World:
    """What every process reaches: servers, and what chance there is."""

    loop: VirtualLoop
    chance: random.Random
    clock: SimClock
    redis: Server
    state: RedisState
    postgres: Server
    database: Database
    destinations: tuple[SimDestination, ...]
    catalog: CatalogInMemory
    told: Told = field(default_factory=Told)
    lives: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def owed(self) -> dict[tuple[SourceId, int], set[int]]:
        """Return the numbers that were handed in again and that the ledger has not heard of."""
        stored = self.database.ledger.numbers
        left = {
            lane: all_of - stored.get(lane, set()) for lane, all_of in self.state.handed_in.items()
        }
        return {lane: numbers for lane, numbers in left.items() if numbers}

    def pace(self, idle_ms: int) -> LoopOptions:
        """Return the pace of a loop, by the seed's chance."""
        return LoopOptions(idle_ms=idle_ms, chance=self.chance.random)


@dataclass(frozen=True, slots=True)
class Flows:
    """What a sidecar serves."""

    admit: Admit
    reserve: Reserve
    refunds: Refunds
    backlog: Backlog
    journal: Journal


class Life:
    """One life of a process: its tasks, and the loops among them."""

    def __init__(self, world: World, name: str, died: Callable[[], None]) -> None:
        self.world = world
        self.name = name
        self.process = Process(world.loop, name, died)
        self.stop = asyncio.Event()
        self.number = next(world.lives)

    def run_loop(self, name: str, step: Step[Counts], idle_ms: int) -> None:
        """Run a step as `wiring` does."""
        world = self.world
        loop = Loop(name, step, world.clock, world.told, world.pace(idle_ms))
        self.process.spawn(loop.run(self.stop), f"{self.name} {name}")


@dataclass(frozen=True, slots=True)
class _Each:
    """A function as a step."""

    function: Callable[[], Awaitable[object]]
    more: bool = False

    async def run_once(self) -> "_Each":
        """Call it."""
        await self.function()
        return self


class Sidecar:
    """A sidecar: it is asked by calls, and dies and comes back under the same source id."""

    def __init__(self, world: World, name: str, ahead_us: int = 0) -> None:
        self._world = world
        self._clock = world.clock.like(ahead_us)
        self.name = name
        self.disk = Disk(world.chance)
        self.life: Life | None = None
        self.flows: Flows | None = None
        self._asking: set[asyncio.Future[Any]] = set()

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.life is not None and self.life.process.alive

    def start(self) -> None:
        """Begin a life; it can be asked once it has read its journal."""
        self.flows = None
        self.life = Life(self._world, self.name, self._died)
        self.life.process.spawn(self._begin(self.life), f"{self.name} start")

    async def _begin(self, life: Life) -> None:
        world, clock, told = self._world, self._clock, self._world.told
        process = life.process
        journal = await opened(self.disk, world.loop, world.chance, process, told)
        store = SimQuotaStore(world.redis, world.state, SourceId(self.name))
        for (numbered, shard), last in journal.highest().items():
            store.fake.know(shard, numbered, last)
        entering = JournaledStore(store, journal)
        breaker = Breaker(entering, clock, BreakerOptions(), told)
        dater = ProtobufEventDater()
        backlog = Backlog(
            BacklogParts(breaker, dater, clock, told, journal), BacklogOptions(1_000, 10_000_000)
        )
        gather = Gather(breaker, clock, queue_max=1_000, batch_max=64)
        gate = OutageGate(gather, backlog, told, records_accepted=True)
        seen = SimSeenNumbers(world.redis, world.state, self.name)
        durable = Durable(journal, LedgerWatch(seen))
        encoder = ProtobufEventEncoder()
        decide = Decide(
            DecideParts(world.catalog, gate, clock, encoder, told, SHARDS, durable=durable)
        )
        rebinder = Rebinder(world.catalog, Drafter(encoder, SHARDS))
        backlog.rebinder = rebinder
        gate.resume(await backlog.resume())
        process.spawn(gather.run(), f"{self.name} gather")
        life.run_loop("breaker", _Each(breaker.probe), PROBE_MS)
        life.run_loop("backlog", backlog, BACKLOG_MS)
        hand_in = HandIn(
            HandInParts(
                journal=journal,
                backlog=backlog,
                store=breaker,
                stages=SimStages(world.redis, world.state, self.name),
                seen=seen,
                rebinder=rebinder,
                dater=dater,
                clock=clock,
                observer=told,
                store_us=SimUsageStream(world.redis, world.state, self.name).now_us,
                epochs=entering.epochs,
            ),
            SourceId(self.name),
        )
        life.run_loop("hand_in", hand_in, HAND_IN_MS)
        self.flows = Flows(
            Admit(decide),
            Reserve(decide, breaker, SHARDS),
            Refunds(decide, breaker),
            backlog,
            journal,
        )

    def step_clock(self, ahead_us: int) -> None:
        """Have its machine's clock be wrong by that much."""
        self._clock.ahead_us = ahead_us

    async def ready(self) -> None:
        """Wait until it can be asked, or has died."""
        while self.alive and self.flows is None:
            await asyncio.sleep(READY_S)

    async def ask(self, what: Callable[[Flows], Awaitable[T]], timeout_s: float) -> T:
        """Have something asked by a caller that waits so long.

        Raises `ConnectionError` where the sidecar is gone, `TimeoutError`, and what is raised.
        """
        if self.life is None or self.flows is None or not self.life.process.alive:
            raise ConnectionRefusedError
        reply: asyncio.Future[T] = self._world.loop.create_future()
        self._asking.add(reply)
        handler = self.life.process.spawn(_served(what, self.flows, reply), f"{self.name} call")
        try:
            async with asyncio.timeout(timeout_s):
                return await reply
        except TimeoutError:
            # As gRPC does when the deadline has passed.
            _cancel(handler)
            raise
        finally:
            self._asking.discard(reply)

    def _died(self) -> None:
        self._world.told.counts[SIDECAR_DIED] += 1
        for reply in list(self._asking):
            if not reply.done():
                reply.set_exception(ConnectionResetError())


class Worker:
    """An ingester or a relay: nobody asks it anything."""

    def __init__(self, world: World, name: str, begin: Callable[[Life], None]) -> None:
        self._world = world
        self._begin = begin
        self.name = name
        self.life: Life | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.life is not None and self.life.process.alive

    def start(self) -> None:
        """Begin a life."""
        self.life = Life(self._world, self.name, lambda: None)
        self._begin(self.life)


def begin_ingest(life: Life) -> None:
    """Start what the role `ingest` runs."""
    world, told = life.world, life.world.told
    stream = SimUsageStream(world.redis, world.state, life.name)
    seen = SimSeenNumbers(world.redis, world.state, life.name)
    stages = SimStages(world.redis, world.state, life.name)
    store = SimQuotaStore(world.redis, world.state, SourceId(f"{life.name}-rebuild"))
    # The lead is a process's, not that of the one after it under the same name.
    holder = f"{life.name}/{life.number}"
    closing = SimRebuildLedger(world.postgres, world.database, life.name)
    declared = DeclaredInMemory(world.catalog)
    parts = IngestParts(
        stream=stream,
        ledger=SimLedger(world.postgres, world.database, life.name),
        encoder=ProtobufEventEncoder(),
        clock=world.clock,
        observer=told,
        seen=seen,
    )
    ingest = Ingest(parts, INGEST)

    async def step() -> None:
        # The stream's own wait for entries is the loop's here.
        await ingest.run_once()

    life.run_loop("ingest", _Each(step), INGEST_MS)
    life.run_loop("watch", IngestWatch(parts), WATCH_MS)
    rebuilds = RebuildParts(closing, stages, seen, stream, store, declared, world.clock, told)
    options = RebuildOptions(holder, SHARDS, SETTLE_MS, PATIENCE_MS, LEAD_MS)
    life.run_loop("rebuild", Rebuild(rebuilds, options), REBUILD_MS)
    corrections = SimCorrections(world.postgres, world.database, life.name)
    corrects = CorrectParts(
        corrections, closing, stages, stream, store, declared, world.clock, told
    )
    memory = CorrectOptions(holder, SHARDS, MEMORY_US / 1_000_000, LEAD_MS)
    life.run_loop("correct", Correct(corrects, memory), CORRECT_MS)


def begin_relay(life: Life) -> None:
    """Start what the role `relay` runs."""
    world = life.world
    outbox = SimOutbox(world.postgres, world.database, life.name)
    for destination in world.destinations:
        relay = Relay(outbox, destination, RELAY, world.told)
        life.run_loop(f"relay {destination.name}", relay, RELAY_MS)


async def _served(
    what: Callable[[Flows], Awaitable[T]], flows: Flows, reply: asyncio.Future[T]
) -> None:
    try:
        found = await what(flows)
    except Exception as error:  # noqa: BLE001  what the sidecar says, its caller hears
        if not reply.done():
            reply.set_exception(error)
        return
    if not reply.done():
        reply.set_result(found)


def _cancel(task: SimTask) -> None:
    if task.process is not None and task.process.alive:
        task.cancel()
