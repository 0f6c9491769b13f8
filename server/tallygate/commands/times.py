"""Times as commands take them.

Guarantees: a time that cannot be read is said in a line, with exit code 1; one without an offset is
UTC.
Refuses to know: what they bound.
"""

from datetime import UTC, datetime

from tallygate.commands.output import fail
from tallygate.domain.errors import InvalidField
from tallygate.domain.window import from_datetime


def instant_us(text: str, option: str) -> int | None:
    """Return a date or a time as an instant, in UTC where it names no offset; None for none."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fault = "must be as 2026-11-21, 2026-11-21T14:00 or 2026-11-21T14:00+01:00"
        fail(InvalidField(fault, field=option))
    return from_datetime(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
