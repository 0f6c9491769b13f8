"""Events as rows of `usage_event`, in the binary form that COPY takes.

Guarantees: every field arrives exactly; what a row cannot hold is refused before anything is sent.
Refuses to know: connections.

Rows are copied, not inserted: that writes page by page, in the table as in the write-ahead log, and
needs no array per column. They are put together here, as the driver's own encoder wants a
`datetime` per time. What many events of a batch have alike is put together once.
https://www.postgresql.org/docs/current/sql-copy.html has the format.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Final

from tallygate.adapters.postgres.messages import as_json
from tallygate.domain.event import NO_CONTEXT, EventContext, UsageEvent
from tallygate.ports import UnstorableBatch

# What alike events share comes first and last, so that it is two pieces.
COLUMNS: Final = (
    *("tenant_id", "meter", "source_id", "counter_epoch", "source_lane", "schema_version"),
    *("amount", "event_time", "received_at", "source_seq", "event_id", "operation_id"),
    *("subject_id", "resource_id", "session_id", "region", "sku", "correlation_id", "sdk"),
    *("dimensions", "metadata", "refund_of", "reservation_id"),
)

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
# Its version stands before the text of a jsonb.
_JSONB: Final = b"\x01"
# Postgres counts microseconds from the year 2000.
_ORIGIN_US: Final = 946_684_800_000_000

_length: Final = struct.Struct(">i").pack
_count: Final = struct.Struct(">h").pack
_small: Final = struct.Struct(">iiii").pack
_numbers: Final = struct.Struct(">iqiqiqiq").pack


def encoded(events: Iterable[UsageEvent]) -> bytes:
    """Return the rows of events, in the order of `COLUMNS`. Raises `UnstorableBatch`."""
    try:
        return _encoded(events)
    except (UnicodeError, struct.error) as error:
        raise UnstorableBatch(type(error).__name__) from None


def _encoded(events: Iterable[UsageEvent]) -> bytes:
    heads: dict[tuple[object, ...], bytes] = {}
    tails: dict[tuple[tuple[str, str], ...], bytes] = {}
    parts = [_HEADER]
    add: Callable[[bytes], None] = parts.append
    for event in events:
        alike = (
            event.tenant_id,
            event.meter,
            event.source_id,
            event.counter_epoch,
            event.source_lane,
            event.schema_version,
        )
        head = heads.get(alike)
        if head is None:
            head = heads[alike] = _head(event)
        add(head)
        add(
            _numbers(
                *(8, event.amount),
                *(8, event.event_time_us - _ORIGIN_US),
                *(8, event.received_at_us - _ORIGIN_US),
                *(8, event.source_seq),
            )
        )
        event_id = event.event_id.encode()
        operation_id = event.operation_id.encode()
        add(_length(len(event_id)))
        add(event_id)
        add(_length(len(operation_id)))
        add(operation_id)
        if (
            event.metadata_json
            or event.refund_of
            or event.reservation_id
            or event.context is not NO_CONTEXT
        ):
            add(_tail(event))
            continue
        shown = tuple(event.dimensions.items())
        tail = tails.get(shown)
        if tail is None:
            tail = tails[shown] = _tail(event)
        add(tail)
    add(_TRAILER)
    return b"".join(parts)


def _head(event: UsageEvent) -> bytes:
    """Return a row up to its numbers."""
    names = (event.tenant_id, event.meter, event.source_id, event.counter_epoch)
    numbers = _small(4, event.source_lane, 4, event.schema_version)
    return _count(len(COLUMNS)) + b"".join(map(_text, names)) + numbers


def _tail(event: UsageEvent) -> bytes:
    """Return a row from its context on."""
    context = event.context
    metadata = _json(event.metadata_json) if event.metadata_json else _NULL
    return b"".join(
        (
            *(_text(getattr(context, name)) for name in EventContext.__dataclass_fields__),
            _json(as_json(event.dimensions) if event.dimensions else "{}"),
            metadata,
            _text(event.refund_of),
            _text(event.reservation_id),
        )
    )


def _text(value: str) -> bytes:
    content = value.encode()
    return _length(len(content)) + content


def _json(value: str) -> bytes:
    content = _JSONB + value.encode()
    return _length(len(content)) + content
