"""lease ─▶ [ settle ] ═▶ Redis: what was granted from leases becomes used, and is recorded.

If we die here, what was granted and not yet settled is in the journal, and is counted by the next
process; without a journal it is lost. Its units come back when the lease expires: so much may be
granted once more. If we die after the store was called and before it answered, nothing is lost.

Guarantees: a batch is sent, as it was, until the store has told of every part of it; each grant is
recorded under its own operation id, so that a repeat of it is known to every sidecar and its event
is in the stream once. A grant whose lease was lost is counted late, never dropped.
Refuses to know: what may be granted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final, Protocol

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.decision import (
    Broken,
    Changed,
    Charge,
    Decided,
    LimitReading,
    Mode,
    Moved,
    Operation,
    Outcome,
    RateRule,
    Reused,
    Stale,
)
from tallygate.domain.detail import (
    Portion,
    Refund,
    Settlement,
    Share,
)
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import (
    AMOUNT_MAX,
    AccountId,
    EventId,
    OperationId,
    ReservationId,
    TenantId,
)
from tallygate.domain.lease import less
from tallygate.domain.limit import in_reach
from tallygate.ports.journal import Journal

Answer = Outcome | TallygateError
Job = tuple[Operation, Callable[[Answer], None]]
Units = dict[tuple[AccountId, str], int]

# What a script call is shared by: a longer batch keeps the sidecar's loop from its callers.
BATCH_MAX: Final = 256
# What was granted has to be recorded, however late the store comes to it.
NEVER_US: Final = AMOUNT_MAX


class EventDater(Protocol):
    """Writes a time into encoded events."""

    def dated(self, payload: bytes, at_us: int) -> bytes:
        """Return the events of a unit of the stream with that time where they name none."""
        ...


class SettleObserver(Protocol):
    """What settling tells of itself."""

    def settled(self, outcome: str, grants: int) -> None:
        """So many grants ended: recorded, repeated, conflict or late."""

    def accepted(self, events: int) -> None:
        """So many events are in the stream that were not there before."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A call that was granted from a lease, its charges, and what its caller was told."""

    operation: Operation
    charges: tuple[Charge, ...]
    answer: Decided

    @property
    def mark(self) -> int:
        """Its mark in the journal, 0 without one."""
        return self.answer.journal_mark


@dataclass(slots=True)
class Batch:
    """Grants on their way: what is still without an answer, and the units of all of them."""

    settlement: Operation | None
    records: dict[int, tuple[Grant, Operation]]
    used: Units
    charges: tuple[Charge, ...]
    at_us: int
    closes: bool
    failed: bool = False

    @property
    def done(self) -> bool:
        """Whether the store has told of every part."""
        return self.settlement is None and not self.records


@dataclass(slots=True)
class Lease:
    """Units that the store holds for this process. `charges` are one call's, with its limits.

    `left` is per charge. From `ends_s`, by the monotonic clock, nothing more is granted from it.
    """

    reservation_id: ReservationId
    shard: int
    tenant_id: TenantId
    charges: tuple[Charge, ...]
    catalog: Catalog
    lineage: tuple[Tenant, ...]
    readings: tuple[LimitReading, ...]
    at_us: int
    received_s: float
    ends_s: float
    size: int
    shares: tuple[Share, ...]
    left: list[int]
    granted: int = 0
    pending: list[Grant] = field(default_factory=list)
    batch: Batch | None = None
    ended: bool = False
    closed: bool = False
    # Whether the next lease's size was learnt from it.
    judged: bool = False
    # Whether the store holds something else than we know: its reservation has to be read.
    unsure: bool = False
    settles: int = 0

    @property
    def unsettled(self) -> int:
        """How many grants the store may not have."""
        return len(self.pending) + (len(self.batch.records) if self.batch else 0)

    @property
    def usable(self) -> bool:
        """Whether the store takes what is granted from it, as far as known."""
        return not self.ended and not self.unsure and not (self.batch and self.batch.failed)


class Settler:
    """Turns grants into operations, and takes in what becomes of them."""

    def __init__(
        self, dater: EventDater, observer: SettleObserver, journal: Journal | None = None
    ) -> None:
        self._dater = dater
        self._observer = observer
        self._journal = journal
        # Units that were counted wrongly, as operations that put them right.
        self._owed: dict[OperationId, Operation] = {}
        self._repeats = count(1)

    @property
    def owed(self) -> int:
        """How many corrections wait for the store."""
        return len(self._owed)

    def jobs(self, lease: Lease) -> Iterator[Job]:
        """Yield what to send for a lease, with what to do with each answer."""
        if lease.closed or lease.unsure:
            return
        if lease.batch is None:
            lease.batch = self._batch(lease)
        batch = lease.batch
        if batch is None:
            return
        if batch.settlement is not None:
            yield batch.settlement, lambda answer: self._settlement(lease, batch, answer)
        for place, (_, operation) in batch.records.items():
            yield operation, self._recording(lease, batch, place)

    def corrections(self) -> Iterator[Job]:
        """Yield the corrections that wait."""
        for name, operation in self._owed.items():
            yield operation, self._correcting(name)

    def finish(self, lease: Lease) -> None:
        """Take a batch off that the store has told all of."""
        batch = lease.batch
        if batch is not None and batch.done:
            lease.batch = None
            lease.closed = batch.closes and not lease.pending

    def _batch(self, lease: Lease) -> Batch | None:
        grants = lease.pending[:BATCH_MAX]
        closes = lease.ended and len(grants) == len(lease.pending)
        if not grants and not closes:
            return None
        del lease.pending[:BATCH_MAX]
        lease.settles += 1
        used: Units = {}
        for grant in grants:
            for charge in grant.charges:
                of = (charge.account, charge.field)
                used[of] = used.get(of, 0) + charge.amount
        charges = tuple(
            replace(charge, amount=used[charge.account, charge.field])
            for charge in lease.charges
            if used.get((charge.account, charge.field))
        )
        return Batch(
            settlement=_settlement_of(lease, used, closes),
            records={n: (grant, self._record(lease, grant)) for n, grant in enumerate(grants)},
            used=used,
            charges=charges,
            at_us=grants[0].answer.at_us if grants else lease.at_us,
            closes=closes,
        )

    def _record(self, lease: Lease, grant: Grant) -> Operation:
        """Return the operation that records a grant: its units are the lease's already."""
        operation = grant.operation
        # Spelt out, as `replace` costs five times as much, and every call comes through here.
        return Operation(
            mode=operation.mode,
            tenant_id=operation.tenant_id,
            # A tenant that moves leaves its leases behind; they are settled where they are.
            shard=lease.shard,
            operation_id=operation.operation_id,
            fingerprint=operation.fingerprint,
            event_count=operation.event_count,
            payload=self._dater.dated(operation.payload, grant.answer.at_us),
            deadline_us=NEVER_US,
        )

    def _settlement(self, lease: Lease, batch: Batch, answer: Answer) -> None:
        match answer:
            case TallygateError():
                batch.failed = True
            case Changed() | Moved():
                lease.unsure = True
            case Decided():
                batch.settlement = None
                lease.shares = () if batch.closes else less(lease.shares, batch.used)
            case _:
                # The lease is lost, with its units: they are counted without it.
                batch.settlement = None
                lease.ended = batch.closes = True
                self._owe_late(lease, batch)

    def reread(self, lease: Lease, shares: tuple[Share, ...] | None, shard: int) -> None:
        """Go on from what the store holds of a lease; None where that is nothing any more.

        `shard` is another one when its tenant has moved to another family, without those above.
        """
        batch = lease.batch
        assert batch is not None
        if shard != lease.shard:
            lease.shard = shard
            batch.records = {
                place: (grant, replace(sent, shard=shard))
                for place, (grant, sent) in batch.records.items()
            }
            if shares is not None:
                along = {share.account for share in shares}
                batch.charges = tuple(each for each in batch.charges if each.account in along)
        lease.unsure = False
        lease.ended = True
        if shares is not None and _covers(shares, batch):
            lease.shares = shares
            lease.settles += 1
            batch.settlement = _settlement_of(lease, batch.used, batch.closes)
            return
        batch.settlement = None
        batch.closes = True
        self._owe_late(lease, batch)

    def _recording(self, lease: Lease, batch: Batch, place: int) -> Callable[[Answer], None]:
        def take(answer: Answer) -> None:
            grant, operation = batch.records[place]
            match answer:
                case Decided(replayed=True, at_us=at_us) if at_us < grant.answer.at_us:
                    # It was charged before it was granted here: a repeat that we could not know.
                    self._owe_back(lease, grant)
                    self._end(batch, place, "repeated")
                case Decided():
                    self._observer.accepted(grant.operation.event_count)
                    self._end(batch, place, "recorded")
                case Reused():
                    self._owe_back(lease, grant)
                    self._end(batch, place, "conflict")
                case Broken():
                    # What stands under its id cannot be read; the ledger knows its event by itself.
                    batch.records[place] = (grant, replace(operation, operation_id=None))
                case _:
                    batch.failed = True

        return take

    def _end(self, batch: Batch, place: int, outcome: str) -> None:
        grant, _ = batch.records.pop(place)
        if self._journal is not None and grant.mark:
            self._journal.resolve(grant.mark)
        self._observer.settled(outcome, 1)

    def _owe_late(self, lease: Lease, batch: Batch) -> None:
        if batch.used:
            name = OperationId(f"{lease.reservation_id}-{lease.settles}-late")
            self._owe(name, lease, batch.charges, batch.at_us)
            self._observer.settled("late", len(batch.records))

    def _owe_back(self, lease: Lease, grant: Grant) -> None:
        operation = grant.operation
        name = OperationId(f"{lease.reservation_id}-back-{next(self._repeats)}")
        units = sum(charge.amount for charge in grant.charges)
        # Not the event's own tally of refunds: its caller may still refund it.
        refund = Refund(EventId(name), units, min(units, AMOUNT_MAX))
        self._owed[name] = replace(
            operation,
            mode=Mode.REFUND,
            operation_id=name,
            charges=_returnable(grant.charges),
            event_count=0,
            event_ids=(),
            event_time_us=grant.answer.at_us,
            payload=b"",
            detail=refund,
            expires_at=float("inf"),
            deadline_us=NEVER_US,
        )

    def _owe(self, name: OperationId, lease: Lease, charges: Sequence[Charge], at_us: int) -> None:
        self._owed[name] = Operation(
            Mode.RECORD,
            lease.tenant_id,
            lease.shard,
            operation_id=name,
            charges=_returnable(charges),
            event_time_us=at_us,
            deadline_us=NEVER_US,
        )

    def _correcting(self, name: OperationId) -> Callable[[Answer], None]:
        def take(answer: Answer) -> None:
            match answer:
                case TallygateError() | Moved():
                    # Not taken: it waits, and is told as lost if the process has to end before.
                    return
                case Stale(now_us):
                    # Counters of windows that are over need nothing any more.
                    operation = self._owed[name]
                    live = tuple(each for each in operation.charges if in_reach(each.rule, now_us))
                    self._owed[name] = replace(operation, charges=live)
                case _:
                    del self._owed[name]

        return take


def _settlement_of(lease: Lease, used: Units, closes: bool) -> Operation:
    """Return what turns units into used ones; one that closes gives all others back."""
    portions: list[Portion] = []
    for share in lease.shares:
        settled = tuple(used.get((share.account, piece.field), 0) for piece in share.pieces)
        rest = tuple(
            piece.amount - units if closes else 0
            for piece, units in zip(share.pieces, settled, strict=True)
        )
        portions.append(Portion(share, settled, rest))
    return Operation(
        Mode.RELEASE if closes else Mode.SETTLE,
        lease.tenant_id,
        lease.shard,
        operation_id=OperationId(f"{lease.reservation_id}-{lease.settles}"),
        deadline_us=NEVER_US,
        detail=Settlement(lease.reservation_id, tuple(portions)),
    )


def _covers(shares: Sequence[Share], batch: Batch) -> bool:
    held = {
        (share.account, piece.field): piece.amount for share in shares for piece in share.pieces
    }
    return all(
        held.get((charge.account, charge.field), 0) >= charge.amount
        for charge in _returnable(batch.charges)
    )


def _returnable(charges: Sequence[Charge]) -> tuple[Charge, ...]:
    """Return the charges whose units come back when a lease is lost: a rate's never do."""
    return tuple(charge for charge in charges if not isinstance(charge.rule, RateRule))
