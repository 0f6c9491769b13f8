"""Windows in odd zones, at month ends, in leap years: literal instants, worked out by hand.

Guarantees: every instant here was written down from the zones' published rules, in UTC, and not
by any code. Refuses to know how windows are found.
"""

from datetime import datetime

import pytest

from tallygate.domain.window import (
    DAY_US,
    HOUR_US,
    NO_END_US,
    Billing,
    BillingKind,
    Calendar,
    Period,
    Window,
    from_datetime,
    window_at,
)


def at(text: str) -> int:
    """Return an instant written in UTC as microseconds, without any zone's rules."""
    return from_datetime(datetime.fromisoformat(f"{text}+00:00"))


DAY, WEEK, MONTH = Period.DAY, Period.WEEK, Period.MONTH
QUARTER, YEAR = Period.QUARTER, Period.YEAR

# Per case: what it is about, zone, period, start and end of one window, in UTC.
ZONED = [
    # -5, in summer -4. 9 March 2025: 0:00 becomes 1:00. 2 November 2025: 1:00 becomes 0:00.
    ("a day without midnight", "America/Havana", DAY, "2025-03-09T05:00", "2025-03-10T04:00"),
    ("a day with two midnights", "America/Havana", DAY, "2025-11-02T04:00", "2025-11-03T05:00"),
    ("a week into summer", "America/Havana", WEEK, "2025-03-03T05:00", "2025-03-10T04:00"),
    ("a week out of summer", "America/Havana", WEEK, "2025-10-27T04:00", "2025-11-03T05:00"),
    ("a month into summer", "America/Havana", MONTH, "2025-03-01T05:00", "2025-04-01T04:00"),
    ("a month out of summer", "America/Havana", MONTH, "2025-11-01T04:00", "2025-12-01T05:00"),
    # 1 November 2020 was a Sunday: the month itself begins with the midnight that comes twice.
    ("a month with two midnights", "America/Havana", MONTH, "2020-11-01T04:00", "2020-12-01T05:00"),
    ("a quarter into summer", "America/Havana", QUARTER, "2025-01-01T05:00", "2025-04-01T04:00"),
    # +10:30, in summer +11: half an hour. 6 April 2025 is longer, 5 October 2025 shorter.
    ("a day of 24.5 h", "Australia/Lord_Howe", DAY, "2025-04-05T13:00", "2025-04-06T13:30"),
    ("a day of 23.5 h", "Australia/Lord_Howe", DAY, "2025-10-04T13:30", "2025-10-05T13:00"),
    ("the day before it", "Australia/Lord_Howe", DAY, "2025-10-03T13:30", "2025-10-04T13:30"),
    ("a week of 168.5 h", "Australia/Lord_Howe", WEEK, "2025-03-30T13:00", "2025-04-06T13:30"),
    ("a month half short", "Australia/Lord_Howe", MONTH, "2025-09-30T13:30", "2025-10-31T13:00"),
    # -10 until the end of 29 December 2011, +14 after it: the 30th never was.
    ("before the lost day", "Pacific/Apia", DAY, "2011-12-29T10:00", "2011-12-30T10:00"),
    ("after the lost day", "Pacific/Apia", DAY, "2011-12-30T10:00", "2011-12-31T10:00"),
    ("a week of six days", "Pacific/Apia", WEEK, "2011-12-26T10:00", "2012-01-01T10:00"),
    ("a December of 30 days", "Pacific/Apia", MONTH, "2011-12-01T10:00", "2011-12-31T10:00"),
    ("a quarter of 91 days", "Pacific/Apia", QUARTER, "2011-10-01T10:00", "2011-12-31T10:00"),
    ("a year of 364 days", "Pacific/Apia", YEAR, "2011-01-01T10:00", "2011-12-31T10:00"),
    # +1, in Ramadan +0: from 3:00 of 10 March to 2:00 of 14 April 2024, of 23 February to 6 April
    # 2025.
    ("into Ramadan 2024", "Africa/Casablanca", DAY, "2024-03-09T23:00", "2024-03-11T00:00"),
    ("out of Ramadan 2024", "Africa/Casablanca", DAY, "2024-04-14T00:00", "2024-04-14T23:00"),
    ("into Ramadan 2025", "Africa/Casablanca", DAY, "2025-02-22T23:00", "2025-02-24T00:00"),
    ("out of Ramadan 2025", "Africa/Casablanca", DAY, "2025-04-06T00:00", "2025-04-06T23:00"),
    ("a month into it", "Africa/Casablanca", MONTH, "2025-01-31T23:00", "2025-03-01T00:00"),
    ("a month within it", "Africa/Casablanca", MONTH, "2025-03-01T00:00", "2025-04-01T00:00"),
    ("a month out of it", "Africa/Casablanca", MONTH, "2025-04-01T00:00", "2025-04-30T23:00"),
    # -4, in summer -3, turning at midnight; from October 2024 on -3 for good.
    ("midnight comes early", "America/Asuncion", DAY, "2023-10-01T04:00", "2023-10-02T03:00"),
    ("midnight is put off", "America/Asuncion", DAY, "2024-03-23T03:00", "2024-03-24T04:00"),
    ("the day after", "America/Asuncion", DAY, "2024-03-24T04:00", "2024-03-25T04:00"),
    ("a last summer", "America/Asuncion", DAY, "2024-10-06T04:00", "2024-10-07T03:00"),
    ("no winter any more", "America/Asuncion", DAY, "2025-03-22T03:00", "2025-03-23T03:00"),
    ("a month put off", "America/Asuncion", MONTH, "2024-03-01T03:00", "2024-04-01T04:00"),
    ("a month cut", "America/Asuncion", MONTH, "2023-10-01T04:00", "2023-11-01T03:00"),
    # -3, in summer -2, turning at midnight; no summer time since 2019.
    ("into summer 2018", "America/Sao_Paulo", DAY, "2018-11-04T03:00", "2018-11-05T02:00"),
    ("out of the last summer", "America/Sao_Paulo", DAY, "2019-02-16T02:00", "2019-02-17T03:00"),
    ("no summer in 2019", "America/Sao_Paulo", DAY, "2019-11-03T03:00", "2019-11-04T03:00"),
    ("a month out of it", "America/Sao_Paulo", MONTH, "2019-02-01T02:00", "2019-03-01T03:00"),
    ("a year that began in it", "America/Sao_Paulo", YEAR, "2019-01-01T02:00", "2020-01-01T03:00"),
    # +5:45 all year; +12:45, in summer +13:45 until 6 April 2025.
    ("three quarters of an hour", "Asia/Kathmandu", DAY, "2025-04-30T18:15", "2025-05-01T18:15"),
    ("a day of 25 h", "Pacific/Chatham", DAY, "2025-04-05T10:15", "2025-04-06T11:15"),
]

# Per case: what it is about, zone, a Monday's midnight and the next one's, in UTC.
WEEKS = [
    ("53rd of 2015", "UTC", "2015-12-28T00:00", "2016-01-04T00:00"),
    ("53rd of 2020", "UTC", "2020-12-28T00:00", "2021-01-04T00:00"),
    ("1st of 2025, from December", "UTC", "2024-12-30T00:00", "2025-01-06T00:00"),
    ("53rd of 2026", "UTC", "2026-12-28T00:00", "2027-01-04T00:00"),
    ("a leap day's", "UTC", "2000-02-28T00:00", "2000-03-06T00:00"),
    ("no leap day's", "UTC", "2100-02-22T00:00", "2100-03-01T00:00"),
    ("Auckland's 53rd of 2020", "Pacific/Auckland", "2020-12-27T11:00", "2021-01-03T11:00"),
    ("Honolulu's 53rd of 2020", "Pacific/Honolulu", "2020-12-28T10:00", "2021-01-04T10:00"),
]

# Per case: what it is about, zone, the fiscal month, period, start and end, in UTC.
FISCAL = [
    ("plain", "UTC", 1, YEAR, "2025-01-01T00:00", "2026-01-01T00:00"),
    ("plain quarter", "UTC", 1, QUARTER, "2025-10-01T00:00", "2026-01-01T00:00"),
    ("a leap year", "UTC", 1, YEAR, "2024-01-01T00:00", "2025-01-01T00:00"),
    ("a leap quarter", "UTC", 1, QUARTER, "2000-01-01T00:00", "2000-04-01T00:00"),
    ("2100 is none", "UTC", 1, QUARTER, "2100-01-01T00:00", "2100-04-01T00:00"),
    ("to a leap day", "UTC", 3, YEAR, "2023-03-01T00:00", "2024-03-01T00:00"),
    ("to 28 February 2100", "UTC", 3, YEAR, "2099-03-01T00:00", "2100-03-01T00:00"),
    ("from February", "UTC", 2, QUARTER, "2025-11-01T00:00", "2026-02-01T00:00"),
    ("from December", "UTC", 12, YEAR, "2024-12-01T00:00", "2025-12-01T00:00"),
    ("December's quarter", "UTC", 12, QUARTER, "2024-12-01T00:00", "2025-03-01T00:00"),
    ("April's last quarter", "UTC", 4, QUARTER, "2026-01-01T00:00", "2026-04-01T00:00"),
    ("London's April", "Europe/London", 4, YEAR, "2024-03-31T23:00", "2025-03-31T23:00"),
    ("London's winter", "Europe/London", 4, QUARTER, "2025-01-01T00:00", "2025-03-31T23:00"),
    ("India's April", "Asia/Kolkata", 4, YEAR, "2025-03-31T18:30", "2026-03-31T18:30"),
    ("Tokyo's April", "Asia/Tokyo", 4, QUARTER, "2025-03-31T15:00", "2025-06-30T15:00"),
    ("Sydney's July", "Australia/Sydney", 7, YEAR, "2024-06-30T14:00", "2025-06-30T14:00"),
    ("Sydney's spring", "Australia/Sydney", 7, QUARTER, "2024-09-30T14:00", "2024-12-31T13:00"),
    ("New York's October", "America/New_York", 10, YEAR, "2023-10-01T04:00", "2024-10-01T04:00"),
    ("its second", "America/New_York", 10, QUARTER, "2024-01-01T05:00", "2024-04-01T04:00"),
    ("a month is a month", "UTC", 7, MONTH, "2024-02-01T00:00", "2024-03-01T00:00"),
]

# Per case: what it is about, zone, anchor, start and end of one of its periods, in UTC.
ANCHORED = [
    ("31st, leap February", "UTC", "2023-12-31T00:00", "2024-01-31T00:00", "2024-02-29T00:00"),
    ("31st, after it", "UTC", "2023-12-31T00:00", "2024-02-29T00:00", "2024-03-31T00:00"),
    ("31st, February", "UTC", "2023-12-31T00:00", "2025-02-28T00:00", "2025-03-31T00:00"),
    ("31st, short months", "UTC", "2023-12-31T00:00", "2024-06-30T00:00", "2024-07-31T00:00"),
    ("31st, long months", "UTC", "2023-12-31T00:00", "2024-07-31T00:00", "2024-08-31T00:00"),
    ("31st, before itself", "UTC", "2023-12-31T00:00", "2023-11-30T00:00", "2023-12-31T00:00"),
    ("30th, leap February", "UTC", "2023-11-30T06:00", "2024-02-29T06:00", "2024-03-30T06:00"),
    ("30th, February", "UTC", "2023-11-30T06:00", "2025-01-30T06:00", "2025-02-28T06:00"),
    ("29th, leap February", "UTC", "2023-11-29T00:00", "2024-02-29T00:00", "2024-03-29T00:00"),
    ("29th, February", "UTC", "2023-11-29T00:00", "2025-02-28T00:00", "2025-03-29T00:00"),
    ("leap day, next year", "UTC", "2024-02-29T00:00", "2025-02-28T00:00", "2025-03-29T00:00"),
    ("leap day of 2000", "UTC", "1999-10-31T00:00", "2000-02-29T00:00", "2000-03-31T00:00"),
    ("leap day, in 2100", "UTC", "2000-02-29T00:00", "2100-02-28T00:00", "2100-03-29T00:00"),
    ("31st, in 2100", "UTC", "2000-01-31T00:00", "2100-01-31T00:00", "2100-02-28T00:00"),
    # The 31st at local midnight in Berlin is the day before in UTC, an hour apart in summer.
    ("31st, Berlin", "Europe/Berlin", "2023-12-30T23:00", "2024-02-28T23:00", "2024-03-30T23:00"),
    ("its summer", "Europe/Berlin", "2023-12-30T23:00", "2024-03-30T23:00", "2024-04-29T22:00"),
    # 9 March 2025 has no midnight in Havana: the period begins when the clocks have turned.
    ("Havana", "America/Havana", "2025-01-09T05:00", "2025-03-09T05:00", "2025-04-09T04:00"),
    ("Havana before", "America/Havana", "2025-01-09T05:00", "2025-02-09T05:00", "2025-03-09T05:00"),
    # 2 November 2025 has two: the first counts.
    ("Havana's two", "America/Havana", "2025-08-02T04:00", "2025-11-02T04:00", "2025-12-02T05:00"),
    # 2:15 of 5 October 2025 is skipped on Lord Howe: it is 2:45 then.
    (
        "half an hour",
        "Australia/Lord_Howe",
        "2025-09-04T15:45",
        "2025-10-04T15:45",
        "2025-11-04T15:15",
    ),
    # 1:45 of 6 April 2025 comes twice there, at +11 and at +10:30: the first counts.
    (
        "half an hour twice",
        "Australia/Lord_Howe",
        "2025-03-05T14:45",
        "2025-04-05T14:45",
        "2025-05-05T15:15",
    ),
    # The 30th that Samoa has lost begins with the 31st; in January it is a plain day at +14.
    ("the lost 30th", "Pacific/Apia", "2011-10-30T10:00", "2011-11-30T10:00", "2011-12-30T10:00"),
    ("and after", "Pacific/Apia", "2011-10-30T10:00", "2011-12-30T10:00", "2012-01-29T10:00"),
    # The 1st of October 2023 began at 1:00 in Asuncion.
    ("Asuncion", "America/Asuncion", "2023-09-01T04:00", "2023-10-01T04:00", "2023-11-01T03:00"),
    # 2:30 of 10 March 2024 is its one in Casablanca at +1; at 3:00 it is 2:00 again.
    (
        "Ramadan",
        "Africa/Casablanca",
        "2024-01-10T01:30",
        "2024-03-10T01:30",
        "2024-04-10T02:30",
    ),
]


def check(period: Period, of: Calendar, starts: str, ends: str) -> None:
    """Assert that one window has these ends, asked for from anywhere within it, and no further."""
    start, end = at(starts), at(ends)
    expected = Window(start, end)
    for instant in (start, start + 1, (start + end) // 2, end - 1):
        assert window_at(period, of, instant) == expected
    assert window_at(period, of, start - 1).end_us == start
    assert window_at(period, of, end).start_us == end


@pytest.mark.parametrize(
    ("zone", "period", "starts", "ends"),
    [pytest.param(*case[1:], id=f"{case[1]}: {case[0]}") for case in ZONED],
)
def test_a_zone_s_windows_turn_where_its_clocks_say(
    zone: str, period: Period, starts: str, ends: str
) -> None:
    """Days, weeks, months and longer begin with the first instant of their local date."""
    check(period, Calendar(zone), starts, ends)


@pytest.mark.parametrize(
    ("zone", "starts", "ends"), [pytest.param(*case[1:], id=case[0]) for case in WEEKS]
)
def test_weeks_are_those_of_iso_8601(zone: str, starts: str, ends: str) -> None:
    """A week goes from Monday to Monday, over the New Year and the leap day."""
    check(Period.WEEK, Calendar(zone), starts, ends)


@pytest.mark.parametrize(
    ("zone", "month", "period", "starts", "ends"),
    [pytest.param(*case[1:], id=case[0]) for case in FISCAL],
)
def test_quarters_and_years_begin_with_the_fiscal_month(
    zone: str, month: int, period: Period, starts: str, ends: str
) -> None:
    """Three and twelve months, counted from the fiscal month, at local midnight."""
    check(period, Calendar(zone, fiscal_month=month), starts, ends)


@pytest.mark.parametrize(
    ("zone", "anchor", "starts", "ends"),
    [pytest.param(*case[1:], id=f"{case[1]}: {case[0]}") for case in ANCHORED],
)
def test_billing_periods_keep_their_anchor_s_day(
    zone: str, anchor: str, starts: str, ends: str
) -> None:
    """A day that a month lacks is its last one; after it the anchor's day comes back."""
    check(Period.BILLING_PERIOD, Calendar(zone, at(anchor)), starts, ends)


@pytest.mark.parametrize("month", range(1, 13))
def test_a_fiscal_year_is_four_of_its_quarters(month: int) -> None:
    """Whatever the month, quarters end where the year does, over ten years in Samoa."""
    of = Calendar("Pacific/Apia", fiscal_month=month)
    instant = at("2005-01-01T00:00")
    for _ in range(10):
        year = window_at(Period.YEAR, of, instant)
        quarter = window_at(Period.QUARTER, of, year.start_us)
        assert quarter.start_us == year.start_us
        for _ in range(3):
            quarter = window_at(Period.QUARTER, of, quarter.end_us)
        assert quarter.end_us == year.end_us
        instant = year.end_us


BILLINGS = [
    # Months of the zone, though the anchor is on the 20th: from 1 March, +1, to 1 April, +2.
    (Billing(BillingKind.MONTH), "2025-02-28T23:00", "2025-03-31T22:00"),
    # The anchor is noon of 20 January 2025, +1; from 30 March on it is +2.
    (Billing(BillingKind.ANNIVERSARY), "2025-03-20T11:00", "2025-04-20T10:00"),
    (Billing(BillingKind.EVERY, 7 * DAY_US), "2025-03-24T11:00", "2025-03-31T10:00"),
    (Billing(BillingKind.EVERY, 7 * DAY_US), "2024-12-30T11:00", "2025-01-06T11:00"),
    (Billing(BillingKind.EVERY, 36 * HOUR_US), "2025-01-21T23:00", "2025-01-23T11:00"),
]


@pytest.mark.parametrize(("billing", "starts", "ends"), BILLINGS)
def test_billing_periods_follow_their_rule(billing: Billing, starts: str, ends: str) -> None:
    """Lengths of whole days keep the clock's time over DST; others are elapsed time."""
    calendar = Calendar("Europe/Berlin", at("2025-01-20T11:00"), billing=billing)
    check(Period.BILLING_PERIOD, calendar, starts, ends)


def test_given_starts_are_periods() -> None:
    """Before the first there is one from 1970, after the last one without end."""
    first, second = at("2025-04-06T00:00"), at("2026-04-06T00:00")
    calendar = Calendar(billing=Billing(BillingKind.STARTS, starts_us=(first, second)))
    found = [
        window_at(Period.BILLING_PERIOD, calendar, instant_us)
        for instant_us in (5, first - 1, first, second - 1, second)
    ]
    before, whole = Window(5 - 5, first), Window(first, second)
    assert found == [before, before, whole, whole, Window(second, NO_END_US)]
