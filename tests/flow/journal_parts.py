"""A sidecar with a journal over a store in memory, its loops run by hand.

Guarantees: all between a request and the store is what is shipped; time is the test's.
Refuses to know: transports, files, and ledgers: a test says what the ledger has.
"""

import asyncio
from dataclasses import dataclass

from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.dating import ProtobufEventDater
from tallygate.domain.catalog import Limit
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import EventId, OperationId, ReservationId, SourceId, numbered_in
from tallygate.domain.request import (
    CommitRequest,
    ConsumeRequest,
    ConsumeResult,
    Durability,
    Item,
    QuotaRequest,
    RecordResult,
    RefundRequest,
    ReserveRequest,
    ReserveResult,
    UsageRequest,
)
from tallygate.flow.admit import Admit
from tallygate.flow.backlog import Backlog, BacklogOptions, BacklogParts
from tallygate.flow.breaker import Breaker, BreakerOptions
from tallygate.flow.decide import Decide, DecideParts
from tallygate.flow.draft import Drafter
from tallygate.flow.durable import Durable, LedgerWatch
from tallygate.flow.hand_in import HandIn, HandInParts
from tallygate.flow.journal import JournaledStore
from tallygate.flow.lease import LeaseOptions, LeaseParts, Leases
from tallygate.flow.outage import OutageGate
from tallygate.flow.refund import Refunds
from tallygate.flow.reserve import Reserve
from tallygate.flow.resubmit import Rebinder
from tallygate.ports.epochs import Seen, Stage
from tallygate.testing.epochs import FakeCounterStages, FakeSeenNumbers
from tallygate.testing.journal import FakeDisk, FakeJournal
from tallygate.testing.quota import FakeQuotaStore
from tests.builders import ACME, REQUESTS, SHARDS, CatalogInMemory, catalog
from tests.flow.lease_parts import CountingStore, LeaseTold, Time
from tests.flow.outage_parts import Ungathered

SOURCE = SourceId("fake")
SHARD = 1


@dataclass(slots=True)
class Installation:
    """What outlives a sidecar: the store, what the ledger has told, the disk, the time."""

    time: Time
    stages: FakeCounterStages
    store: FakeQuotaStore
    seen: FakeSeenNumbers
    disk: FakeDisk
    # How far sidecars' clocks are ahead of the store's.
    ahead_us: int = 0

    @classmethod
    def fresh(cls) -> "Installation":
        """Return an installation whose counters are open."""
        time, stages = Time(), FakeCounterStages(SHARDS, opens_new=True)
        store = FakeQuotaStore(time.now_us, source_id=SOURCE, stages=stages)
        return cls(time, stages, store, FakeSeenNumbers(), FakeDisk())

    async def store_us(self) -> int:
        """Return the store's time."""
        return self.time.us

    def lose_counters(self) -> None:
        """Empty the store, streams and all; what comes now is shut until it is rebuilt."""
        self.stages.opens_new = False
        for shard in range(SHARDS):
            self.stages.lose(shard)
        self.store.accounts.clear()
        self.store._known.clear()

    async def advance(self, stage: Stage) -> None:
        """Bring every shard to a stage."""
        for state in await self.stages.states():
            await self.stages.advance(state.shard, state.epoch, stage)


@dataclass(slots=True)
class RunningTime:
    """The test's time, with a monotonic clock that runs as the loop's does."""

    time: Time

    def now_us(self) -> int:
        """Return the test's time."""
        return self.time.us

    def monotonic(self) -> float:
        """Return the loop's time, by which callers give up."""
        return asyncio.get_running_loop().time()


@dataclass(slots=True)
class WrongTime:
    """A sidecar's own clock, ahead of the store's or behind it."""

    time: Time
    ahead_us: int

    def now_us(self) -> int:
        """Return what the clock shows."""
        return self.time.us + self.ahead_us

    def monotonic(self) -> float:
        """Return the test's time."""
        return self.time.monotonic()


class HandInTold(LeaseTold):
    """Keeps what handing in tells, too."""

    def handed_in(self, outcome: str, operations: int) -> None:
        """Add them up."""
        self.told[f"handed-in-{outcome}"] += operations


class JournaledSidecar:
    """One sidecar process. Another one over the same installation is its successor."""

    def __init__(self, installation: Installation, *limits: Limit, memory_max: int = 100) -> None:
        self.at = installation
        told = HandInTold()
        self.told = told.told
        self.journal = FakeJournal(installation.disk)
        time, dater, encoder = installation.time, ProtobufEventDater(), ProtobufEventEncoder()
        own = WrongTime(time, installation.ahead_us)
        self.counting = CountingStore(installation.store)
        store = JournaledStore(self.counting, self.journal)
        options = BreakerOptions(hang_ms=5_000, failures_max=1)
        self.breaker = Breaker(store, RunningTime(time), options, told)
        self.backlog = Backlog(
            BacklogParts(self.breaker, dater, time, told, self.journal),
            BacklogOptions(memory_max, 10_000_000),
        )
        self.gate = OutageGate(Ungathered(self.breaker), self.backlog, told)
        view = CatalogInMemory(catalog(*limits))
        rebinder = Rebinder(view, Drafter(encoder, SHARDS))
        self.backlog.rebinder = rebinder
        durable = Durable(self.journal, LedgerWatch(installation.seen))
        decide = Decide(DecideParts(view, self.gate, time, encoder, told, SHARDS, durable))
        leases = LeaseParts(decide, self.breaker, time, dater, told, told, self.journal)
        self.leases = Leases(leases, LeaseOptions())
        self.admit = Admit(decide)
        self.leasing = Admit(decide, self.leases)
        self.reserving = Reserve(decide, self.breaker, SHARDS)
        self.refunds = Refunds(decide, self.breaker)
        self.hand_in = HandIn(
            HandInParts(
                journal=self.journal,
                backlog=self.backlog,
                store=self.breaker,
                stages=installation.stages,
                seen=installation.seen,
                rebinder=rebinder,
                dater=dater,
                clock=own,
                observer=told,
                store_us=installation.store_us,
                epochs=store.epochs,
            ),
            SOURCE,
        )

    async def resume(self) -> None:
        """Take up what the process before left, as each does at its start."""
        self.gate.resume(await self.backlog.resume())

    async def recover(self) -> None:
        """Find the store back, and hand the backlog over."""
        await self.breaker.probe()
        while (await self.backlog.run_once()).more:
            pass

    async def record(
        self, name: str, amount: int = 1, least: Durability = Durability.UNSPECIFIED
    ) -> RecordResult | TallygateError:
        """Record an event."""
        request = UsageRequest(
            ACME, REQUESTS, amount, EventId(name), OperationId(name), min_durability=least
        )
        return (await self.admit.record([request], self.expires_at()))[0]

    async def consume(
        self,
        name: str,
        amount: int = 1,
        least: Durability = Durability.UNSPECIFIED,
        admit: Admit | None = None,
    ) -> ConsumeResult | TallygateError:
        """Ask for some requests."""
        item = Item(REQUESTS, amount)
        request = ConsumeRequest(ACME, (item,), OperationId(name), min_durability=least)
        return (await (admit or self.admit).consume([request], self.expires_at()))[0]

    async def reserve(self, name: str, amount: int, ttl_us: int = 60_000_000) -> ReserveResult:
        """Hold some requests."""
        request = ReserveRequest(ACME, (Item(REQUESTS, amount),), OperationId(name), ttl_us)
        return await self.reserving.reserve(request)

    async def commit(self, reservation_id: ReservationId, *amounts: int) -> None:
        """Settle a reservation; what goes beyond is recorded."""
        name = OperationId(f"commit-{reservation_id}")
        await self.reserving.commit(CommitRequest(ACME, reservation_id, name, amounts, True))

    async def refund(self, event: str, amount: int) -> None:
        """Take an event back, in part."""
        await self.refunds.refund(
            RefundRequest(ACME, EventId(event), OperationId(f"back-{event}"), amount)
        )

    async def used(self) -> int:
        """Return what the tenant has used, by the store."""
        result = await self.admit.quota(QuotaRequest(ACME))
        return result.readings[0].used

    async def ledger_has(self, *ranges: tuple[int, int]) -> None:
        """Tell, for the ledger, what it has of this source in today's epochs."""
        states = await self.at.stages.states()
        await self.at.seen.tell(
            [Seen(numbered_in(SOURCE, each.epoch), each.shard, ranges) for each in states]
        )

    def expires_at(self) -> float:
        """Return when a caller gives up: a real second, as syncs and deadlines are real."""
        return asyncio.get_running_loop().time() + 1.0
