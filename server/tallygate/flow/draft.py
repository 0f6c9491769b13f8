"""api ─▶ [ draft ] ─▶ admit: a request with its limits, ready to be decided at any time.

If we die here, nothing has happened yet.

Guarantees: the same request drafts to the same fingerprint and event ids.
Refuses to know: counters, and what becomes of a draft.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tallygate.domain.catalog import Catalog, Meter, Tenant
from tallygate.domain.decision import Mode, Operation
from tallygate.domain.errors import DurabilityNotOffered, EventTimeInFuture, UnknownMeter
from tallygate.domain.event import FUTURE_SKEW_US, UsageEvent
from tallygate.domain.ids import MeterName, OperationId, shard_of
from tallygate.domain.request import (
    ConsumeRequest,
    Durability,
    Item,
    UsageRequest,
    event_id_of,
)
from tallygate.flow.bind import Binder, amounts_by_meter
from tallygate.ports import EventEncoder

FINGERPRINT_BYTES: Final = 16
OFFERED: Final = Durability.REDIS


@dataclass(frozen=True, slots=True)
class Draft:
    """An operation, and what its charges are made of."""

    operation: Operation
    catalog: Catalog
    lineage: tuple[Tenant, ...]
    amounts: Mapping[MeterName, int]
    # Whether the caller is content with an answer that no store has.
    undurable: bool = True


class Drafter:
    """Makes drafts, and binds them to a time."""

    def __init__(self, encoder: EventEncoder, shards: int) -> None:
        self._encoder = encoder
        self._shards = shards
        self._binder = Binder()

    def bound(self, draft: Draft, now_us: int, expires_at: float) -> Operation:
        """Return the draft's operation with the charges around `now_us`.

        Raises `TooManyLimits`.
        """
        charges = self._binder.charges(draft.catalog, draft.lineage, draft.amounts, now_us)
        return replace(draft.operation, charges=charges, expires_at=expires_at)

    def consume(
        self, request: ConsumeRequest, catalog: Catalog, lineage: tuple[Tenant, ...]
    ) -> Draft:
        """Draft a charge. Raises `UnknownMeter` and `DurabilityNotOffered`."""
        _offered(request.min_durability)
        amounts = amounts_by_meter(catalog, request.items)
        events = [
            UsageEvent(
                event_id=event_id_of(request.operation_id, index),
                tenant_id=request.tenant_id,
                meter=item.meter,
                amount=item.amount,
                event_time_us=0,
                operation_id=request.operation_id,
                context=request.context,
                dimensions=item.dimensions,
            )
            for index, item in enumerate(request.items)
        ]
        operation = self._operation(Mode.CONSUME, lineage, events, request.operation_id)
        return Draft(operation, catalog, lineage, amounts, _undurable(request.min_durability))

    def record(
        self, request: UsageRequest, catalog: Catalog, lineage: tuple[Tenant, ...], now_us: int
    ) -> Draft:
        """Draft an event, as a rejection when it is too old.

        Raises `UnknownMeter`, `EventTimeInFuture` and `DurabilityNotOffered`.
        """
        _offered(request.min_durability)
        meter = _meter(catalog, request.meter)
        if request.event_time_us > now_us + FUTURE_SKEW_US:
            raise EventTimeInFuture(field="event_time")
        event = UsageEvent(
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
        if request.event_time_us and request.event_time_us < now_us - meter.late_horizon_us:
            return Draft(self._operation(Mode.REJECT, lineage, [event], None), catalog, lineage, {})
        amounts = amounts_by_meter(catalog, [Item(request.meter, request.amount)])
        # An event is one of a kind by its own id, whichever call brings it.
        memory = OperationId(request.event_id)
        operation = self._operation(Mode.RECORD, lineage, [event], memory)
        return Draft(operation, catalog, lineage, amounts, _undurable(request.min_durability))

    def check(
        self,
        catalog: Catalog,
        lineage: tuple[Tenant, ...],
        amounts: Mapping[MeterName, int],
    ) -> Draft:
        """Draft a question that changes nothing."""
        return Draft(self._operation(Mode.CHECK, lineage, [], None), catalog, lineage, amounts)

    def _operation(
        self,
        mode: Mode,
        lineage: tuple[Tenant, ...],
        events: Sequence[UsageEvent],
        operation_id: OperationId | None,
    ) -> Operation:
        payload = self._encoder.encode(events) if events else b""
        digest = hashlib.blake2b(payload, digest_size=FINGERPRINT_BYTES, person=mode.encode())
        rejected = mode is Mode.REJECT
        return Operation(
            mode=mode,
            tenant_id=lineage[0].tenant_id,
            # A family shares a shard, so that one script can charge a tenant and its parents.
            shard=shard_of(lineage[-1].tenant_id, self._shards),
            operation_id=operation_id,
            fingerprint=digest.hexdigest() if operation_id is not None else "",
            event_count=len(events),
            event_ids=tuple(event.event_id for event in events),
            event_time_us=0 if rejected or not events else events[0].event_time_us,
            payload=payload,
            reject_reason="EVENT_TIME_TOO_OLD" if rejected else "",
        )


def _meter(catalog: Catalog, name: MeterName) -> Meter:
    meter = catalog.meters.get(name)
    if meter is None:
        raise UnknownMeter(f"the catalog has no meter {name!r}", field="meter")
    return meter


def _undurable(least: Durability) -> bool:
    return least is Durability.UNSPECIFIED


def _offered(least: Durability) -> None:
    if least > OFFERED:
        raise DurabilityNotOffered(
            f"{least.name} is not offered, at most {OFFERED.name} is", field="min_durability"
        )
