"""app ──gRPC──▶ api ─▶ [ reserve ] ─▶ decide ═▶ Redis: hold first, settle when the cost is known.

If we die here before the store is called, nothing has happened; after it, the caller retries with
the same operation id. A reservation that nobody settles expires by the store's clock, whoever made
it.

Guarantees: each reservation is settled once; usage up to what was reserved is never refused, and
belongs to the moment at which it was reserved; what goes beyond belongs to the moment of settling.
Refuses to know: protos, Redis, and how units are held.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tallygate.domain.catalog import Aggregation, Catalog, Tenant
from tallygate.domain.decision import (
    Changed,
    Charge,
    ConcurrencyRule,
    Decided,
    Mode,
    Operation,
    RateRule,
    Reservation,
    ReservationState,
    Unresolved,
)
from tallygate.domain.detail import (
    Extension,
    Piece,
    Portion,
    Settlement,
    Share,
)
from tallygate.domain.errors import (
    BackendUnavailable,
    InvalidField,
    OperationIdReused,
    ReservationNotFound,
    StorageFault,
)
from tallygate.domain.event import UsageEvent
from tallygate.domain.fingerprint import fingerprint
from tallygate.domain.ids import AccountId, EventId, MeterName, ReservationId, TenantId
from tallygate.domain.request import (
    CommitRequest,
    Durability,
    ExtendRequest,
    Item,
    ReleaseRequest,
    ReserveRequest,
    ReserveResult,
    Resolution,
    ResolveResult,
    event_id_of,
    shard_of_reservation,
)
from tallygate.domain.spread import spread
from tallygate.flow.decide import Answer, Decide, granted
from tallygate.flow.draft import FOREVER, OFFERED, Draft
from tallygate.ports import QuotaStore, ReservationKey

# Only a lease is settled bit by bit, and its one holder does so in turn.
CHANGED_TRIES_MAX: Final = 3

_CLOSED: Final = {
    ReservationState.COMMITTED: Resolution.ALREADY_COMMITTED,
    ReservationState.RELEASED: Resolution.ALREADY_RELEASED,
    ReservationState.EXPIRED: Resolution.EXPIRED,
}


@dataclass(frozen=True, slots=True)
class _Found:
    """A reservation, its events as they were reserved, and the catalog that settles it."""

    reservation: Reservation
    events: tuple[UsageEvent, ...]
    catalog: Catalog
    lineage: tuple[Tenant, ...]
    shard: int


@dataclass(frozen=True, slots=True)
class _Actual:
    """What was used, per item: in all, of what was reserved, and beyond it."""

    amounts: tuple[int, ...]
    covered: tuple[int, ...]
    excess: tuple[int, ...]


class Reserve:
    """Makes reservations and settles them. `expires_at` is loop time when callers give up."""

    def __init__(self, decide: Decide, store: QuotaStore, shards: int) -> None:
        self._decide = decide
        self._store = store
        self._shards = shards

    async def reserve(self, request: ReserveRequest, expires_at: float = FOREVER) -> ReserveResult:
        """Hold the items' units, all or none. Raises the `TallygateError` that prevents it."""
        drafts = await self._decide.drafts([request], self._decide.drafter.reserve)
        decided = granted((await self._decide.decide(drafts, expires_at))[0])
        (draft,) = drafts
        assert isinstance(draft, Draft)
        if not decided.allowed:
            told = spread(decided, draft.operation.operation_id)
            return ReserveResult(told, ReservationId(""), 0)
        hold = draft.operation.detail
        reservation_id: ReservationId = getattr(hold, "reservation_id", ReservationId(""))
        return ReserveResult(decided, reservation_id, decided.at_us + request.ttl_us)

    async def commit(self, request: CommitRequest, expires_at: float = FOREVER) -> ResolveResult:
        """Settle a reservation and record what was used.

        Raises `ReservationNotFound`, and `InvalidField` for amounts that do not fit its items.
        """
        for _ in range(CHANGED_TRIES_MAX):
            found = await self._find(request.tenant_id, request.reservation_id)
            actual = _actual(request, found)
            draft = self._commit_draft(request, found, actual)
            (answer,) = await self._decide.decide([draft], expires_at)
            if isinstance(answer, OperationIdReused) and not request.named:
                # The id was made for the caller, who has brought other amounts than at first.
                found = await self._find(request.tenant_id, request.reservation_id)
                answer = Unresolved(found.reservation.state)
            if not isinstance(answer, Changed):
                return _committed(request, found, actual, answer)
        raise BackendUnavailable("the reservation changes too fast to be settled")

    async def release(self, request: ReleaseRequest, expires_at: float = FOREVER) -> ResolveResult:
        """Give a reservation back. Raises `ReservationNotFound`."""
        for _ in range(CHANGED_TRIES_MAX):
            found = await self._find(request.tenant_id, request.reservation_id)
            portions = tuple(
                Portion(
                    share, (0,) * len(share.pieces), tuple(each.amount for each in share.pieces)
                )
                for share in found.reservation.shares
            )
            operation = Operation(
                mode=Mode.RELEASE,
                tenant_id=request.tenant_id,
                shard=found.shard,
                operation_id=request.operation_id,
                fingerprint=fingerprint(Mode.RELEASE, b"", request.reservation_id),
                detail=Settlement(request.reservation_id, portions),
            )
            draft = Draft(operation, found.catalog, found.lineage)
            (answer,) = await self._decide.decide([draft], expires_at)
            if not isinstance(answer, Changed):
                closed = _closed(answer)
                if closed is not None:
                    return closed
                return ResolveResult(Resolution.RELEASED, replayed=granted(answer).replayed)
        raise BackendUnavailable("the reservation changes too fast to be settled")

    async def extend(self, request: ExtendRequest, expires_at: float = FOREVER) -> ResolveResult:
        """Move a reservation's end to `ttl_us` from now. Raises `ReservationNotFound`."""
        for _ in range(CHANGED_TRIES_MAX):
            found = await self._find(request.tenant_id, request.reservation_id)
            detail = Extension(request.reservation_id, request.ttl_us, found.reservation.shares)
            operation = Operation(Mode.EXTEND, request.tenant_id, found.shard, detail=detail)
            draft = Draft(operation, found.catalog, found.lineage)
            (answer,) = await self._decide.decide([draft], expires_at)
            if not isinstance(answer, Changed):
                closed = _closed(answer)
                if closed is not None:
                    return closed
                expires_us = granted(answer).at_us + request.ttl_us
                return ResolveResult(Resolution.EXTENDED, expires_us=expires_us)
        raise BackendUnavailable("the reservation changes too fast to be extended")

    async def _find(self, tenant_id: TenantId, reservation_id: ReservationId) -> _Found:
        lineage = await self._decide.lineage(tenant_id)
        made_in = shard_of_reservation(reservation_id, self._shards)
        found, shard = None, self._decide.drafter.shard(lineage)
        # It goes with its tenant to another family, and so is first looked for there.
        for each in dict.fromkeys((shard, made_in) if made_in is not None else ()):
            found = await self._store.reservation(ReservationKey(each, tenant_id, reservation_id))
            if found is not None:
                shard = each
                break
        if found is None:
            raise ReservationNotFound(
                f"there is no reservation {reservation_id!r}", field="reservation_id"
            )
        try:
            events = self._decide.drafter.encoder.decode(found.payload, found.reserved_at_us)
        except ValueError as error:
            raise StorageFault("a stored reservation's events cannot be read") from error
        return _Found(found, tuple(events), self._decide.catalog(), lineage, shard)

    def _commit_draft(self, request: CommitRequest, found: _Found, actual: _Actual) -> Draft:
        encoder = self._decide.drafter.encoder
        covered, excess = _events(request, found, actual)
        charges = self._charges(found, actual.covered)
        operation = Operation(
            mode=Mode.COMMIT,
            tenant_id=request.tenant_id,
            shard=found.shard,
            operation_id=request.operation_id,
            fingerprint=_commit_fingerprint(request),
            event_count=len(covered),
            event_ids=tuple(event.event_id for event in covered),
            payload=encoder.encode(covered) if covered else b"",
            detail=Settlement(
                request.reservation_id,
                _portions(found.reservation, charges),
                request.record_excess,
                encoder.encode(excess) if excess else b"",
                len(excess),
            ),
        )
        items = tuple(
            Item(event.meter, amount, event.dimensions)
            for event, amount in zip(found.events, actual.excess, strict=True)
            if event.meter in found.catalog.meters
        )
        context = found.events[0].context
        anew = _charged_anew(found.reservation, charges)
        return Draft(operation, found.catalog, found.lineage, items, context, more=anew)

    def _charges(self, found: _Found, amounts: Sequence[int]) -> tuple[Charge, ...]:
        """Return what the amounts weigh against the limits of now."""
        items = [
            Item(event.meter, amount, event.dimensions)
            for event, amount in zip(found.events, amounts, strict=True)
            if event.meter in found.catalog.meters
        ]
        binder = self._decide.drafter.binder
        context = found.events[0].context
        now_us = self._decide.now_us()
        return binder.charges(found.catalog, found.lineage, items, context, now_us)


def _actual(request: CommitRequest, found: _Found) -> _Actual:
    reserved = tuple(event.amount for event in found.events)
    amounts = request.amounts or reserved
    if len(amounts) != len(reserved):
        raise InvalidField(
            f"holds {len(amounts)} amounts for {len(reserved)} items", field="amounts"
        )
    covered = tuple(
        # A meter that counts events has one, however much was used.
        amount if _counts(found.catalog, event.meter) else min(amount, event.amount)
        for amount, event in zip(amounts, found.events, strict=True)
    )
    excess = tuple(amount - part for amount, part in zip(amounts, covered, strict=True))
    return _Actual(amounts, covered, excess)


def _counts(catalog: Catalog, name: MeterName) -> bool:
    meter = catalog.meters.get(name)
    return meter is not None and meter.aggregation is Aggregation.COUNT


def _events(
    request: CommitRequest, found: _Found, actual: _Actual
) -> tuple[list[UsageEvent], list[UsageEvent]]:
    """Return the events of what was reserved, dated then, and those of the excess, dated now."""
    covered: list[UsageEvent] = []
    excess: list[UsageEvent] = []
    count = len(found.events)
    for index, event in enumerate(found.events):
        dated = replace(
            event,
            operation_id=request.operation_id,
            reservation_id=request.reservation_id,
            received_at_us=0,
        )
        if actual.covered[index]:
            covered.append(
                replace(
                    dated,
                    event_id=event_id_of(request.operation_id, index),
                    amount=actual.covered[index],
                    event_time_us=found.reservation.reserved_at_us,
                )
            )
        if actual.excess[index]:
            excess.append(
                replace(
                    dated,
                    event_id=event_id_of(request.operation_id, count + index),
                    amount=actual.excess[index],
                    event_time_us=0,
                )
            )
    return covered, excess


def _portions(reservation: Reservation, charges: Sequence[Charge]) -> tuple[Portion, ...]:
    """Divide what is held into what was used and what comes back.

    A limit that has gone from the plan gets all of its units back.
    """
    used = {(charge.account, charge.field): charge.amount for charge in charges}
    portions: list[Portion] = []
    for share in reservation.shares:
        settled = tuple(_used(used, share.account, piece) for piece in share.pieces)
        back = tuple(
            piece.amount - units for piece, units in zip(share.pieces, settled, strict=True)
        )
        portions.append(Portion(share, settled, back))
    return tuple(portions)


def _used(used: dict[tuple[AccountId, str], int], account: AccountId, piece: Piece) -> int:
    return min(piece.amount, used.get((account, piece.field), 0))


def _charged_anew(
    reservation: Reservation, charges: Sequence[Charge]
) -> dict[tuple[AccountId, str], int]:
    """Return what limits are charged for that held less than was used, as they came later.

    A rate has taken its tokens when the units were reserved, and concurrency counts none.
    """
    held = {
        (share.account, piece.field): piece.amount
        for share in reservation.shares
        for piece in share.pieces
    }
    return {
        (charge.account, charge.field): charge.amount - held.get((charge.account, charge.field), 0)
        for charge in charges
        if not isinstance(charge.rule, RateRule | ConcurrencyRule)
        and charge.amount > held.get((charge.account, charge.field), 0)
    }


def _commit_fingerprint(request: CommitRequest) -> str:
    content = f"{request.amounts}{request.record_excess}".encode()
    return fingerprint(Mode.COMMIT, content, request.reservation_id)


def _closed(answer: Answer) -> ResolveResult | None:
    """Return what to say of a reservation that was resolved before, None when it was not."""
    if not isinstance(answer, Unresolved):
        return None
    resolution = _CLOSED.get(answer.state)
    if resolution is None:
        raise ReservationNotFound("there is no such reservation any more", field="reservation_id")
    return ResolveResult(resolution)


def _committed(
    request: CommitRequest, found: _Found, actual: _Actual, answer: Answer
) -> ResolveResult:
    closed = _closed(answer)
    if closed is not None:
        return closed
    decided: Decided = granted(answer)
    partial = decided.refused_by is not None
    covered, excess = _events(request, found, actual)
    recorded = [*covered, *([] if partial else excess)]
    ids: tuple[EventId, ...] = tuple(event.event_id for event in recorded)
    return ResolveResult(
        resolution=Resolution.COMMITTED_PARTIALLY if partial else Resolution.COMMITTED,
        readings=decided.readings,
        refused_by=decided.refused_by,
        unrecorded=actual.excess if partial else (),
        event_ids=ids,
        durability=OFFERED if ids else Durability.UNSPECIFIED,
        replayed=decided.replayed,
    )


def _returned(share: Share) -> Portion:
    """Give all of a share back."""
    return Portion(share, (0,) * len(share.pieces), tuple(piece.amount for piece in share.pieces))
