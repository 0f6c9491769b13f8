"""Calendar windows: where the second, day, week, month or billing period of an instant ends.

Guarantees: the windows of one calendar and period partition all time; a window contains the
instant it was asked for, also across DST changes and month ends.
Refuses to know: what time it is.

Instants are microseconds since the Unix epoch. Seconds, minutes and hours are those of UTC; days,
weeks (ISO, from Monday) and months begin at local midnight; a billing period begins on the anchor's
day of the month (the month's last day where it is shorter) at the anchor's local time, unless the
tenant's `Billing` says otherwise.
"""

import calendar
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final, assert_never
from zoneinfo import ZoneInfo

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
# Later than every event that is taken: 1 January 2200, where a period that has no end ends.
NO_END_US: Final = 7_258_118_400 * SECOND_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Period(StrEnum):
    """The length of a window, or of a rate's period."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"
    BILLING_PERIOD = "billing_period"


_MONTHS: Final = {Period.MONTH: 1, Period.QUARTER: 3, Period.YEAR: 12}
"""The lengths of windows that begin with a month."""


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open stretch of time, `start_us <= instant < end_us`."""

    start_us: int
    end_us: int

    def holds(self, instant_us: int) -> bool:
        """Say whether the instant lies in the window."""
        return self.start_us <= instant_us < self.end_us


class BillingKind(StrEnum):
    """How billing periods follow each other."""

    MONTH = "month"
    ANNIVERSARY = "anniversary"
    EVERY = "every"
    STARTS = "starts"


@dataclass(frozen=True, slots=True)
class Billing:
    """How a tenant's billing periods follow each other, and for how long each is waited for.

    `every_us` is for `EVERY`, counted from the anchor: whole days are days of the tenant's zone, at
    the anchor's local time. `starts_us`, rising, are for `STARTS`: the last one has no end until
    there is another. `grace_us` 0 is what the installation waits.
    """

    kind: BillingKind = BillingKind.ANNIVERSARY
    every_us: int = 0
    starts_us: tuple[int, ...] = ()
    grace_us: int = 0


@dataclass(frozen=True, slots=True)
class Calendar:
    """A tenant's zone, the instant from which its billing periods count, its fiscal year's month.

    Quarters and years begin with the first day of `fiscal_month`, 1 to 12. Without `billing`,
    periods are those of the anchor's anniversaries.
    """

    time_zone: str = "UTC"
    anchor_us: int = 0
    fiscal_month: int = 1
    billing: Billing | None = None


def fixed_length_us(period: Period) -> int | None:
    """Return the length of a period whose windows are all alike, None for the others."""
    match period:
        case Period.SECOND:
            return SECOND_US
        case Period.MINUTE:
            return MINUTE_US
        case Period.HOUR:
            return HOUR_US
        case (
            Period.DAY
            | Period.WEEK
            | Period.MONTH
            | Period.QUARTER
            | Period.YEAR
            | Period.BILLING_PERIOD
        ):
            return None
        case _:
            assert_never(period)


def window_at(period: Period, of: Calendar, instant_us: int) -> Window:
    """Return the window of `period` in the calendar `of` that holds `instant_us`."""
    length = fixed_length_us(period)
    if length is not None:
        start = instant_us - instant_us % length
        return Window(start, start + length)
    billing = of.billing if period is Period.BILLING_PERIOD else None
    if billing is not None:
        if billing.kind is BillingKind.STARTS:
            return _between(billing.starts_us, instant_us)
        if billing.kind is BillingKind.EVERY and billing.every_us % DAY_US:
            start = instant_us - (instant_us - of.anchor_us) % billing.every_us
            return Window(start, start + billing.every_us)
        if billing.kind is BillingKind.MONTH:
            period = Period.MONTH
    zone = zone_of(of.time_zone)
    local = to_datetime(instant_us).astimezone(zone)
    index = _index_of(period, of, local)
    # Local time can run back over a boundary; the neighbours of the guess are then right.
    while instant_us < _boundary(period, of, index):
        index -= 1
    while instant_us >= _boundary(period, of, index + 1):
        index += 1
    return Window(_boundary(period, of, index), _boundary(period, of, index + 1))


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """Return the IANA zone of that name.

    Raises `zoneinfo.ZoneInfoNotFoundError` or `ValueError` for a name that is none.
    """
    return ZoneInfo(name)


def to_datetime(instant_us: int) -> datetime:
    """Return the instant as an aware datetime in UTC, exact to the microsecond."""
    return _EPOCH + timedelta(microseconds=instant_us)


def from_datetime(moment: datetime) -> int:
    """Return an aware datetime as microseconds since the epoch, exact."""
    return (moment.astimezone(UTC) - _EPOCH) // _MICROSECOND


def _index_of(period: Period, of: Calendar, local: datetime) -> int:
    """Return a number that counts the period's windows, right to within one."""
    if period is Period.DAY:
        return local.toordinal()
    if period is Period.WEEK:
        return (local.toordinal() - 1) // 7
    months = _MONTHS.get(period)
    if months is not None:
        return (local.year * 12 + local.month - of.fiscal_month) // months
    anchor = to_datetime(of.anchor_us).astimezone(local.tzinfo)
    days = _days(of)
    if days:
        return (local.toordinal() - anchor.toordinal()) // days
    return (local.year - anchor.year) * 12 + local.month - anchor.month


def _boundary(period: Period, of: Calendar, index: int) -> int:
    """Return the first instant of the window of that index."""
    zone = zone_of(of.time_zone)
    if period is Period.DAY:
        start = datetime.fromordinal(index)
    elif period is Period.WEEK:
        start = datetime.fromordinal(index * 7 + 1)
    elif period in _MONTHS:
        month = index * _MONTHS[period] + of.fiscal_month - 1
        start = datetime(month // 12, month % 12 + 1, 1)  # noqa: DTZ001  zoned below
    else:
        return _anniversary(of, index)
    return from_datetime(start.replace(tzinfo=zone))


def _between(starts_us: tuple[int, ...], instant_us: int) -> Window:
    """Return the stretch between two starts, from 1970 before the first, without end after all."""
    place = bisect_right(starts_us, instant_us)
    start_us = starts_us[place - 1] if place else min(0, instant_us)
    return Window(start_us, starts_us[place] if place < len(starts_us) else NO_END_US)


def _days(of: Calendar) -> int:
    """Return of how many days billing periods are, 0 where they are months."""
    if of.billing is None or of.billing.kind is not BillingKind.EVERY:
        return 0
    return of.billing.every_us // DAY_US


def _anniversary(of: Calendar, index: int) -> int:
    """Return the start of the billing period of that index, in months or in the length's days."""
    anchor = to_datetime(of.anchor_us).astimezone(zone_of(of.time_zone))
    days = _days(of)
    if days:
        # Moving a local time by days keeps what the clock shows.
        return from_datetime((anchor + timedelta(days=index * days)).replace(fold=0))
    return _months_on(anchor, index)


def _months_on(anchor: datetime, months: int) -> int:
    month = anchor.year * 12 + anchor.month - 1 + months
    year, month_index = divmod(month, 12)
    last_day = calendar.monthrange(year, month_index + 1)[1]
    day = min(anchor.day, last_day)
    # fold=0: of a time that comes twice, the first; of one that is skipped, the shifted one.
    return from_datetime(anchor.replace(year=year, month=month_index + 1, day=day, fold=0))
