"""A whole installation in memory, whose counters can be lost and are made anew.

Owns how what is counted comes to the ledger. Refuses to know what is promised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.decision import Decided, Mode, Operation, Outcome
from tallygate.domain.entry import Entry
from tallygate.domain.errors import TallygateError
from tallygate.domain.event import NO_CONTEXT, SequenceRange, StreamEntry, UsageEvent
from tallygate.domain.ids import EventId, OperationId, TenantId, epoch_of, shard_of
from tallygate.domain.request import Item
from tallygate.domain.sliding import Buckets
from tallygate.domain.verdict import Counter
from tallygate.flow.bind import Binder
from tallygate.flow.correct import Correct, CorrectOptions, CorrectParts
from tallygate.flow.rebuild import Rebuild, RebuildOptions, RebuildParts
from tallygate.flow.recount import Recount
from tallygate.ports import LedgerBatch
from tallygate.ports.epochs import Stage
from tallygate.testing.epochs import FakeCounterStages, FakeSeenNumbers
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.quota import FakeQuotaStore
from tallygate.testing.rebuild import FakeCorrections, FakeRebuildLedger
from tallygate.testing.recount import FakeUsageSnapshots
from tallygate.testing.stream import FakeStreams, FakeUsageStream
from tests.builders import REQUESTS, catalog, tenant, window
from tests.flow.lease_parts import Time

SHARDS = 4
MEMORY_S = 900
NAMES = ("acme", "child", "org", "other")
HARD = catalog(window("monthly", 1_000), window("per-user", 1_000, per="user"))


class Broken(Exception):
    """The process died."""


class Plans:
    """What is declared: one family, everybody else on the default plan."""

    def __init__(self) -> None:
        self.catalog: Catalog | None = HARD
        child = tenant("child", parent=TenantId("org"))
        self.tenants = {each.tenant_id: each for each in (child, tenant("org"))}

    async def effective(self, at_us: int) -> Catalog | None:
        """Return the catalog."""
        return self.catalog

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those that are declared."""
        return {each: self.tenants[each] for each in ids if each in self.tenants}

    def lineage(self, name: str) -> tuple[Tenant, ...]:
        """Return a tenant and its parents."""
        found = self.tenants.get(TenantId(name)) or tenant(name)
        return (found, *(self.lineage(found.parent) if found.parent else ()))


@dataclass
class Told:
    """Hears what rebuilding and correcting tell."""

    renewals: list[str] = field(default_factory=list)
    accounts: int = 0
    outcomes: list[str] = field(default_factory=list)
    waits: Mapping[str, int] = field(default_factory=dict)
    due: int = 0

    def renewed(self, shard: int, reason: str) -> None:
        """Keep the reason."""
        self.renewals.append(reason)

    def applied(self, accounts: int) -> None:
        """Count accounts."""
        self.accounts += accounts

    def refused(self, outcome: str) -> None:
        """Keep the outcome."""
        self.outcomes.append(outcome)

    def opened(self, shard: int, seconds: float) -> None:
        """Nothing to keep."""

    def waiting(self, shards: Mapping[str, int]) -> None:
        """Keep who waits for what."""
        self.waits = dict(shards)

    def corrected(self, outcome: str, corrections: int) -> None:
        """Keep the outcome of each."""
        self.outcomes += [outcome] * corrections

    def pending(self, corrections: int) -> None:
        """Keep how many are due."""
        self.due = corrections


class Installation:
    """Redis, a ledger, and who goes between them."""

    def __init__(self) -> None:
        self.time = Time()
        self.plans = Plans()
        self.stages = FakeCounterStages(SHARDS)
        self.seen = FakeSeenNumbers()
        self.streams = FakeStreams(self.time.now_us, SHARDS)
        self.stream = FakeUsageStream(self.streams, "ingester")
        self.store = FakeQuotaStore(
            self.time.now_us, memory_us=MEMORY_S * 1_000_000, stages=self.stages
        )
        self.ledger = FakeLedger()
        self.snapshots = FakeUsageSnapshots(self.ledger)
        self.rebuilds = FakeRebuildLedger(self.snapshots, self.time.now_us)
        self.corrections = FakeCorrections(self.ledger, self.time.now_us)
        self.told = Told()
        self._taken: dict[int, int] = {}

    def parts(self) -> RebuildParts:
        """Return what rebuilding works with."""
        return RebuildParts(
            self.rebuilds,
            self.stages,
            self.seen,
            self.stream,
            self.store,
            self.plans,
            self.time,
            self.told,
        )

    def rebuild(self, holder: str = "one", parts: RebuildParts | None = None) -> Rebuild:
        """Return a process that rebuilds."""
        return Rebuild(parts or self.parts(), RebuildOptions(holder, SHARDS))

    def correct(self, holder: str = "one") -> Correct:
        """Return a process that corrects."""
        parts = CorrectParts(
            self.corrections,
            self.rebuilds,
            self.stages,
            self.stream,
            self.store,
            self.plans,
            self.time,
            self.told,
        )
        return Correct(parts, CorrectOptions(holder, SHARDS, MEMORY_S))

    def operation(
        self, name: str, number: int, amount: int = 1, mode: Mode = Mode.RECORD
    ) -> Operation:
        """Return an operation of one event, remembered by the event's number."""
        identity = OperationId(f"event-{number}")
        event = UsageEvent(
            EventId(identity), TenantId(name), REQUESTS, amount, 0, identity, NO_CONTEXT,
            {"user": f"u{number % 2}"},
        )  # fmt: skip
        items = [Item(event.meter, amount, event.dimensions)]
        lineage = self.plans.lineage(name)
        charges = Binder().charges(HARD, lineage, items, NO_CONTEXT, self.time.now_us())
        return Operation(
            mode,
            event.tenant_id,
            shard_of(lineage[-1].tenant_id, SHARDS),
            identity,
            f"{amount:032x}",
            charges,
            event_count=1,
            payload=ProtobufEventEncoder().encode([event]),
        )

    async def use(
        self, name: str, number: int, amount: int = 1, mode: Mode = Mode.RECORD
    ) -> Outcome | TallygateError:
        """Have a sidecar use units, and the stream take them in."""
        operation = self.operation(name, number, amount, mode)
        (outcome,) = await self.store.decide([operation])
        self.carry(operation.shard)
        return outcome

    def carry(self, shard: int) -> None:
        """Bring what a shard has accepted to its stream."""
        entries = self.store.shard(shard).stream
        for entry in entries[self._taken.get(shard, 0) :]:
            self.streams.add(_read(entry, shard))
        self._taken[shard] = len(entries)

    async def ingest(self) -> None:
        """Bring all that is in the streams to the ledger."""
        entries = await self.stream.read(1_000, 0)
        await self.store_entries(entries)
        await self.stream.acknowledge(entries)

    async def store_entries(self, entries: Sequence[StreamEntry]) -> None:
        """Store what is in these entries."""
        for entry in entries:
            await self.ledger.persist(LedgerBatch(entry.events, ranges=entry.ranges))

    def lose(self) -> None:
        """Empty Redis."""
        for shard in range(SHARDS):
            self.stages.lose(shard)
            held = self.streams.shards[shard]
            held.entries.clear()
            held.pending.clear()
            held.read = 0

    async def run(self, rebuild: Rebuild, rounds: int = 12) -> None:
        """Run rebuilding for some seconds."""
        for _ in range(rounds):
            await rebuild.run_once()
            self.time.us += 1_000_000

    @property
    def open(self) -> bool:
        """Whether every shard decides."""
        return all(self.stages.state(each).stage is Stage.OPEN for each in range(SHARDS))

    def counters(self) -> dict[tuple[str, str], dict[int, int]]:
        """Return what the counters hold, by account and field."""
        found: dict[tuple[str, str], dict[int, int]] = {}
        for shard in range(SHARDS):
            for name, account in self.store.shard(shard).accounts.items():
                for limit, state in account.counters.items():
                    match state:
                        case Counter(at, amount) if amount:
                            found[name, limit] = {at: amount}
                        case Buckets(units):
                            found[name, limit] = dict(units)
        return found

    async def recounted(self) -> dict[tuple[str, str], dict[int, int]]:
        """Return what the counters would hold by the ledger alone."""
        async with self.snapshots.snapshot() as usage:
            recount = Recount(usage, self.plans, HARD, shards=SHARDS, at_us=self.time.now_us())
            return {
                (each.account, charge.field): dict(slots)
                async for part in recount.accounts()
                for each in part
                for charge, slots in zip(each.charges, each.slots, strict=True)
            }


async def opened() -> Installation:
    """Return an installation that is in use: 40 events, all of them in the ledger."""
    world = Installation()
    await world.run(world.rebuild(), 2)
    assert world.open
    for number in range(40):
        assert allowed(await world.use(NAMES[number % 4], number, 1 + number, Mode.CONSUME))
    await world.ingest()
    return world


def allowed(outcome: Outcome | TallygateError) -> bool:
    """Say whether an operation was decided and passed."""
    return isinstance(outcome, Decided) and outcome.allowed


def _read(entry: Entry, shard: int) -> StreamEntry:
    events: list[UsageEvent] = []
    ranges: list[SequenceRange] = []
    source = entry.source_id
    for record in entry.records:
        last = record.first_seq + record.event_count - 1
        ranges.append(SequenceRange(source, shard, record.first_seq, last))
        for place, event in enumerate(ProtobufEventEncoder().decode(record.payload, entry.at_us)):
            events.append(
                replace(
                    event,
                    event_time_us=event.event_time_us or entry.at_us,
                    received_at_us=entry.at_us,
                    source_id=source,
                    source_lane=shard,
                    source_seq=record.first_seq + place,
                    counter_epoch=epoch_of(source),
                )
            )
    return StreamEntry(shard, "", entry.at_us, tuple(events), ranges=tuple(ranges))
