"""Which billing period is meant: by a month, a day or an instant, in the tenant's calendar.

Guarantees: every period of a tenant has a name that finds it.
Refuses to know: whether the period is over.
"""

import re
from datetime import datetime
from typing import Final

from tallygate.domain.errors import InvalidField
from tallygate.domain.window import (
    Calendar,
    Period,
    Window,
    from_datetime,
    to_datetime,
    window_at,
    zone_of,
)

_MONTH: Final = re.compile(r"(\d{4})-(\d{2})")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


def period_at(of: Calendar, instant_us: int) -> Window:
    """Return the billing period that holds an instant."""
    return window_at(Period.BILLING_PERIOD, of, instant_us)


def period_named(text: str, of: Calendar, field: str = "period") -> Window:
    """Return the period that a text names: `2026-11` is the one that begins then.

    Of a day or an instant, it is the period that holds it, of a day at local midnight; an instant
    without an offset is the tenant's local time. Raises `InvalidField`.
    """
    return period_at(of, instant_named(text, of, field))


def instant_named(text: str, of: Calendar, field: str = "period") -> int:
    """Return an instant of the period that a text names. Raises `InvalidField`."""
    zone = zone_of(of.time_zone)
    month = _MONTH.fullmatch(text)
    try:
        if month:
            # A period begins in each month, so the one of its last instant begins in it.
            year, number = divmod(int(month[1]) * 12 + int(month[2]) - 1 + 1, 12)
            following = datetime(year, number + 1, 1, tzinfo=zone)
            if not 1 <= int(month[2]) <= 12:
                raise ValueError
            return from_datetime(following) - 1
        whole = f"{text}T00:00:00" if _DAY.fullmatch(text) else text
        moment = datetime.fromisoformat(whole)
    except (ValueError, OverflowError):
        message = "must be a month (2026-11), a day (2026-11-30) or an instant, as in ISO 8601"
        raise InvalidField(f"{message}, not {text!r}", field=field) from None
    return from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=zone))


def overlapping(invoiced: Window) -> InvalidField:
    """Return what a period is refused with that overlaps one with an invoice of its own.

    A calendar that changes leaves what has ended as it was; a period by the new one may reach back
    into it, and its usage would be billed twice.
    """
    start, end = (to_datetime(each).isoformat() for each in (invoiced.start_us, invoiced.end_us))
    return InvalidField(f"overlaps {start} to {end}, which has an invoice", field="period")
