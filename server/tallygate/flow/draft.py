"""api ─▶ [ draft ] ─▶ decide: a request with its limits, ready to be decided at any time.

If we die here, nothing has happened yet.

Guarantees: the same request drafts to the same fingerprint and event ids.
Refuses to know: counters, and what becomes of a draft.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tallygate.domain.catalog import Catalog, Meter, Tenant
from tallygate.domain.decision import (
    Mode,
    Operation,
)
from tallygate.domain.detail import (
    Detail,
    Hold,
)
from tallygate.domain.errors import (
    DurabilityNotOffered,
    EventTimeInFuture,
    TenantSuspended,
    UnknownMeter,
)
from tallygate.domain.event import FUTURE_SKEW_US, NO_CONTEXT, EventContext, UsageEvent
from tallygate.domain.fingerprint import fingerprint
from tallygate.domain.ids import (
    AccountId,
    EventId,
    MeterName,
    OperationId,
    ReservationId,
    TenantId,
    shard_of,
)
from tallygate.domain.quick import quick
from tallygate.domain.request import (
    CheckRequest,
    ConsumeRequest,
    Durability,
    Item,
    QuotaRequest,
    ReserveRequest,
    UsageRequest,
    event_id_of,
    reservation_id_of,
)
from tallygate.flow.bind import Binder, quota_items, suspended_in
from tallygate.flow.place import Place, Places
from tallygate.ports import EventEncoder

# An enumeration's members are slow to find, and every call needs these.
_CONSUME: Final = Mode.CONSUME
_REDIS: Final = Durability.REDIS
_RECORD: Final = Mode.RECORD
OFFERED: Final = Durability.REDIS
FOREVER: Final = float("inf")

Trace = Callable[[TenantId], bytes]
"""Returns the place in a trace that the call of a tenant works for, empty for none."""


@quick
@dataclass(frozen=True, slots=True)
class Draft:
    """An operation, and what its charges are made of."""

    operation: Operation
    catalog: Catalog
    lineage: tuple[Tenant, ...]
    items: tuple[Item, ...] = ()
    context: EventContext = NO_CONTEXT
    # Whether the caller is content with an answer that no store has.
    undurable: bool = True
    # Units to charge beside what the items weigh, by account and field.
    more: Mapping[tuple[AccountId, str], int] | None = None
    # Where calls alike have their charges; None where each is bound by itself.
    place: Place | None = None


class Drafter:
    """Makes drafts, and binds them to a time."""

    def __init__(
        self,
        encoder: EventEncoder,
        shards: int,
        offered: Durability = Durability.REDIS,
        trace: Trace | None = None,
    ) -> None:
        self.encoder: Final = encoder
        self.offered: Final = offered
        self.binder: Final = Binder()
        self._places = Places(self.binder, encoder, shards)
        self._shards = shards
        self._trace = trace

    def bound(self, draft: Draft, now_us: int, expires_at: float) -> Operation:
        """Return the draft's operation with the charges around `now_us`.

        Raises `TooManyLimits` and `CounterOverflow`.
        """
        place = draft.place
        if place is not None:
            charges = self._places.charges(place, draft.items, now_us, draft.context)
            if charges is draft.operation.charges:
                return draft.operation
        else:
            charges = self.binder.charges(
                draft.catalog, draft.lineage, draft.items, draft.context, now_us
            )
        more = draft.more
        if more:
            charges = tuple(
                replace(each, amount=each.amount + more.get((each.account, each.field), 0))
                for each in charges
            )
        return replace(draft.operation, charges=charges, expires_at=expires_at)

    def consume(
        self,
        request: ConsumeRequest,
        catalog: Catalog,
        lineage: tuple[Tenant, ...],
        now_us: int,
        *,
        expires_at: float = FOREVER,
    ) -> Draft:
        """Draft a charge, bound to `now_us`, the store's time.

        Raises `UnknownMeter`, `TenantSuspended`, `DurabilityNotOffered`, `TooManyLimits` and
        `CounterOverflow`.
        """
        least = request.min_durability
        if least:
            self._offered(least)
        _served(lineage)
        items, context = request.items, request.context
        place = self._places.of(catalog, lineage, items)
        charges = self._places.charges(place, items, now_us, context)
        operation_id = request.operation_id
        event_ids, payload = self._charged_events(place, request)
        # By place, as names cost twice as much, and every call comes through here.
        operation = Operation(
            _CONSUME,
            request.tenant_id,
            place.shard,
            operation_id,
            fingerprint(_CONSUME, payload),
            charges,
            len(items),
            event_ids,
            0,
            payload,
            "",
            expires_at,
            0,
            None,
            "",
            least > _REDIS,
            b"" if self._trace is None else self._trace(request.tenant_id),
        )
        undurable = least == 0 or self._undurable(least)
        return Draft(operation, catalog, lineage, items, context, undurable, None, place)

    def _charged_events(
        self, place: Place, request: ConsumeRequest
    ) -> tuple[tuple[EventId, ...], bytes]:
        """Return the ids and the bytes of a charge's events."""
        items, operation_id = request.items, request.operation_id
        if len(items) == 1 and request.context is NO_CONTEXT and not items[0].dimensions:
            event_id = event_id_of(operation_id, 0)
            return (event_id,), self._places.payload(place, items[0], event_id, operation_id)
        events = drafted_events(request, ReservationId(""))
        return tuple([event.event_id for event in events]), self.encoder.encode(events)

    def record(
        self,
        request: UsageRequest,
        catalog: Catalog,
        lineage: tuple[Tenant, ...],
        now_us: int,
        *,
        expires_at: float = FOREVER,
    ) -> Draft:
        """Draft an event bound to `now_us`, as a rejection when it is too old.

        Raises `UnknownMeter`, `EventTimeInFuture`, `DurabilityNotOffered`, `TooManyLimits` and
        `CounterOverflow`.
        """
        self._offered(request.min_durability)
        meter = _meter(catalog, request.meter)
        if request.event_time_us > now_us + FUTURE_SKEW_US:
            raise EventTimeInFuture(field="event_time")
        if request.event_time_us and request.event_time_us < now_us - meter.late_horizon_us:
            late = [_recorded_event(request)]
            return Draft(self.operation(Mode.REJECT, lineage, late, None), catalog, lineage)
        item = Item(request.meter, request.amount, request.dimensions)
        place = self._places.of(catalog, lineage, (item,))
        if _plain(request):
            payload = self._places.payload(place, item, request.event_id, request.operation_id)
        else:
            payload = self.encoder.encode([_recorded_event(request)])
        items = (item,)
        operation = Operation(
            mode=_RECORD,
            tenant_id=request.tenant_id,
            shard=place.shard,
            # An event is one of a kind by its own id, whichever call brings it.
            operation_id=OperationId(request.event_id),
            fingerprint=fingerprint(_RECORD, payload),
            charges=self._places.charges(place, items, now_us, request.context),
            event_count=1,
            event_ids=(request.event_id,),
            event_time_us=request.event_time_us,
            payload=payload,
            expires_at=expires_at,
            trace=b"" if self._trace is None else self._trace(request.tenant_id),
        )
        undurable = self._undurable(request.min_durability)
        return Draft(operation, catalog, lineage, items, request.context, undurable, place=place)

    def check(self, request: CheckRequest, catalog: Catalog, lineage: tuple[Tenant, ...]) -> Draft:
        """Draft a question that changes nothing. Raises `UnknownMeter` and `TenantSuspended`."""
        _served(lineage)
        _known(catalog, request.items)
        operation = self.operation(Mode.CHECK, lineage, [], None)
        return Draft(operation, catalog, lineage, request.items, request.context)

    def quota(self, request: QuotaRequest, catalog: Catalog, lineage: tuple[Tenant, ...]) -> Draft:
        """Draft a reading of limits. Raises `UnknownMeter`."""
        items = quota_items(catalog, request.meters, request.dimensions)
        return Draft(self.operation(Mode.CHECK, lineage, [], None), catalog, lineage, items)

    def reserve(
        self, request: ReserveRequest, catalog: Catalog, lineage: tuple[Tenant, ...]
    ) -> Draft:
        """Draft a reservation. Raises `UnknownMeter` and `TenantSuspended`."""
        _served(lineage)
        _known(catalog, request.items)
        shard = self.shard(lineage)
        reservation_id = reservation_id_of(shard, request.operation_id)
        events = drafted_events(request, reservation_id)
        operation = self.operation(
            Mode.RESERVE,
            lineage,
            events,
            request.operation_id,
            Hold(reservation_id, request.ttl_us),
        )
        operation = replace(
            operation,
            # The events are recorded when it is committed.
            event_count=0,
            event_ids=(),
            fingerprint=fingerprint(Mode.RESERVE, operation.payload, str(request.ttl_us)),
        )
        return Draft(operation, catalog, lineage, request.items, request.context)

    def operation(
        self,
        mode: Mode,
        lineage: Sequence[Tenant],
        events: Sequence[UsageEvent],
        operation_id: OperationId | None,
        detail: Detail | None = None,
    ) -> Operation:
        """Return an operation without charges, its fingerprint made from its events."""
        payload = self.encoder.encode(events) if events else b""
        rejected = mode is Mode.REJECT
        return Operation(
            mode=mode,
            tenant_id=lineage[0].tenant_id,
            shard=self.shard(lineage),
            operation_id=operation_id,
            fingerprint=fingerprint(mode, payload) if operation_id is not None else "",
            event_count=len(events),
            event_ids=tuple(event.event_id for event in events),
            event_time_us=0 if rejected or not events else events[0].event_time_us,
            payload=payload,
            reject_reason="EVENT_TIME_TOO_OLD" if rejected else "",
            detail=detail,
        )

    def _offered(self, least: Durability) -> None:
        if least > self.offered:
            raise DurabilityNotOffered(
                f"{least.name} is not offered, at most {self.offered.name} is",
                field="min_durability",
            )

    def _undurable(self, least: Durability) -> bool:
        """Say whether what is not in the store can be as durable as that."""
        journaled = self.offered >= Durability.JOURNAL
        return least <= (Durability.JOURNAL if journaled else Durability.UNSPECIFIED)

    def shard(self, lineage: Sequence[Tenant]) -> int:
        """Return a family's shard: one script can charge a tenant and its parents."""
        return shard_of(lineage[-1].tenant_id, self._shards)


def drafted_events(
    request: ConsumeRequest | ReserveRequest, reservation_id: ReservationId
) -> list[UsageEvent]:
    """Return one event per item, with the amounts asked for."""
    return [
        UsageEvent(
            event_id=event_id_of(request.operation_id, index),
            tenant_id=request.tenant_id,
            meter=item.meter,
            amount=item.amount,
            event_time_us=0,
            operation_id=request.operation_id,
            context=request.context,
            dimensions=item.dimensions,
            reservation_id=reservation_id,
        )
        for index, item in enumerate(request.items)
    ]


def _plain(request: UsageRequest) -> bool:
    """Say whether an event is its tenant, meter, amount and ids, and nothing else."""
    return request.context is NO_CONTEXT and not (
        request.event_time_us or request.dimensions or request.metadata_json
    )


def _recorded_event(request: UsageRequest) -> UsageEvent:
    return UsageEvent(
        event_id=request.event_id,
        tenant_id=request.tenant_id,
        meter=request.meter,
        amount=request.amount,
        event_time_us=request.event_time_us,
        operation_id=request.operation_id,
        context=request.context,
        dimensions=request.dimensions,
        metadata_json=request.metadata_json,
    )


def _known(catalog: Catalog, items: Sequence[Item]) -> None:
    for index, item in enumerate(items):
        if item.meter not in catalog.meters:
            raise UnknownMeter(
                f"the catalog has no meter {item.meter!r}", field=f"items[{index}].meter"
            )


def _served(lineage: Sequence[Tenant]) -> None:
    suspended: TenantId | None = suspended_in(lineage)
    if suspended is not None:
        raise TenantSuspended(f"tenant {suspended} is suspended", field="tenant_id")


def _meter(catalog: Catalog, name: MeterName) -> Meter:
    meter = catalog.meters.get(name)
    if meter is None:
        raise UnknownMeter(f"the catalog has no meter {name!r}", field="meter")
    return meter
