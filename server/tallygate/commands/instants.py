"""Dates and times as people type them.

Guarantees: what has no offset is UTC; what is no time is said with the option it stands in.
Refuses to know: what the times are for.
"""

from datetime import UTC, datetime

from tallygate.domain.errors import InvalidField
from tallygate.domain.window import from_datetime


def instant_us(text: str, option: str) -> int | None:
    """Return a date or time as microseconds since the epoch, None for an empty text.

    Raises `InvalidField` naming the option.
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidField(
            "must be as 2026-11-21, 2026-11-21T14:00 or 2026-11-21T14:00+01:00", field=option
        ) from None
    return from_datetime(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
