"""Calendar windows, against instants worked out by hand from the zones' published rules."""

from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tallygate.domain.window import (
    DAY_US,
    HOUR_US,
    Calendar,
    Period,
    Window,
    fixed_length_us,
    from_datetime,
    to_datetime,
    window_at,
    zone_of,
)

ZONES = [
    "UTC",
    "America/Havana",
    "America/New_York",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Apia",
    "Pacific/Kiritimati",
]
CENTURY_US = 36_525 * DAY_US


def at(text: str) -> int:
    """Return an instant written in UTC as microseconds, without any zone's rules."""
    return from_datetime(datetime.fromisoformat(f"{text}+00:00"))


# Per case: what it is about, period, zone; then instant, start and end of its window, in UTC.
CALENDAR_CASES = [
    (
        "a second's last microsecond",
        Period.SECOND,
        "UTC",
        ("2026-05-01T10:20:30.999999", "2026-05-01T10:20:30", "2026-05-01T10:20:31"),
    ),
    (
        "a minute's first instant",
        Period.MINUTE,
        "UTC",
        ("2026-05-01T10:20:00", "2026-05-01T10:20:00", "2026-05-01T10:21:00"),
    ),
    (
        "an hour in a half-hour zone is UTC's",
        Period.HOUR,
        "Asia/Kolkata",
        ("2026-05-01T10:45:00", "2026-05-01T10:00:00", "2026-05-01T11:00:00"),
    ),
    (
        "a minute before the epoch",
        Period.MINUTE,
        "UTC",
        ("1969-12-31T23:59:59.999999", "1969-12-31T23:59:00", "1970-01-01T00:00:00"),
    ),
    (
        "a plain day",
        Period.DAY,
        "UTC",
        ("2026-05-01T23:59:59.999999", "2026-05-01T00:00:00", "2026-05-02T00:00:00"),
    ),
    (
        "a day in a half-hour zone",
        Period.DAY,
        "Asia/Kolkata",
        ("2026-05-01T18:30:00", "2026-05-01T18:30:00", "2026-05-02T18:30:00"),
    ),
    (
        "Berlin's day of 23 hours",
        Period.DAY,
        "Europe/Berlin",
        ("2026-03-29T12:00:00", "2026-03-28T23:00:00", "2026-03-29T22:00:00"),
    ),
    (
        "Berlin's day of 25 hours",
        Period.DAY,
        "Europe/Berlin",
        ("2026-10-25T22:30:00", "2026-10-24T22:00:00", "2026-10-25T23:00:00"),
    ),
    (
        "New York's day of 23 hours",
        Period.DAY,
        "America/New_York",
        ("2026-03-08T05:00:00", "2026-03-08T05:00:00", "2026-03-09T04:00:00"),
    ),
    (
        "Havana skips midnight",
        Period.DAY,
        "America/Havana",
        ("2026-03-08T05:00:00", "2026-03-08T05:00:00", "2026-03-09T04:00:00"),
    ),
    (
        "Havana, just before the skipped midnight",
        Period.DAY,
        "America/Havana",
        ("2026-03-08T04:59:59.999999", "2026-03-07T05:00:00", "2026-03-08T05:00:00"),
    ),
    (
        "Havana has midnight twice, the first begins",
        Period.DAY,
        "America/Havana",
        ("2026-11-01T04:30:00", "2026-11-01T04:00:00", "2026-11-02T05:00:00"),
    ),
    (
        "Havana, after the second midnight",
        Period.DAY,
        "America/Havana",
        ("2026-11-01T05:30:00", "2026-11-01T04:00:00", "2026-11-02T05:00:00"),
    ),
    (
        "Beirut skips midnight",
        Period.DAY,
        "Asia/Beirut",
        ("2026-03-28T22:00:00", "2026-03-28T22:00:00", "2026-03-29T21:00:00"),
    ),
    (
        "Beirut has the hour before midnight twice",
        Period.DAY,
        "Asia/Beirut",
        ("2026-10-24T21:30:00", "2026-10-23T21:00:00", "2026-10-24T22:00:00"),
    ),
    (
        "St John's clock ran back over midnight",
        Period.DAY,
        "America/St_Johns",
        ("2010-11-07T02:45:00", "2010-11-07T02:30:00", "2010-11-08T03:30:00"),
    ),
    (
        "Samoa's last day before the skipped one",
        Period.DAY,
        "Pacific/Apia",
        ("2011-12-30T09:59:59.999999", "2011-12-29T10:00:00", "2011-12-30T10:00:00"),
    ),
    (
        "Samoa's first day after the skipped one",
        Period.DAY,
        "Pacific/Apia",
        ("2011-12-30T10:00:00", "2011-12-30T10:00:00", "2011-12-31T10:00:00"),
    ),
    (
        "an ISO week over New Year",
        Period.WEEK,
        "UTC",
        ("2026-01-01T00:00:00", "2025-12-29T00:00:00", "2026-01-05T00:00:00"),
    ),
    (
        "an ISO week from its Monday",
        Period.WEEK,
        "UTC",
        ("2026-11-16T00:00:00", "2026-11-16T00:00:00", "2026-11-23T00:00:00"),
    ),
    (
        "an ISO week to its Sunday",
        Period.WEEK,
        "UTC",
        ("2026-11-15T23:59:59.999999", "2026-11-09T00:00:00", "2026-11-16T00:00:00"),
    ),
    (
        "a week that loses an hour",
        Period.WEEK,
        "Europe/Berlin",
        ("2026-03-29T20:00:00", "2026-03-22T23:00:00", "2026-03-29T22:00:00"),
    ),
    (
        "Samoa's week of six days",
        Period.WEEK,
        "Pacific/Apia",
        ("2011-12-30T12:00:00", "2011-12-26T10:00:00", "2012-01-01T10:00:00"),
    ),
    (
        "a month's end",
        Period.MONTH,
        "UTC",
        ("2026-04-30T23:59:59.999999", "2026-04-01T00:00:00", "2026-05-01T00:00:00"),
    ),
    (
        "a year's end",
        Period.MONTH,
        "UTC",
        ("2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
    ),
    (
        "a leap February",
        Period.MONTH,
        "UTC",
        ("2028-02-29T12:00:00", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
    ),
    (
        "a century's February without leap day",
        Period.MONTH,
        "UTC",
        ("2100-02-28T23:00:00", "2100-02-01T00:00:00", "2100-03-01T00:00:00"),
    ),
    (
        "New York's November begins in summer time",
        Period.MONTH,
        "America/New_York",
        ("2026-11-15T00:00:00", "2026-11-01T04:00:00", "2026-12-01T05:00:00"),
    ),
]

# Per case: what it is about, zone, anchor; then instant, start and end of its period, in UTC.
BILLING_CASES = [
    (
        "the anchor itself",
        "UTC",
        "2026-01-15T10:30:00",
        ("2026-01-15T10:30:00", "2026-01-15T10:30:00", "2026-02-15T10:30:00"),
    ),
    (
        "just before an anniversary",
        "UTC",
        "2026-01-15T10:30:00",
        ("2026-06-15T10:29:59.999999", "2026-05-15T10:30:00", "2026-06-15T10:30:00"),
    ),
    (
        "before the anchor",
        "UTC",
        "2026-01-15T00:00:00",
        ("2025-12-20T00:00:00", "2025-12-15T00:00:00", "2026-01-15T00:00:00"),
    ),
    (
        "an anchor of the 31st in February",
        "UTC",
        "2024-01-31T00:00:00",
        ("2026-02-27T00:00:00", "2026-01-31T00:00:00", "2026-02-28T00:00:00"),
    ),
    (
        "an anchor of the 31st after February",
        "UTC",
        "2024-01-31T00:00:00",
        ("2026-02-28T00:00:00", "2026-02-28T00:00:00", "2026-03-31T00:00:00"),
    ),
    (
        "an anchor of the 31st in April",
        "UTC",
        "2024-01-31T00:00:00",
        ("2026-04-30T00:00:00", "2026-04-30T00:00:00", "2026-05-31T00:00:00"),
    ),
    (
        "an anchor of the 31st in a leap year",
        "UTC",
        "2024-01-31T00:00:00",
        ("2028-02-29T00:00:00", "2028-02-29T00:00:00", "2028-03-31T00:00:00"),
    ),
    (
        "an anchor of the 30th in February",
        "UTC",
        "2025-11-30T12:00:00",
        ("2026-02-28T12:00:00", "2026-02-28T12:00:00", "2026-03-30T12:00:00"),
    ),
    (
        "an anchor of the 29th in February",
        "UTC",
        "2025-12-29T00:00:00",
        ("2026-03-01T00:00:00", "2026-02-28T00:00:00", "2026-03-29T00:00:00"),
    ),
    (
        "an anchor of the 29th in a leap year",
        "UTC",
        "2025-12-29T00:00:00",
        ("2028-02-28T23:59:59", "2028-01-29T00:00:00", "2028-02-29T00:00:00"),
    ),
    (
        "an anchor on a leap day, a year on",
        "UTC",
        "2024-02-29T00:00:00",
        ("2025-03-01T00:00:00", "2025-02-28T00:00:00", "2025-03-29T00:00:00"),
    ),
    (
        "an anchor on a leap day, four years on",
        "UTC",
        "2024-02-29T00:00:00",
        ("2028-02-29T00:00:00", "2028-02-29T00:00:00", "2028-03-29T00:00:00"),
    ),
    (
        "the local time of day stays over summer time",
        "America/New_York",
        "2026-01-15T10:30:00",
        ("2026-03-20T00:00:00", "2026-03-15T09:30:00", "2026-04-15T09:30:00"),
    ),
    (
        "the anchor's day is the zone's, not UTC's",
        "Asia/Tokyo",
        "2026-01-30T15:00:00",
        ("2026-02-28T00:00:00", "2026-02-27T15:00:00", "2026-03-30T15:00:00"),
    ),
    (
        "an anniversary in a skipped hour is shifted",
        "Europe/Berlin",
        "2026-01-29T01:30:00",
        ("2026-03-29T01:30:00", "2026-03-29T01:30:00", "2026-04-29T00:30:00"),
    ),
    (
        "an anniversary in an hour that comes twice is its first",
        "Europe/Berlin",
        "2026-09-25T00:30:00",
        ("2026-10-25T00:45:00", "2026-10-25T00:30:00", "2026-11-25T01:30:00"),
    ),
    (
        "an anniversary in a midnight that is skipped",
        "America/Havana",
        "2026-01-08T05:00:00",
        ("2026-03-08T05:00:00", "2026-03-08T05:00:00", "2026-04-08T04:00:00"),
    ),
]


@pytest.mark.parametrize(
    ("period", "zone", "instants"),
    [pytest.param(*case[1:], id=case[0]) for case in CALENDAR_CASES],
)
def test_a_calendar_window_is_the_one_worked_out_by_hand(
    period: Period, zone: str, instants: tuple[str, str, str]
) -> None:
    """Days, weeks and months begin at local midnight, whatever the clocks do there."""
    instant, start, end = map(at, instants)
    assert window_at(period, Calendar(zone), instant) == Window(start, end)


@pytest.mark.parametrize(
    ("zone", "anchor", "instants"),
    [pytest.param(*case[1:], id=case[0]) for case in BILLING_CASES],
)
def test_a_billing_period_is_the_one_worked_out_by_hand(
    zone: str, anchor: str, instants: tuple[str, str, str]
) -> None:
    """Billing periods follow the anchor's day and local time, and months that are shorter."""
    instant, start, end = map(at, instants)
    found = window_at(Period.BILLING_PERIOD, Calendar(zone, at(anchor)), instant)
    assert found == Window(start, end)


@given(
    period=st.sampled_from(list(Period)),
    zone=st.sampled_from(ZONES),
    anchor_us=st.integers(0, CENTURY_US),
    fiscal_month=st.integers(1, 12),
    instant_us=st.integers(-CENTURY_US // 2, 2 * CENTURY_US),
)
@example(Period.DAY, "Pacific/Apia", 0, 1, at("2011-12-30T10:00:00"))
@example(Period.DAY, "America/St_Johns", 0, 1, at("2010-11-07T02:45:00"))
@example(
    Period.BILLING_PERIOD, "Pacific/Apia", at("2011-10-30T20:00:00"), 1, at("2011-12-30T10:00:00")
)
@example(
    Period.BILLING_PERIOD, "Europe/Berlin", at("2025-10-26T01:30:00"), 1, at("2025-10-26T00:45:00")
)
def test_windows_hold_their_instant_and_leave_no_gap(
    period: Period, zone: str, anchor_us: int, fiscal_month: int, instant_us: int
) -> None:
    """The windows of a calendar partition time: each holds its instant, neighbours touch."""
    of = Calendar(zone, anchor_us, fiscal_month)
    found = window_at(period, of, instant_us)
    assert found.holds(instant_us)
    assert window_at(period, of, found.start_us) == found
    assert window_at(period, of, found.end_us - 1) == found
    assert window_at(period, of, found.end_us).start_us == found.end_us
    assert window_at(period, of, found.start_us - 1).end_us == found.start_us


@pytest.mark.parametrize("period", list(Period))
def test_windows_with_a_length_have_it(period: Period) -> None:
    """A period is of fixed length, or its windows differ in length."""
    length = fixed_length_us(period)
    found = window_at(period, Calendar("Europe/Berlin"), at("2026-03-29T12:00:00"))
    assert (length or 0) <= HOUR_US
    assert length is None or found.end_us - found.start_us == length


@given(st.integers(-CENTURY_US // 2, 2 * CENTURY_US))
def test_an_instant_survives_the_way_through_a_datetime(instant_us: int) -> None:
    """No microsecond is lost to a float."""
    assert from_datetime(to_datetime(instant_us)) == instant_us


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd"])
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    """A name outside the IANA database raises what the module says, whatever it looks like."""
    with pytest.raises((ValueError, KeyError)):
        zone_of(name)
