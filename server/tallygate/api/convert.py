"""Between protos and the domain, both ways; the checks that need no catalog.

Guarantees: a request that converts is within bounds; a field at fault is named by its path.
Refuses to know: what is done with requests.
"""

import os
import re
import secrets
from collections.abc import Sequence
from typing import Final, Literal, Protocol

from google.protobuf import json_format

from tallygate.domain import event as bounds
from tallygate.domain import ids
from tallygate.domain.catalog import UNLIMITED
from tallygate.domain.decision import Decided, LimitReading, LimitState
from tallygate.domain.errors import InvalidField, TooManyItems
from tallygate.domain.event import METADATA_BYTES_MAX, NO_CONTEXT, EventContext
from tallygate.domain.ids import EventId, MeterName, OperationId, scope_of, tenant_of
from tallygate.domain.request import (
    ITEMS_MAX,
    REQUESTS_MAX,
    CheckRequest,
    ConsumeRequest,
    Durability,
    Item,
    QuotaRequest,
    QuotaResult,
    RecordResult,
    UsageRequest,
    event_id_of,
)
from tallygate.gen.v1 import event_pb2, limit_pb2, quota_pb2, usage_pb2

MADE_ID_BYTES: Final = 16
MADE_TOGETHER: Final = 64
# Each level is three of protobuf's hundred: what nests deeper could be accepted, but not read back.
METADATA_DEPTH_MAX: Final = 16
# An odd number of backslashes escapes; after an even one, the text only looks like a NUL's.
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')

STATES: Final = {
    LimitState.OK: limit_pb2.LIMIT_STATE_OK,
    LimitState.WARNING: limit_pb2.LIMIT_STATE_WARNING,
    LimitState.EXCEEDED: limit_pb2.LIMIT_STATE_EXCEEDED,
    LimitState.SHADOW_EXCEEDED: limit_pb2.LIMIT_STATE_SHADOW_EXCEEDED,
}
_DURABILITIES: Final = {each.value: each for each in Durability}
# Shared by all that have none; nobody writes to what an item has.
_NO_DIMENSIONS: Final[dict[str, str]] = {}
# Ids that nobody has been given yet; a process that is forked must not give them a second time.
_made: Final[list[str]] = []
os.register_at_fork(after_in_child=_made.clear)
_CONTEXT_FIELDS: Final = tuple(EventContext.__dataclass_fields__)


def consume_request(message: quota_pb2.CheckAndConsumeRequest) -> ConsumeRequest:
    """Return the request. Raises `InvalidField`."""
    # By place, as names cost twice as much, and every call comes through here.
    return ConsumeRequest(
        ids.tenant_id(message.tenant_id),
        items_of(message.items),
        operation_id_of(message.operation_id),
        context_of(message),
        _durability(message.min_durability),
    )


def check_request(message: quota_pb2.CheckRequest) -> CheckRequest:
    """Return the request. Raises `InvalidField`."""
    return CheckRequest(
        ids.tenant_id(message.tenant_id), items_of(message.items), context_of(message)
    )


def quota_request(
    message: quota_pb2.GetQuotaRequest | quota_pb2.WatchQuotaRequest,
) -> QuotaRequest:
    """Return the request. Raises `InvalidField`."""
    counted(message.meters, ITEMS_MAX, "meters", at_least=0)
    meters = tuple(_meter(meter, f"meters[{index}]") for index, meter in enumerate(message.meters))
    dimensions = bounds.dimensions(message.dimensions) if message.dimensions else {}
    return QuotaRequest(ids.tenant_id(message.tenant_id), meters, dimensions)


def usage_request(message: usage_pb2.RecordUsageRequest) -> UsageRequest:
    """Return the request, with the ids that the caller left out. Raises `InvalidField`."""
    event_id, operation_id = _usage_ids(message)
    return UsageRequest(
        tenant_id=ids.tenant_id(message.tenant_id),
        meter=_meter(message.meter, "meter"),
        amount=ids.amount(message.amount),
        event_id=event_id,
        operation_id=operation_id,
        event_time_us=_event_time_us(message),
        dimensions=bounds.dimensions(message.dimensions) if message.dimensions else {},
        context=context_of(message),
        metadata_json=_metadata(message),
        min_durability=_durability(message.min_durability),
    )


def counted(
    items: Sequence[object], most: int = REQUESTS_MAX, field: str = "requests", *, at_least: int = 1
) -> None:
    """Raise `TooManyItems` or `InvalidField` unless the list's length is within its bounds."""
    if len(items) > most:
        raise TooManyItems(f"holds {len(items)} items, at most {most} may be", field=field)
    if len(items) < at_least:
        raise InvalidField("must not be empty", field=field)


def check_response(decision: Decided) -> quota_pb2.CheckResponse:
    """Return the reply to a question."""
    message = quota_pb2.CheckResponse(
        allowed=decision.allowed,
        limits=[limit_status(reading) for reading in decision.readings],
        refused_by=decision.refused_by or "",
    )
    if decision.retry_after_us is not None:
        message.retry_after.FromMicroseconds(decision.retry_after_us)
    return message


def quota_response(result: QuotaResult) -> quota_pb2.GetQuotaResponse:
    """Return a tenant's limits."""
    return quota_pb2.GetQuotaResponse(
        limits=[limit_status(reading) for reading in result.readings],
        plan=result.plan,
        catalog_version=result.catalog_version,
    )


def record_response(result: RecordResult) -> usage_pb2.RecordUsageResponse:
    """Return the reply to a recorded event."""
    return usage_pb2.RecordUsageResponse(
        event_id=result.event_id,
        replayed=result.replayed,
        durability=int(result.durability),  # type: ignore[arg-type]
        degraded=result.degraded,
    )


def items_of(messages: Sequence[quota_pb2.Item]) -> tuple[Item, ...]:
    """Return the items, at least one. Raises `TooManyItems` and `InvalidField`."""
    if len(messages) == 1:
        # As nearly all calls have it.
        return (_item(messages[0], 0),)
    counted(messages, ITEMS_MAX, "items")
    return tuple([_item(message, index) for index, message in enumerate(messages)])


def _item(message: quota_pb2.Item, index: int) -> Item:
    name, amount, dimensions = message.meter, message.amount, message.dimensions
    if not (dimensions or not 1 <= amount <= ids.AMOUNT_MAX) and ids.is_name(name):
        return Item(MeterName(name), amount, _NO_DIMENSIONS)
    path = f"items[{index}]"
    return Item(
        meter=_meter(name, f"{path}.meter"),
        amount=ids.amount(amount, f"{path}.amount"),
        dimensions=bounds.dimensions(dimensions, f"{path}.dimensions") if dimensions else {},
    )


def _meter(name: str, field: str) -> MeterName:
    if not name:
        raise InvalidField("is required", field=field)
    if not ids.is_name(name):
        raise InvalidField("is not a meter's name", field=field)
    return MeterName(name)


def operation_id_of(value: str) -> OperationId:
    """Return the caller's id, or one made here. Raises `InvalidField`."""
    return ids.operation_id(value) if value else _made_id()


def _made_id() -> OperationId:
    if not _made:
        # The system is asked for many at once, as each time costs as much as all the rest.
        digits = secrets.token_hex(MADE_ID_BYTES * MADE_TOGETHER)
        size = 2 * MADE_ID_BYTES
        _made.extend(digits[start : start + size] for start in range(0, len(digits), size))
    return OperationId(_made.pop())


def _usage_ids(message: usage_pb2.RecordUsageRequest) -> tuple[EventId, OperationId]:
    if message.event_id:
        event_id = ids.event_id(message.event_id)
        given = message.operation_id
        return event_id, ids.operation_id(given) if given else OperationId(event_id)
    operation_id = operation_id_of(message.operation_id)
    return event_id_of(operation_id, 0), operation_id


def _event_time_us(message: usage_pb2.RecordUsageRequest) -> int:
    if not message.HasField("event_time"):
        return 0
    time = message.event_time
    # The bounds are those of a protobuf Timestamp, which the decoder does not hold it to.
    if not (-62_135_596_800 <= time.seconds < 253_402_300_800 and 0 <= time.nanos < 10**9):
        raise InvalidField("is not a time from year 1 to 9999", field="event_time")
    # 0 means now further in; the epoch itself is as good as one microsecond after it.
    return time.seconds * 1_000_000 + time.nanos // 1000 or 1


class HasContext(Protocol):
    """A message that may have a context."""

    @property
    def context(self) -> event_pb2.EventContext:
        """The circumstances."""
        ...

    def HasField(self, field_name: Literal["context"], /) -> bool:  # noqa: N802  protobuf's name
        """Say whether it has."""
        ...


def context_of(message: HasContext) -> EventContext:
    """Return the message's circumstances. Raises `InvalidField`."""
    return _context(message.context) if message.HasField("context") else NO_CONTEXT


def _context(message: event_pb2.EventContext) -> EventContext:
    return EventContext(
        **{name: bounds.text(getattr(message, name), f"context.{name}") for name in _CONTEXT_FIELDS}
    )


def _metadata(message: usage_pb2.RecordUsageRequest) -> str:
    if not message.HasField("metadata"):
        return ""
    try:
        text = json_format.MessageToJson(message.metadata, indent=None, ensure_ascii=False)
    except (json_format.Error, ValueError, RecursionError) as error:
        raise InvalidField("cannot be written as JSON", field="metadata") from error
    if len(text.encode()) > METADATA_BYTES_MAX:
        raise InvalidField(f"must be at most {METADATA_BYTES_MAX} bytes as JSON", field="metadata")
    if _ESCAPED_NUL.search(text):
        raise InvalidField("must not contain NUL", field="metadata")
    if _depth(text) > METADATA_DEPTH_MAX:
        raise InvalidField(f"must be nested at most {METADATA_DEPTH_MAX} deep", field="metadata")
    return text


def _depth(text: str) -> int:
    """Return how deep a JSON text is nested."""
    depth = deepest = 0
    for mark in _NESTING.findall(text):
        if mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "]}":
            depth -= 1
    return deepest


def _durability(value: int) -> Durability:
    known = _DURABILITIES.get(value)
    if known is None:
        raise InvalidField("is not a known durability", field="min_durability")
    return known


def limit_status(reading: LimitReading) -> limit_pb2.LimitStatus:
    """Return a limit as it stands."""
    message = limit_pb2.LimitStatus(
        limit_id=reading.limit_id,
        state=STATES[reading.state],
        used=reading.used,
        limit=reading.limit,
        remaining=reading.remaining,
        meter=reading.meter,
        tenant_id=tenant_of(reading.account),
        scope=scope_of(reading.account),
        unlimited=reading.limit == UNLIMITED,
    )
    if reading.resets_at_us:
        message.resets_at.FromMicroseconds(reading.resets_at_us)
    return message
