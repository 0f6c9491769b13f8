"""usage stream ─▶ [ dead_letter ] ─▶ ingest: what can never be stored, as something that can be.

If we die here, nothing has happened: the entry is still in the stream.

Guarantees: what is made here every store can hold, whatever the values were.
Refuses to know: when a part can never be stored.
"""

from typing import Final

from tallygate.domain.event import (
    UNSTORABLE,
    BalanceBurn,
    RejectedEvent,
    ThresholdCrossing,
    UsageEvent,
)
from tallygate.domain.ids import SourceId
from tallygate.ports import LedgerBatch

# The end of year 9999: later times are nonsense, and some stores cannot hold them.
INSTANT_MAX_US: Final = 253_402_300_799_999_999
# Of an oversized text, a dead letter keeps the beginning: its columns are indexed. What bytes there
# were stands in its payload.
LETTER_TEXT_MAX: Final = 256


def letter_of_event(event: UsageEvent, payload: bytes, detail: str) -> RejectedEvent:
    """Return an event that can never be stored as one that is kept."""
    return RejectedEvent(
        tenant_id=plain(event.tenant_id),
        event_id=plain(event.event_id),
        reason=UNSTORABLE,
        detail=plain(detail),
        payload=payload,
        received_at_us=instant(event.received_at_us),
        source_id=event.source_id,
        source_lane=event.source_lane,
        source_seq=event.source_seq,
    )


def letter_of_crossing(
    crossing: ThresholdCrossing, batch: LedgerBatch, detail: str
) -> RejectedEvent:
    """Return a crossing that can never be stored as what is kept of it."""
    source = batch.ranges[0] if batch.ranges else None
    return RejectedEvent(
        tenant_id=plain(crossing.tenant_id),
        event_id="",
        reason=UNSTORABLE,
        detail=plain(f"threshold crossing: {detail}"),
        payload=repr(crossing).encode(errors="backslashreplace"),
        received_at_us=instant(crossing.crossed_at_us),
        source_id=source.source_id if source else SourceId(""),
        source_lane=source.source_lane if source else 0,
        source_seq=0,
    )


def letter_of_burn(burn: BalanceBurn, detail: str) -> RejectedEvent:
    """Return a burn that can never be stored as what is kept of it."""
    return RejectedEvent(
        tenant_id=plain(burn.tenant_id),
        event_id="",
        reason=UNSTORABLE,
        detail=plain(f"burn of a balance: {detail}"),
        payload=repr(burn).encode(errors="backslashreplace"),
        received_at_us=instant(burn.burned_at_us),
        source_id=burn.source_id,
        source_lane=burn.source_lane,
        source_seq=0,
    )


def plain(value: str) -> str:
    """Return text that every store can hold: no NUL, no lone surrogate, not too long."""
    cut = value[:LETTER_TEXT_MAX]
    return cut.encode(errors="backslashreplace").decode().replace("\x00", "\\x00")


def instant(at_us: int) -> int:
    """Return a time that every store can hold, 0 for nonsense."""
    return at_us if 0 <= at_us <= INSTANT_MAX_US else 0
