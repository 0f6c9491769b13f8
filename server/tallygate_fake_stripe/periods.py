"""The periods of a subscription, counted from its anchor.

Guarantees: the n-th period begins n intervals after the anchor; a day that a month lacks is its
last one, and comes back in the next month that has it; all in UTC.
Refuses to know: what is billed in a period.
"""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import Final

INTERVALS: Final = ("day", "month", "week", "year")


def boundary(anchor_s: int, interval: str, count: int, number: int) -> int:
    """Return when the `number`-th period of `count` intervals each begins; it may be before 0."""
    anchor = datetime.fromtimestamp(anchor_s, UTC)
    steps = count * number
    match interval:
        case "day":
            moved = anchor + timedelta(days=steps)
        case "week":
            moved = anchor + timedelta(weeks=steps)
        case _:
            moved = _months_later(anchor, steps * (12 if interval == "year" else 1))
    return int(moved.timestamp())


def period_of(anchor_s: int, interval: str, count: int, at_s: int) -> tuple[int, int]:
    """Return the start and the end of the period that an instant lies in."""
    lengths = {"day": 86_400, "week": 604_800, "month": 2_678_400, "year": 31_622_400}
    number = (at_s - anchor_s) // (lengths[interval] * count)
    while boundary(anchor_s, interval, count, number + 1) <= at_s:
        number += 1
    while boundary(anchor_s, interval, count, number) > at_s:
        number -= 1
    start_s = boundary(anchor_s, interval, count, number)
    return start_s, boundary(anchor_s, interval, count, number + 1)


def _months_later(anchor: datetime, months: int) -> datetime:
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    last = monthrange(year, month + 1)[1]
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, last))
