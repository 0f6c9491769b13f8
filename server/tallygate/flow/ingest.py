"""usage stream ─▶ [ ingest ] ─▶ ledger: read entries → one transaction → acknowledge.

If we die here after a read, be it the one ahead of the next transaction, the entries stay with our
name in the stream, and another ingester takes them over. If we die after the transaction and before
the acknowledgement, they are stored again, which changes nothing: the ledger knows each event. If
we die while a batch is divided, the parts that are stored are stored, and the sequence numbers are
marked only with its last part.

Guarantees: an entry is acknowledged only after all that it holds is in the ledger: as rows, as
duplicates of rows, or as dead letters with a reason. One event that can never be stored does not
keep others waiting. What could not be stored for now is kept, and tried first in the next run.
Refuses to know: Redis, SQL, and who runs it again.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from tallygate.domain.event import (
    BalanceBurn,
    RejectedEvent,
    StreamEntry,
    ThresholdCrossing,
    UsageEvent,
)
from tallygate.flow.dead_letter import (
    instant,
    letter_of_burn,
    letter_of_crossing,
    letter_of_event,
    plain,
)
from tallygate.flow.reservoir import Reservoir, size_of
from tallygate.flow.traced import begun
from tallygate.ports import (
    Clock,
    EventEncoder,
    Ledger,
    LedgerBatch,
    Persisted,
    ShardDepth,
    UnstorableBatch,
    UsageStream,
)
from tallygate.ports.epochs import Seen, SeenNumbers
from tallygate.ports.tracing import Kind, Span, Tracer, Value, within

# Fewer would not reach every shard in one call.
ENTRIES_MIN: Final = 64
# So many transactions' events are held, where so many wait: of one shard there are then enough for
# a transaction of few tenants, which adds to few rollups. Some 10 MB.
HELD_AHEAD: Final = 8

T = TypeVar("T")
U = TypeVar("U")
_Piece = UsageEvent | ThresholdCrossing | RejectedEvent | BalanceBurn


@dataclass(frozen=True, slots=True)
class IngestSnapshot:
    """Where the ledger stands against the stream.

    `lag_s` is the age of the oldest entry that awaits the ledger, 0 for none; `completeness` is
    what the ledger has of what was accepted, 1 for all; `gaps` counts ranges that are missing.
    """

    lag_s: float
    completeness: float
    gaps: int
    depths: tuple[ShardDepth, ...]


class IngestObserver(Protocol):
    """What ingest tells of itself."""

    def persisted(self, persisted: Persisted) -> None:
        """A transaction was committed; its entries may still be given out again."""

    def poisoned(self, detail: str) -> None:
        """A part of a batch can never be stored and became a dead letter."""

    def measured(self, snapshot: IngestSnapshot) -> None:
        """The stream and the ledger were compared."""


class SilentIngestObserver:
    """Hears nothing."""

    def persisted(self, persisted: Persisted) -> None:
        """Ignore it."""

    def poisoned(self, detail: str) -> None:
        """Ignore it."""

    def measured(self, snapshot: IngestSnapshot) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How much is taken at once, and when entries of a silent ingester are taken over.

    An entry holds what one script call accepted, up to some hundred events, so that `entries_max`
    bounds memory and `events_max` the length of a transaction. A run reads `reads_max` times, so
    that a stop is heard. `claim_idle_ms` must be longer than some `HELD_AHEAD` transactions may
    take, or work is done twice.
    """

    entries_max: int = 512
    reads_max: int = 32
    events_max: int = 2_000
    block_ms: int = 500
    claim_idle_ms: int = 60_000
    claim_every_ms: int = 5_000


@dataclass(frozen=True, slots=True)
class IngestParts:
    """What ingest works with."""

    stream: UsageStream
    ledger: Ledger
    encoder: EventEncoder
    clock: Clock
    observer: IngestObserver = field(default_factory=SilentIngestObserver)
    # Who is told what the ledger has, None for nobody.
    seen: SeenNumbers | None = None
    # What records batches for the calls that they hold; None where none are recorded.
    tracer: Tracer | None = None


@dataclass(frozen=True, slots=True)
class IngestCounts:
    """What one run did. `claimed` are entries taken over from another ingester."""

    entries: int = 0
    claimed: int = 0
    persisted: Persisted = field(default_factory=Persisted)
    poisoned: int = 0

    @property
    def more(self) -> bool:
        """Always: the next read waits in the stream itself, not here."""
        return True


class Ingest:
    """Drains the stream into the ledger, run by run."""

    def __init__(self, parts: IngestParts, options: IngestOptions | None = None) -> None:
        self._parts = parts
        self._options = options or IngestOptions()
        self._held = Reservoir()
        self._claim_at = float("-inf")
        # How many events an entry holds of late, so that a read brings what a transaction takes.
        self._events_per_entry = 1.0
        self._reads_left = 0

    async def run_once(self) -> IngestCounts:
        """Take entries over or read new ones, store them, acknowledge them.

        While the ledger stores, what it has stored before is acknowledged and more is read, so that
        neither waits for the other. A run holds nothing when it ends well. Raises what the stream
        and the ledger raise; what is not acknowledged by then comes first next time.
        """
        claimed, self._reads_left = 0, self._options.reads_max
        if not self._held:
            found = await self._claim()
            claimed = len(found)
            self._held.add(found)
        if not self._held:
            await self._read(self._options.block_ms)
        elif claimed:
            # What somebody has left may be much: it comes to an end before new entries come.
            self._reads_left = 0
        counts = IngestCounts(claimed=claimed)
        behind: list[StreamEntry] = []
        seen: tuple[Seen, ...] = ()
        while self._held or behind:
            chunk = self._held.take(self._options.events_max)
            try:
                (stored, poisoned), _ = await _both(
                    self._process(chunk) if chunk else _nothing(),
                    self._meanwhile(behind, seen),
                )
            except BaseException:
                self._held.put_back([*behind, *chunk])
                raise
            behind, seen = chunk, stored.seen
            counts = IngestCounts(
                entries=counts.entries + len(chunk),
                claimed=claimed,
                persisted=_sum(counts.persisted, stored),
                poisoned=counts.poisoned + poisoned,
            )
        return counts

    async def _meanwhile(self, behind: list[StreamEntry], seen: Sequence[Seen]) -> None:
        """Acknowledge what is stored, and empty the list of it; then read on."""
        if behind:
            if self._parts.seen is not None:
                await self._parts.seen.tell(seen)
            await self._parts.stream.acknowledge(behind)
            behind.clear()
        # Twice what is stored meanwhile, so that the reservoir fills, and no longer than that.
        enough = self._held.size + 2 * self._options.events_max
        full = HELD_AHEAD * self._options.events_max
        while self._reads_left and self._held.size < min(enough, full):
            if not await self._read(0):
                return

    async def _read(self, block_ms: int) -> bool:
        """Hold about as many events more as a transaction takes; say whether there may be more."""
        options = self._options
        wanted = int(options.events_max / self._events_per_entry) + 1
        count = min(options.entries_max, max(ENTRIES_MIN, wanted))
        self._reads_left -= 1
        found = await self._parts.stream.read(count, block_ms)
        if found:
            self._events_per_entry = max(1.0, sum(map(size_of, found)) / len(found))
            self._held.add(found)
        return len(found) == count

    async def _claim(self) -> list[StreamEntry]:
        now = self._parts.clock.monotonic()
        if now < self._claim_at:
            return []
        options = self._options
        found = await self._parts.stream.claim(options.entries_max, options.claim_idle_ms)
        # While there are more to take over, they go before new ones.
        if not found:
            self._claim_at = now + options.claim_every_ms / 1000
        return found

    async def _process(self, chunk: Sequence[StreamEntry]) -> tuple[Persisted, int]:
        """Store entries as one batch, recorded for the calls whose events they hold."""
        batch, tracer = _batch(chunk), self._parts.tracer
        span = None if tracer is None else self._span(tracer, batch, chunk)
        if span is None:
            return await self._store(batch)
        with within(span):
            return await self._store(batch)

    def _span(
        self, tracer: Tracer, batch: LedgerBatch, chunk: Sequence[StreamEntry]
    ) -> Span | None:
        def told() -> Mapping[str, Value]:
            waited_us = self._parts.clock.now_us() - min(each.received_at_us for each in chunk)
            return {
                "messaging.system": "redis",
                "messaging.operation.type": "process",
                "messaging.operation.name": "ingest",
                "messaging.batch.message_count": len(chunk),
                "tallygate.events": len(batch.events),
                "tallygate.waited_ms": max(0, waited_us // 1_000),
            }

        return begun(
            tracer, "ingest batch", Kind.CONSUMER, (each.trace for each in batch.events), told
        )

    async def _store(self, batch: LedgerBatch) -> tuple[Persisted, int]:
        """Store a batch; where a part of it can never be stored, halve it until that is alone."""
        try:
            stored = await self._parts.ledger.persist(batch)
        except UnstorableBatch as error:
            halves = _halves(batch)
            if halves is None:
                return await self._bury(batch, error.detail)
            first, first_poisoned = await self._store(halves[0])
            second, second_poisoned = await self._store(halves[1])
            return _sum(first, second), first_poisoned + second_poisoned
        self._parts.observer.persisted(stored)
        return stored, 0

    async def _bury(self, batch: LedgerBatch, detail: str) -> tuple[Persisted, int]:
        """Store a batch of one as a dead letter. What cannot be stored even so is a fault of ours.

        The entry then stays in the stream, and each run tells of it anew.
        """
        letters = tuple(self._dead_letters(batch, detail))
        stored = await self._parts.ledger.persist(LedgerBatch((), (), letters, batch.ranges))
        self._parts.observer.persisted(stored)
        self._parts.observer.poisoned(detail)
        return stored, 1

    def _dead_letters(self, batch: LedgerBatch, detail: str) -> Iterator[RejectedEvent]:
        for event in batch.events:
            yield letter_of_event(event, self._payload(event), detail)
        for crossing in batch.crossings:
            yield letter_of_crossing(crossing, batch, detail)
        for burn in batch.burns:
            yield letter_of_burn(burn, detail)
        for rejected in batch.rejected:
            yield replace(
                rejected,
                tenant_id=plain(rejected.tenant_id),
                event_id=plain(rejected.event_id),
                reason=plain(rejected.reason),
                detail=plain(f"{detail}; {rejected.detail}"),
                received_at_us=instant(rejected.received_at_us),
            )

    def _payload(self, event: UsageEvent) -> bytes:
        try:
            return self._parts.encoder.encode([event])
        # Whatever makes an event unstorable may make it unencodable; its text is better than none.
        except Exception:  # noqa: BLE001
            return repr(event).encode(errors="backslashreplace")


def _batch(entries: Sequence[StreamEntry]) -> LedgerBatch:
    return LedgerBatch(
        events=tuple(event for entry in entries for event in entry.events),
        crossings=tuple(crossing for entry in entries for crossing in entry.crossings),
        rejected=tuple(rejected for entry in entries for rejected in entry.rejected),
        ranges=tuple(part for entry in entries for part in entry.ranges),
        burns=tuple(burn for entry in entries for burn in entry.burns),
    )


async def _nothing() -> tuple[Persisted, int]:
    """Store nothing: there is only something left to acknowledge."""
    return Persisted(), 0


async def _both(one: Awaitable[T], other: Awaitable[U]) -> tuple[T, U]:
    """Return what both give; raise the first's error, or the other's, once both have ended.

    Neither is broken off for the other's sake: what was read would be lost to us until it is old.
    """
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, BaseException):
        raise second
    return first, second


def _halves(batch: LedgerBatch) -> tuple[LedgerBatch, LedgerBatch] | None:
    """Divide a batch in two; None for a batch of one. The sequence numbers go with the second."""
    pieces: list[_Piece] = [*batch.events, *batch.crossings, *batch.rejected, *batch.burns]
    if len(pieces) < 2:
        return None
    middle = len(pieces) // 2
    return _of(pieces[:middle]), replace(_of(pieces[middle:]), ranges=batch.ranges)


def _of(pieces: Sequence[_Piece]) -> LedgerBatch:
    return LedgerBatch(
        events=tuple(each for each in pieces if isinstance(each, UsageEvent)),
        crossings=tuple(each for each in pieces if isinstance(each, ThresholdCrossing)),
        rejected=tuple(each for each in pieces if isinstance(each, RejectedEvent)),
        burns=tuple(each for each in pieces if isinstance(each, BalanceBurn)),
    )


def _sum(one: Persisted, other: Persisted) -> Persisted:
    return Persisted(
        events=one.events + other.events,
        duplicates=one.duplicates + other.duplicates,
        rejected=one.rejected + other.rejected,
        crossings=one.crossings + other.crossings,
        messages=one.messages + other.messages,
        burns=one.burns + other.burns,
        corrections=one.corrections + other.corrections,
        late={
            placed: one.late.get(placed, 0) + other.late.get(placed, 0)
            for placed in sorted({*one.late, *other.late})
        },
        # The numbers of a batch that was divided go with its last part.
        seen=other.seen or one.seen,
    )
