"""usage stream ─▶ [ ingest ] ─▶ ledger: read entries → one transaction → acknowledge.

If we die here after the read, the entries stay with our name in the stream, and another ingester
takes them over. If we die after the transaction and before the acknowledgement, they are stored
again, which changes nothing: the ledger knows each event. If we die while a batch is divided, the
parts that are stored are stored, and the sequence numbers are marked only with its last part.

Guarantees: an entry is acknowledged only after all that it holds is in the ledger: as rows, as
duplicates of rows, or as dead letters with a reason. One event that can never be stored does not
keep others waiting. What could not be stored for now is kept, and tried first in the next run.
Refuses to know: Redis, SQL, and who runs it again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from tallygate.domain.event import (
    BalanceBurn,
    RejectedEvent,
    StreamEntry,
    ThresholdCrossing,
    UsageEvent,
)
from tallygate.domain.ids import SourceId
from tallygate.flow.dead_letter import (
    instant,
    letter_of_burn,
    letter_of_crossing,
    letter_of_event,
    plain,
)
from tallygate.ports import (
    Clock,
    EventEncoder,
    Ledger,
    LedgerBatch,
    Persisted,
    ShardDepth,
    SourceProgress,
    UnstorableBatch,
    UsageStream,
)
from tallygate.ports.epochs import Seen, SeenNumbers

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
    bounds memory and `events_max` the length of a transaction. `claim_idle_ms` must be longer than
    a transaction may take, or work is done twice.
    """

    entries_max: int = 512
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
        # Read and not stored yet; entries, so bounded by `entries_max`.
        self._held: list[StreamEntry] = []
        self._claim_at = float("-inf")

    async def run_once(self) -> IngestCounts:
        """Take entries over or read new ones, store them, acknowledge them.

        Raises what the stream and the ledger raise; what is not stored by then comes first next
        time.
        """
        claimed = 0
        if not self._held:
            self._held = await self._claim()
            claimed = len(self._held)
        if not self._held:
            options = self._options
            self._held = await self._parts.stream.read(options.entries_max, options.block_ms)
        counts = IngestCounts(claimed=claimed)
        while self._held:
            chunk = _chunk(self._held, self._options.events_max)
            stored, poisoned = await self._store(_batch(chunk))
            if self._parts.seen is not None:
                await self._parts.seen.tell(stored.seen)
            await self._parts.stream.acknowledge(chunk)
            self._held = self._held[len(chunk) :]
            counts = IngestCounts(
                entries=counts.entries + len(chunk),
                claimed=claimed,
                persisted=_sum(counts.persisted, stored),
                poisoned=counts.poisoned + poisoned,
            )
        return counts

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


class IngestWatch:
    """Compares the stream with the ledger, run by run, also while the ledger is away."""

    def __init__(self, parts: IngestParts) -> None:
        self._parts = parts
        self._progress: list[SourceProgress] = []

    async def run_once(self) -> "WatchCounts":
        """Measure and tell the observer; the ledger's last known progress counts if it is away.

        Raises what the ledger raised, after it has told.
        """
        stream = self._parts.stream
        failure: Exception | None = None
        try:
            # Before what was accepted is read, so that the ratio errs below 1, not above.
            self._progress = await self._parts.ledger.progress()
        # Lag must be seen to rise just when the ledger fails; the error is raised below.
        except Exception as error:  # noqa: BLE001
            failure = error
        accepted = await stream.accepted()
        if self._parts.seen is not None:
            # Two ingesters may have told in another order than they stored.
            told = [seen_of(each) for each in self._progress]
            await self._parts.seen.tell(
                [each for each in told if (each.source_id, each.shard) in accepted]
            )
        depths = await stream.depths()
        oldest = min((each.oldest_us for each in depths if each.oldest_us), default=0)
        lag_us = await stream.now_us() - oldest if oldest else 0
        self._parts.observer.measured(
            IngestSnapshot(
                lag_s=max(0, lag_us) / 1_000_000,
                completeness=completeness(accepted, self._progress),
                gaps=sum(len(each.gaps) for each in self._progress),
                depths=tuple(depths),
            )
        )
        if failure is not None:
            raise failure
        return WatchCounts()


@dataclass(frozen=True, slots=True)
class WatchCounts:
    """A comparison was made; the next one can wait."""

    more: bool = False


def completeness(
    accepted: Mapping[tuple[SourceId, int], int], progress: Sequence[SourceProgress]
) -> float:
    """Return how much of what was accepted the ledger has, 1 when nothing was accepted.

    A source that the stream no longer knows, as Redis was emptied, counts on neither side.
    """
    total = sum(accepted.values())
    if not total:
        return 1.0
    seen = sum(
        min(each.seen, accepted.get((each.source_id, each.source_lane), 0)) for each in progress
    )
    return seen / total


def seen_of(progress: SourceProgress) -> Seen:
    """Return what the ledger has of a lane as ranges: what lies between its gaps."""
    firsts = [1, *(last + 1 for _, last in progress.gaps)]
    lasts = [*(first - 1 for first, _ in progress.gaps), progress.highest_seq]
    ranges = tuple(
        (first, last) for first, last in zip(firsts, lasts, strict=True) if first <= last
    )
    return Seen(progress.source_id, progress.source_lane, ranges)


def _chunk(entries: Sequence[StreamEntry], events_max: int) -> list[StreamEntry]:
    """Return the first entries that together hold at most `events_max` events, at least one."""
    size = 0
    for place, entry in enumerate(entries):
        size += len(entry.events) + len(entry.rejected) + len(entry.crossings) + len(entry.burns)
        if place and size > events_max:
            return list(entries[:place])
    return list(entries)


def _batch(entries: Sequence[StreamEntry]) -> LedgerBatch:
    return LedgerBatch(
        events=tuple(event for entry in entries for event in entry.events),
        crossings=tuple(crossing for entry in entries for crossing in entry.crossings),
        rejected=tuple(rejected for entry in entries for rejected in entry.rejected),
        ranges=tuple(part for entry in entries for part in entry.ranges),
        burns=tuple(burn for entry in entries for burn in entry.burns),
    )


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
        # The numbers of a batch that was divided go with its last part.
        seen=other.seen or one.seen,
    )
