"""The messages that a ledger transaction writes to the outbox, built once.

Guarantees: a message and its id never change, so that every attempt at delivery sends the same; it
is written only where an active destination wants its type.
Refuses to know: how messages are sent.

Each payload is `{"type", "timestamp", "data"}`. Of `usage.batch`, `data.events` lists the events;
of `limit.threshold_crossed` and `balance.low`, `data` is the crossing, of `credit.granted` the
grant. Amounts are integers, times RFC 3339 in UTC.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tallygate.adapters.postgres.pool import Lent
from tallygate.adapters.postgres.queries import query
from tallygate.domain.catalog import PPM
from tallygate.domain.credit import NEVER_US, CreditGrant
from tallygate.domain.event import NO_CONTEXT, ThresholdCrossing, UsageEvent
from tallygate.domain.trace import packed
from tallygate.domain.window import to_datetime

USAGE_BATCH: Final = "usage.batch"
THRESHOLD_CROSSED: Final = "limit.threshold_crossed"
BALANCE_LOW: Final = "balance.low"
CREDIT_GRANTED: Final = "credit.granted"
# What receivers take without complaint: most webhook endpoints stop at 1 MiB or less.
EVENTS_MAX: Final = 500
PAYLOAD_BYTES_MAX: Final = 256 * 1024
_JSON: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
# What stands around the events of a batch is shorter than this.
_FRAME_BYTES: Final = 128


@dataclass(frozen=True, slots=True)
class Message:
    """One row of the outbox."""

    aggregatetype: str
    aggregateid: str
    type: str
    payload: bytes
    # Places in traces, as `trace.packed` has them: of the calls that it tells of.
    trace: bytes = b""


async def write(
    connection: Lent,
    events: Sequence[UsageEvent],
    crossings: Sequence[ThresholdCrossing],
) -> int:
    """Write the messages about events and crossings; return how many were wanted."""
    if not events and not crossings:
        return 0
    wanted = await _wanted(connection)
    found = list(_usage_batches(events)) if USAGE_BATCH in wanted else []
    told = (_low(each) if each.of_balance else _crossing(each) for each in crossings)
    found += [message for message in told if message.type in wanted]
    await _insert(connection, found)
    return len(found)


async def write_grant(connection: Lent, grant: CreditGrant) -> None:
    """Write the message about a grant that was made, where it is wanted."""
    await tell(connection, [_grant(grant)])


async def tell(connection: Lent, found: Sequence[Message]) -> None:
    """Write those of these messages that are wanted."""
    if found:
        wanted = await _wanted(connection)
        await _insert(connection, [message for message in found if message.type in wanted])


async def write_wanted(connection: Lent, found: Sequence[Message]) -> int:
    """Write those of the messages that some destination wants; return how many."""
    if not found:
        return 0
    wanted = await _wanted(connection)
    told = [message for message in found if message.type in wanted]
    await _insert(connection, told)
    return len(told)


async def _wanted(connection: Lent) -> set[str]:
    rows = await connection.fetch(query("outbox_subscriptions"))
    return {kind for row in rows for kind in row["types"]}


async def _insert(connection: Lent, found: Sequence[Message]) -> None:
    if found:
        await connection.execute(
            query("outbox_insert"),
            [uuid.uuid4() for _ in found],
            [message.aggregatetype for message in found],
            [message.aggregateid for message in found],
            [message.type for message in found],
            [message.payload for message in found],
            [message.trace or None for message in found],
        )


def as_json(value: object) -> str:
    """Return a value as compact JSON."""
    return _JSON.encode(value)


def _usage_batches(events: Sequence[UsageEvent]) -> Iterator[Message]:
    parts: list[str] = []
    traces: list[bytes] = []
    size = _FRAME_BYTES
    for event in events:
        part = as_json(_event(event))
        length = len(part.encode()) + 1  # and a comma
        if parts and (len(parts) == EVENTS_MAX or size + length > PAYLOAD_BYTES_MAX):
            yield _usage_batch(parts, traces, events[0].received_at_us)
            parts, traces, size = [], [], _FRAME_BYTES
        parts.append(part)
        if event.trace:
            traces.append(event.trace)
        size += length
    if parts:
        yield _usage_batch(parts, traces, events[0].received_at_us)


def _usage_batch(parts: list[str], traces: list[bytes], at_us: int) -> Message:
    head = f'{{"type":"{USAGE_BATCH}","timestamp":"{shown_time(at_us)}","data":{{"events":['
    payload = f"{head}{','.join(parts)}]}}}}".encode()
    return Message("usage", "batch", USAGE_BATCH, payload, packed(traces))


def _event(event: UsageEvent) -> dict[str, object]:
    shown: dict[str, object] = {
        "event_id": event.event_id,
        "tenant_id": event.tenant_id,
        "meter": event.meter,
        "amount": event.amount,
        "event_time": shown_time(event.event_time_us),
        "received_at": shown_time(event.received_at_us),
        "operation_id": event.operation_id,
        "source_id": event.source_id,
        "source_lane": event.source_lane,
        "source_seq": event.source_seq,
    }
    context = {}
    if event.context is not NO_CONTEXT:
        names = event.context.__dataclass_fields__
        context = {name: value for name in names if (value := getattr(event.context, name))}
    if context:
        shown["context"] = context
    if event.dimensions:
        shown["dimensions"] = event.dimensions
    if event.metadata_json:
        shown["metadata"] = json.loads(event.metadata_json)
    if event.refund_of:
        shown["refund_of"] = event.refund_of
    if event.reservation_id:
        shown["reservation_id"] = event.reservation_id
    return shown


def _crossing(crossing: ThresholdCrossing) -> Message:
    ratio = crossing.ratio_ppm / PPM
    scope = {"scope": crossing.scope} if crossing.scope else {}
    payload = {
        "type": THRESHOLD_CROSSED,
        "timestamp": shown_time(crossing.crossed_at_us),
        "data": {
            "tenant_id": crossing.tenant_id,
            "limit_id": crossing.limit_id,
            **scope,
            "meter": crossing.meter,
            "ratio": f"{ratio:.6f}".rstrip("0").rstrip("."),
            "threshold": crossing.threshold,
            "used": crossing.used,
            "limit": crossing.limit,
            "window_start": shown_time(crossing.window_start_us),
            "window_end": shown_time(crossing.window_end_us),
        },
    }
    payload_bytes = as_json(payload).encode()
    return Message("tenant", crossing.tenant_id, THRESHOLD_CROSSED, payload_bytes, crossing.trace)


def _low(crossing: ThresholdCrossing) -> Message:
    payload = {
        "type": BALANCE_LOW,
        "timestamp": shown_time(crossing.crossed_at_us),
        "data": {
            "tenant_id": crossing.tenant_id,
            "limit_id": crossing.limit_id,
            "meter": crossing.meter,
            "threshold": crossing.threshold,
            "remaining": crossing.used,
        },
    }
    payload_bytes = as_json(payload).encode()
    return Message("tenant", crossing.tenant_id, BALANCE_LOW, payload_bytes, crossing.trace)


def _grant(grant: CreditGrant) -> Message:
    shown: dict[str, object] = {
        "tenant_id": grant.tenant_id,
        "limit_id": grant.limit_id,
        "grant_id": grant.grant_id,
        "amount": grant.amount,
        "priority": grant.priority,
        "starts_at": shown_time(grant.starts_us),
    }
    if grant.expires_us != NEVER_US:
        shown["expires_at"] = shown_time(grant.expires_us)
    if grant.reason:
        shown["reason"] = grant.reason
    payload = {"type": CREDIT_GRANTED, "timestamp": shown_time(grant.created_at_us), "data": shown}
    return Message("tenant", grant.tenant_id, CREDIT_GRANTED, as_json(payload).encode())


# Events of one entry were received at one instant, and most of them are of that instant.
@lru_cache(maxsize=4_096)
def shown_time(instant_us: int) -> str:
    """Return an instant as RFC 3339 in UTC."""
    return to_datetime(instant_us).isoformat().replace("+00:00", "Z")
