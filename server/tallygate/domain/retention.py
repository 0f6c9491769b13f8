"""How long what is kept, and which months of events may be dropped.

Guarantees: pure; a month is never due before all of it is older than the policy says.
Refuses to know: where events are kept, and how they are dropped.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tallygate.domain.errors import InvalidField
from tallygate.domain.window import from_datetime, to_datetime

# Longer than any limit's window, which is 366 days, and any late event on top: what counters could
# be made anew of is never dropped.
EVENT_MONTHS_MIN: Final = 14
REASON_LENGTH_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Policy:
    """For how long events and messages are kept, 0 for ever. Keys and rollups are kept for ever."""

    event_months: int = 0
    message_days: int = 0


class Verdict(StrEnum):
    """What becomes of a month of events."""

    KEEP = "keep"
    ARCHIVE = "archive"
    DROP = "drop"
    HELD = "held"
    OPEN = "open"
    MIXED = "mixed"
    CHANGED = "changed"


VERDICTS: Final = {
    Verdict.KEEP: "younger than what is kept",
    Verdict.ARCHIVE: "due: to be archived first",
    Verdict.DROP: "due: its archive has it",
    Verdict.HELD: "kept by a legal hold",
    Verdict.OPEN: "kept: a billing period of it is not closed",
    Verdict.MIXED: "kept: its events are not in a partition of its own",
    Verdict.CHANGED: "due: to be archived again, as events came since",
}


@dataclass(frozen=True, slots=True)
class MonthFacts:
    """What is known of a month: its partition, its events, its newest archive, who keeps it.

    `events` are those of the partition, `elsewhere` those in the one for all other months;
    `archived` is how many the archive has, None without one.
    """

    month_us: int
    leaf: str
    events: int
    elsewhere: int
    archive_id: str
    file: str
    file_sha256: str
    archived: int | None
    holds: int
    unclosed: int


def due_before_us(now_us: int, event_months: int) -> int:
    """Return the start of the oldest month in UTC of which an instant is to be kept still."""
    now = to_datetime(now_us)
    index = now.year * 12 + now.month - 1 - event_months
    start = now.replace(
        year=index // 12,
        month=index % 12 + 1,
        day=1,
        hour=0,
        minute=0,
        second=0,
        microsecond=0,
    )
    return from_datetime(start)


def verdict(facts: MonthFacts, policy: Policy, now_us: int) -> Verdict:
    """Return what becomes of a month now."""
    if not policy.event_months or facts.month_us >= due_before_us(now_us, policy.event_months):
        return Verdict.KEEP
    if facts.holds:
        return Verdict.HELD
    if facts.unclosed:
        return Verdict.OPEN
    if not facts.leaf or facts.elsewhere:
        return Verdict.MIXED
    if facts.archived is None:
        return Verdict.ARCHIVE
    return Verdict.DROP if facts.archived == facts.events else Verdict.CHANGED


def reason_of(text: str, field: str) -> str:
    """Return `text` if it may stand as a reason. Raises `InvalidField` naming `field`."""
    if not text.strip() or len(text) > REASON_LENGTH_MAX or "\x00" in text:
        raise InvalidField(f"must say why, in 1 to {REASON_LENGTH_MAX} characters", field=field)
    return text
