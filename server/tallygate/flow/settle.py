"""lease ─▶ [ settle ] ═▶ Redis: what was granted from leases becomes used, and is recorded.

If we die here, what was granted and not yet settled is in the journal, and is counted by the next
process; without a journal it is lost. Its units come back when the lease expires: so much may be
granted once more. If we die after the store was called and before it answered, nothing is lost.

Guarantees: a batch is one operation, which the store takes whole or not at all, and which is sent
as it was until the store has told of it. Each grant is recorded under its own operation id: a
repeat of it is known to every sidecar, and what the store knows already is taken out of the batch,
so that its units are not used up. A grant whose lease was lost is counted late, never dropped.
Refuses to know: what may be granted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from tallygate.domain.alike import Alike
from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.decision import (
    Changed,
    Charge,
    Decided,
    Known,
    LimitReading,
    Mode,
    Moved,
    Operation,
    Outcome,
    RateRule,
    Stale,
)
from tallygate.domain.detail import Given, Late, Portion, Settlement, Share
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import AMOUNT_MAX, AccountId, OperationId, ReservationId, TenantId
from tallygate.domain.lease import less
from tallygate.domain.limit import in_reach
from tallygate.flow.resubmit import EventDater
from tallygate.ports.journal import Journal

Answer = Outcome | TallygateError
Job = tuple[Operation, Callable[[Answer], None]]
Units = dict[tuple[AccountId, str], int]

# What one operation settles: a longer one keeps others waiting for the store.
BATCH_MAX: Final = 256
# What was granted has to be recorded, however late the store comes to it.
NEVER_US: Final = AMOUNT_MAX

_OUTCOMES: Final = {"p": "repeated", "u": "conflict"}
# What is said of calls that have to be recorded still.
_KEPT: Final = frozenset({"b", "t"})


class SettleObserver(Protocol):
    """What settling tells of itself."""

    def settled(self, outcome: str, grants: int) -> None:
        """So many grants ended: recorded, repeated, conflict or late."""

    def accepted(self, events: int) -> None:
        """So many events are in the stream that were not there before."""


@dataclass(slots=True)
class Granted:
    """Calls alike that were granted at one moment, each for `amounts`, one per charge.

    `mark` is theirs in the journal, 0 without one. Those in `unnamed` are not remembered: what
    stands under their ids cannot be read. With a `stem`, their ids are its places, all of them from
    the first on.
    """

    alike: Alike
    amounts: tuple[int, ...]
    at_us: int
    operation_ids: list[OperationId]
    mark: int = 0
    unnamed: frozenset[OperationId] = frozenset()
    stem: str = ""


@dataclass(slots=True)
class Batch:
    """Grants on their way, and the operation that settles them; None once the store has.

    `along` are the accounts that have moved with the tenant, None for all.
    """

    groups: list[Granted]
    closes: bool
    operation: Operation | None = None
    late: bool = False
    failed: bool = False
    along: frozenset[AccountId] | None = None

    @property
    def calls(self) -> int:
        """How many grants there are."""
        return sum(len(group.operation_ids) for group in self.groups)


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
    readings: Sequence[LimitReading]
    at_us: int
    received_s: float
    ends_s: float
    size: int
    shares: tuple[Share, ...]
    left: list[int]
    pending: list[Granted] = field(default_factory=list)
    pending_calls: int = 0
    batch: Batch | None = None
    ended: bool = False
    closed: bool = False
    # Whether the next lease's size was learnt from it.
    judged: bool = False
    # Whether the store holds something else than we know: its reservation has to be read.
    unsure: bool = False
    # Whether the store holds it no more.
    lost: bool = False
    settles: int = 0

    @property
    def unsettled(self) -> int:
        """How many grants the store may not have."""
        return self.pending_calls + (self.batch.calls if self.batch else 0)

    @property
    def usable(self) -> bool:
        """Whether the store takes what is granted from it, as far as known."""
        return not self.ended and not self.unsure and not (self.batch and self.batch.failed)

    def enter(self, group: Granted) -> None:
        """Take in what was granted from it."""
        self.pending.append(group)
        self.pending_calls += len(group.operation_ids)


class Settler:
    """Turns grants into operations, and takes in what becomes of them."""

    def __init__(
        self, dater: EventDater, observer: SettleObserver, journal: Journal | None = None
    ) -> None:
        self._dater = dater
        self._observer = observer
        self._journal = journal

    def jobs(self, lease: Lease) -> Iterator[Job]:
        """Yield what to send for a lease, with what to do with the answer."""
        if lease.closed or lease.unsure:
            return
        if lease.batch is None:
            lease.batch = self._batch(lease)
        batch = lease.batch
        if batch is not None and batch.operation is not None:
            yield batch.operation, lambda answer: self._take(lease, batch, answer)

    def finish(self, lease: Lease) -> None:
        """Take a batch off that the store has taken."""
        batch = lease.batch
        if batch is not None and batch.operation is None:
            lease.batch = None
            lease.closed = (batch.closes or lease.lost) and not lease.pending

    def reread(self, lease: Lease, shares: tuple[Share, ...] | None, shard: int) -> None:
        """Go on from what the store holds of a lease; None where that is nothing any more.

        `shard` is another one when its tenant has moved to another family, without those above.
        """
        batch = lease.batch
        assert batch is not None
        if shard != lease.shard and shares is not None:
            batch.along = frozenset(share.account for share in shares)
        lease.shard = shard
        lease.unsure = False
        lease.ended = True
        if shares is not None and not batch.late and _covers(shares, lease, batch):
            lease.shares = shares
            self._renew(lease, batch)
            return
        self._lose(lease, batch)

    def _batch(self, lease: Lease) -> Batch | None:
        groups = _first(lease)
        closes = lease.ended and not lease.pending
        if not groups and (not closes or lease.lost):
            lease.closed = closes
            return None
        batch = Batch(groups, closes, late=lease.lost)
        self._renew(lease, batch)
        return batch

    def _renew(self, lease: Lease, batch: Batch) -> None:
        """Give the batch an operation of its own, for the grants that are in it by now."""
        lease.settles += 1
        if not batch.groups and (batch.late or not batch.closes):
            batch.operation = None
            return
        used = _used(lease, batch)
        given, payload = self._given(batch)
        detail: Late | Settlement = Late(given)
        mode, named, charges, at_us = Mode.LATE, "-late", _late_charges(lease, batch, used), 0
        if batch.late:
            at_us = batch.groups[0].at_us
        else:
            mode, named, charges = Mode.RELEASE if batch.closes else Mode.SETTLE, "", ()
            portions = _portions(lease, used, closes=batch.closes)
            detail = Settlement(lease.reservation_id, portions, given=given)
        batch.operation = Operation(
            mode,
            lease.tenant_id,
            # A tenant that moves leaves its leases behind; they are settled where they are.
            lease.shard,
            operation_id=OperationId(f"{lease.reservation_id}-{lease.settles}{named}"),
            charges=charges,
            event_count=sum(run.event_count * len(run.operation_ids) for run in given),
            event_time_us=at_us,
            payload=payload,
            deadline_us=NEVER_US,
            detail=detail,
        )

    def _given(self, batch: Batch) -> tuple[tuple[Given, ...], bytes]:
        """Return the calls of a batch as the store records them, and their events."""
        runs: list[Given] = []
        payloads: list[bytes] = []
        for group in batch.groups:
            some = self._dated(group)
            payloads += some
            ids, alike = group.operation_ids, group.alike
            named = tuple([None if of in group.unnamed else of for of in ids])
            prints = alike.fingerprints(ids, group.stem)
            runs.append(Given(named, prints, alike.event_count, len(some[0]), group.stem))
        return tuple(runs), b"".join(payloads)

    def _dated(self, group: Granted) -> list[bytes]:
        """Return the events of each call, with the time at which it was granted."""
        dater, at_us, alike = self._dater, group.at_us, group.alike
        dated = alike.changed(lambda payload: dater.dated(payload, at_us))
        if dated is not None:
            return [of.encode().join(dated.parts) for of in group.operation_ids]
        return [dater.dated(alike.payload(of), at_us) for of in group.operation_ids]

    def _take(self, lease: Lease, batch: Batch, answer: Answer) -> None:
        """Take in the store's answer to a batch."""
        batch.failed = isinstance(answer, TallygateError)
        match answer:
            case TallygateError():
                # It may have been taken: the same is sent again.
                return
            case Changed() | Moved():
                lease.unsure = True
            case Known(calls):
                self._take_out(batch, dict(calls))
                self._renew(lease, batch)
            case Decided():
                self._taken(lease, batch)
            case _ if batch.late:
                batch.operation = _with_less(batch, answer)
            case _:
                self._lose(lease, batch)

    def _taken(self, lease: Lease, batch: Batch) -> None:
        assert batch.operation is not None
        calls = batch.calls
        self._observer.accepted(batch.operation.event_count)
        self._observer.settled("late" if batch.late else "recorded", calls)
        self._resolve(batch.groups)
        if not batch.late:
            lease.shares = () if batch.closes else less(lease.shares, _used(lease, batch))
        batch.operation, batch.groups = None, []

    def _take_out(self, batch: Batch, known: dict[int, str]) -> None:
        """Take calls out that the store knows: they were charged when it came to know them."""
        start, left = 0, list[Granted]()
        for group in batch.groups:
            ids = group.operation_ids
            found = {
                ids[place - start]: how
                for place, how in known.items()
                if 0 <= place - start < len(ids)
            }
            start += len(ids)
            if found:
                # From now on each is looked for, and recorded, by itself.
                group.stem = ""
            broken = frozenset(of for of, how in found.items() if how == "b")
            group.unnamed |= broken
            kept = {of for of, how in found.items() if how in _KEPT}
            group.operation_ids = [of for of in ids if of not in found or of in kept]
            for how in found.values():
                if how in _OUTCOMES:
                    self._observer.settled(_OUTCOMES[how], 1)
            if group.operation_ids:
                left.append(group)
            else:
                self._resolve([group])
        batch.groups = left

    def _resolve(self, groups: Sequence[Granted]) -> None:
        marks = [group.mark for group in groups if group.mark]
        if self._journal is not None and marks:
            self._journal.resolve(*marks)

    def _lose(self, lease: Lease, batch: Batch) -> None:
        """Count without the lease, which is lost with its units."""
        lease.ended = lease.lost = batch.closes = batch.late = True
        self._renew(lease, batch)


def _first(lease: Lease) -> list[Granted]:
    """Take the first groups off, as many as one operation may settle; no id comes twice."""
    groups: list[Granted] = []
    calls, met = 0, set[OperationId]()
    for group in lease.pending:
        more = len(group.operation_ids)
        if groups and (calls + more > BATCH_MAX or not met.isdisjoint(group.operation_ids)):
            break
        groups.append(group)
        calls += more
        met.update(group.operation_ids)
    del lease.pending[: len(groups)]
    lease.pending_calls -= calls
    return groups


def _used(lease: Lease, batch: Batch) -> Units:
    """Return the units that the batch's grants have used up."""
    totals = [0] * len(lease.charges)
    for group in batch.groups:
        calls = len(group.operation_ids)
        for place, amount in enumerate(group.amounts):
            totals[place] += amount * calls
    used: Units = {}
    for charge, units in zip(lease.charges, totals, strict=True):
        if units:
            of = (charge.account, charge.field)
            used[of] = used.get(of, 0) + units
    return used


def _portions(lease: Lease, used: Units, *, closes: bool) -> tuple[Portion, ...]:
    """Return how each share is settled; what closes gives all others back."""
    portions: list[Portion] = []
    for share in lease.shares:
        settled = tuple(used.get((share.account, piece.field), 0) for piece in share.pieces)
        rest = tuple(
            piece.amount - units if closes else 0
            for piece, units in zip(share.pieces, settled, strict=True)
        )
        portions.append(Portion(share, settled, rest))
    return tuple(portions)


def _late_charges(lease: Lease, batch: Batch, used: Units) -> tuple[Charge, ...]:
    """Return what is counted without the lease: a rate's units never come back from it."""
    return tuple(
        replace(charge, amount=used[charge.account, charge.field])
        for charge in lease.charges
        if (charge.account, charge.field) in used
        and not isinstance(charge.rule, RateRule)
        and (batch.along is None or charge.account in batch.along)
    )


def _with_less(batch: Batch, answer: Outcome) -> Operation:
    """Return what is left to do late: counters that cannot change must not keep events back."""
    operation = batch.operation
    assert operation is not None
    if isinstance(answer, Stale):
        # Counters of windows that are over need nothing any more.
        live = tuple(each for each in operation.charges if in_reach(each.rule, answer.now_us))
        return replace(operation, charges=live)
    if operation.charges:
        return replace(operation, charges=())
    # What stands under its id cannot be read: it is not remembered, its calls are.
    return replace(operation, operation_id=None)


def _covers(shares: Sequence[Share], lease: Lease, batch: Batch) -> bool:
    """Say whether what is held is enough for what was granted."""
    held = {
        (share.account, piece.field): piece.amount for share in shares for piece in share.pieces
    }
    needed = _late_charges(lease, batch, _used(lease, batch))
    return all(held.get((each.account, each.field), 0) >= each.amount for each in needed)
