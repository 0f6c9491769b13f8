"""Events that differ in their ids only, as bytes: what nearly every charge records.

Guarantees: the bytes are those that `ProtobufEventEncoder.encode` makes of the same event.
Refuses to know: what is done with them.
"""

from collections.abc import Callable

from tallygate.domain.event import SCHEMA_VERSION
from tallygate.domain.ids import EventId, MeterName, OperationId, TenantId
from tallygate.domain.varint import number, text, varint


def one_event(
    tenant_id: TenantId, meter: MeterName, amount: int
) -> Callable[[EventId, OperationId], bytes]:
    """Return what makes a batch of one event of its ids."""
    middle = text(b"\x12", tenant_id) + text(b"\x1a", meter) + number(b"\x20", amount) + b"\x52"
    tail = number(b"\x58", SCHEMA_VERSION)
    fixed = len(middle) + len(tail)

    def encoded(event_id: EventId, operation_id: OperationId) -> bytes:
        # Both are printable ASCII, and never empty.
        event, operation = event_id.encode(), operation_id.encode()
        event_size, operation_size = varint(len(event)), varint(len(operation))
        size = 1 + len(event_size) + len(event) + len(operation_size) + len(operation) + fixed
        return b"".join(
            (
                b"\x0a",
                varint(size),
                b"\x0a",
                event_size,
                event,
                middle,
                operation_size,
                operation,
                tail,
            )
        )

    return encoded
