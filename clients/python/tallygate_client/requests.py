"""How requests are built from what callers give; what cannot be sent is refused by its field."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from .errors import InvalidRequest, invalid
from .gen.v1 import event_pb2, quota_pb2, usage_pb2
from .results import Durability, Excess
from .values import Charge, Context, Item, Items, Usage
from .version import SDK

INT64_MAX = 2**63 - 1
NANOS = 1_000_000_000
_NO_CONTEXT = event_pb2.EventContext(sdk=SDK)
_DURABILITIES = {
    each: event_pb2.Durability.Value(f"DURABILITY_{each.value}") for each in Durability
}


def new_id() -> str:
    """Return a random id, for an operation or an event."""
    return str(uuid.uuid4())


def commit_id_of(reservation_id: str) -> str:
    """Return the operation id that the service gives to a commit that has none."""
    return f"{reservation_id[-126:]}#c" if reservation_id else ""


def context_of(context: Context | None) -> event_pb2.EventContext:
    """Return the circumstances, with this package's name unless the caller set another."""
    if context is None:
        return _NO_CONTEXT
    try:
        return event_pb2.EventContext(
            subject_id=context.subject_id,
            resource_id=context.resource_id,
            session_id=context.session_id,
            region=context.region,
            sku=context.sku,
            correlation_id=context.correlation_id,
            sdk=context.sdk or SDK,
        )
    except (TypeError, ValueError) as error:
        raise invalid("context", str(error)) from None


def items_of(items: Items) -> list[quota_pb2.Item]:
    """Return the items of a request."""
    if isinstance(items, Mapping):
        pairs: Iterable[Item] = (Item(meter, amount) for meter, amount in items.items())
    else:
        pairs = items
    return [_item(each, f"items[{index}]") for index, each in enumerate(pairs)]


def check_and_consume(charge: Charge, operation_id: str) -> quota_pb2.CheckAndConsumeRequest:
    """Build a charge."""
    return quota_pb2.CheckAndConsumeRequest(
        tenant_id=_text(charge.tenant, "tenant_id"),
        items=items_of(charge.items),
        operation_id=_text(operation_id, "operation_id"),
        context=context_of(charge.context),
        min_durability=_durability(charge.min_durability),
    )


def check(tenant: str, items: Items, context: Context | None) -> quota_pb2.CheckRequest:
    """Build a question."""
    return quota_pb2.CheckRequest(
        tenant_id=_text(tenant, "tenant_id"), items=items_of(items), context=context_of(context)
    )


def reserve(
    tenant: str, items: Items, operation_id: str, ttl: float | None, context: Context | None
) -> quota_pb2.ReserveRequest:
    """Build a reservation."""
    request = quota_pb2.ReserveRequest(
        tenant_id=_text(tenant, "tenant_id"),
        items=items_of(items),
        operation_id=_text(operation_id, "operation_id"),
        context=context_of(context),
    )
    if ttl is not None:
        request.ttl.FromNanoseconds(_nanos(ttl, "ttl"))
    return request


def commit(
    tenant: str,
    reservation_id: str,
    amounts: Sequence[int],
    operation_id: str,
    excess: Excess,
) -> quota_pb2.CommitRequest:
    """Build a settlement."""
    return quota_pb2.CommitRequest(
        tenant_id=_text(tenant, "tenant_id"),
        reservation_id=_text(reservation_id, "reservation_id"),
        amounts=[_amount(each, f"amounts[{index}]") for index, each in enumerate(amounts)],
        operation_id=_text(operation_id, "operation_id"),
        excess=quota_pb2.Excess.Value(f"EXCESS_{excess.value}"),
    )


def release(tenant: str, reservation_id: str, operation_id: str) -> quota_pb2.ReleaseRequest:
    """Build a giving back."""
    return quota_pb2.ReleaseRequest(
        tenant_id=_text(tenant, "tenant_id"),
        reservation_id=_text(reservation_id, "reservation_id"),
        operation_id=_text(operation_id, "operation_id"),
    )


def extend(
    tenant: str, reservation_id: str, ttl: float | None
) -> quota_pb2.ExtendReservationRequest:
    """Build an extension."""
    request = quota_pb2.ExtendReservationRequest(
        tenant_id=_text(tenant, "tenant_id"), reservation_id=_text(reservation_id, "reservation_id")
    )
    if ttl is not None:
        request.ttl.FromNanoseconds(_nanos(ttl, "ttl"))
    return request


def refund(
    tenant: str, event_id: str, amount: int, operation_id: str, reason: str
) -> quota_pb2.RefundRequest:
    """Build a refund."""
    return quota_pb2.RefundRequest(
        tenant_id=_text(tenant, "tenant_id"),
        event_id=_text(event_id, "event_id"),
        amount=_amount(amount, "amount"),
        operation_id=_text(operation_id, "operation_id"),
        reason=_text(reason, "reason"),
    )


def get_quota(
    tenant: str, meters: Iterable[str], dimensions: Mapping[str, str]
) -> quota_pb2.GetQuotaRequest:
    """Build a reading."""
    return quota_pb2.GetQuotaRequest(
        tenant_id=_text(tenant, "tenant_id"),
        meters=[_text(each, f"meters[{index}]") for index, each in enumerate(meters)],
        dimensions=_dimensions(dimensions, "dimensions"),
    )


def watch_quota(
    tenant: str, meters: Iterable[str], dimensions: Mapping[str, str]
) -> quota_pb2.WatchQuotaRequest:
    """Build a watch."""
    return quota_pb2.WatchQuotaRequest(
        tenant_id=_text(tenant, "tenant_id"),
        meters=[_text(each, f"meters[{index}]") for index, each in enumerate(meters)],
        dimensions=_dimensions(dimensions, "dimensions"),
    )


def record_usage(usage: Usage, *, dated: bool = False) -> usage_pb2.RecordUsageRequest:
    """Build an event, its id made once; `dated` ones have the time of now unless given another."""
    request = usage_pb2.RecordUsageRequest(
        tenant_id=_text(usage.tenant, "tenant_id"),
        meter=_text(usage.meter, "meter"),
        amount=_amount(usage.amount, "amount"),
        event_id=_text(usage.event_id or new_id(), "event_id"),
        operation_id=_text(usage.operation_id, "operation_id"),
        dimensions=_dimensions(usage.dimensions, "dimensions"),
        context=context_of(usage.context),
        min_durability=_durability(usage.min_durability),
    )
    if usage.event_time is not None:
        _set_time(request, usage.event_time)
    elif dated:
        request.event_time.FromNanoseconds(time.time_ns())
    if usage.metadata:
        try:
            request.metadata.update(dict(usage.metadata))
        except (TypeError, ValueError) as error:
            raise invalid("metadata", str(error)) from None
    return request


def events_of_charge(
    request: quota_pb2.CheckAndConsumeRequest,
) -> list[usage_pb2.RecordUsageRequest]:
    """Return what a charge would record, under the ids that the service would give its events."""
    return [
        event_of_item(
            request.tenant_id,
            item,
            f"{request.operation_id}:{index}",
            item.amount,
            request.context,
        )
        for index, item in enumerate(request.items)
    ]


def event_of_item(
    tenant: str,
    item: quota_pb2.Item,
    event_id: str,
    amount: int,
    context: event_pb2.EventContext,
) -> usage_pb2.RecordUsageRequest:
    """Return the event of an item, dated now, its own operation."""
    event = usage_pb2.RecordUsageRequest(
        tenant_id=tenant,
        meter=item.meter,
        amount=amount,
        event_id=event_id,
        operation_id=event_id,
        dimensions=item.dimensions,
        context=context,
    )
    event.event_time.FromNanoseconds(time.time_ns())
    return event


def _item(item: Item, path: str) -> quota_pb2.Item:
    return quota_pb2.Item(
        meter=_text(item.meter, f"{path}.meter"),
        amount=_amount(item.amount, f"{path}.amount"),
        dimensions=_dimensions(item.dimensions, f"{path}.dimensions") if item.dimensions else None,
    )


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise invalid(path, f"is text, not {type(value).__name__}")
    return value


def _amount(value: object, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(path, f"is a whole number, not {type(value).__name__}")
    if not -INT64_MAX <= value <= INT64_MAX:
        raise invalid(path, "is beyond 64 bits")
    return value


def _dimensions(values: Mapping[str, str], path: str) -> dict[str, str]:
    return {_text(key, path): _text(value, f"{path}[{key}]") for key, value in dict(values).items()}


def _durability(value: Durability) -> Any:
    return _DURABILITIES[value]


def _nanos(seconds: float, path: str) -> int:
    if not math.isfinite(seconds):
        raise invalid(path, "is a number of seconds")
    return round(seconds * NANOS)


def _set_time(request: usage_pb2.RecordUsageRequest, moment: datetime) -> None:
    if moment.tzinfo is None:
        raise InvalidRequest("has no time zone", reason="INVALID_FIELD", field="event_time")
    request.event_time.FromDatetime(moment)
