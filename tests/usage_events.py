"""Builders of events and entries: every field has a value, a test names those it is about."""

from collections.abc import Sequence
from typing import Final

from tallygate.domain.event import (
    BalanceBurn,
    EventContext,
    RejectedEvent,
    SequenceRange,
    StreamEntry,
    ThresholdCrossing,
    UsageEvent,
)
from tallygate.domain.ids import EventId, LimitId, MeterName, OperationId, SourceId, TenantId
from tallygate.domain.window import DAY_US

# 2026-11-20 10:00:00 UTC: on a minute and an hour, not on a day.
NOON_US: Final = 1_795_168_800_000_000
SOURCE: Final = SourceId("source-1")


def event(number: int = 1, **fields: object) -> UsageEvent:
    """Return an event whose id and sequence number are `number`, with other fields replaced."""
    values: dict[str, object] = {
        "event_id": EventId(f"event-{number}"),
        "tenant_id": TenantId("acme"),
        "meter": MeterName("requests"),
        "amount": 1,
        "event_time_us": NOON_US,
        "operation_id": OperationId(f"operation-{number}"),
        "context": EventContext(region="eu-1"),
        "dimensions": {"path": "/ü"},
        "received_at_us": NOON_US + 7,
        "source_id": SOURCE,
        "source_lane": 0,
        "source_seq": number,
        "counter_epoch": "e1",
    }
    return UsageEvent(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


def crossing(ratio_ppm: int = 800_000, **fields: object) -> ThresholdCrossing:
    """Return a crossing of that ratio of a limit of 100."""
    values: dict[str, object] = {
        "tenant_id": TenantId("acme"),
        "limit_id": LimitId("daily"),
        "meter": MeterName("requests"),
        "ratio_ppm": ratio_ppm,
        "threshold": ratio_ppm // 10_000,
        "used": 81,
        "limit": 100,
        "window_start_us": NOON_US,
        "window_end_us": NOON_US + DAY_US,
        "crossed_at_us": NOON_US + 5,
    }
    return ThresholdCrossing(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


def low(threshold: int = 100, **fields: object) -> ThresholdCrossing:
    """Return the fall of a balance to a low mark."""
    values = {
        "limit_id": LimitId("credits"),
        "threshold": threshold,
        "used": threshold - 1,
        "limit": 0,
        "window_start_us": 0,
        "window_end_us": 0,
    }
    return crossing(0, **{**values, **fields})


def burn(number: int = 0, **fields: object) -> BalanceBurn:
    """Return a burn of one unit of the first grant, at that place in the entry "1-1"."""
    values: dict[str, object] = {
        "tenant_id": TenantId("acme"),
        "limit_id": LimitId("credits"),
        "grant_seq": 1,
        "amount": 1,
        "source_id": SOURCE,
        "source_lane": 0,
        "entry_id": "1-1",
        "number": number,
        "burned_at_us": NOON_US + 7,
        "counter_epoch": "e1",
    }
    return BalanceBurn(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


def rejected(number: int = 1, **fields: object) -> RejectedEvent:
    """Return a rejected event whose sequence number is `number`."""
    values: dict[str, object] = {
        "tenant_id": "acme",
        "event_id": f"event-{number}",
        "reason": "EVENT_TIME_TOO_OLD",
        "detail": "refused when it was recorded",
        "payload": b"\x00\xff",
        "received_at_us": NOON_US,
        "source_id": SOURCE,
        "source_lane": 0,
        "source_seq": number,
    }
    return RejectedEvent(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


def span(first: int, last: int, lane: int = 0, source: SourceId = SOURCE) -> SequenceRange:
    """Return the numbers from `first` to `last` of a source's lane."""
    return SequenceRange(source, lane, first, last)


def entry(events: Sequence[UsageEvent], shard: int = 0) -> StreamEntry:
    """Return an entry with these events and their sequence numbers, not yet in a stream."""
    return StreamEntry(
        shard=shard,
        entry_id="",
        received_at_us=NOON_US,
        events=tuple(events),
        ranges=tuple(
            span(each.source_seq, each.source_seq, each.source_lane, each.source_id)
            for each in events
        ),
    )
