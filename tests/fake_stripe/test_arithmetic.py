"""Sums, prices and periods against plain re-tellings of what they mean."""

from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate_fake_stripe.objects import MeterEvent
from tallygate_fake_stripe.periods import boundary, period_of
from tallygate_fake_stripe.pricing import Price, Tier, plain, rounded
from tallygate_fake_stripe.series import WINDOW_S, Series

SPAN_S = 10 * 86_400


def event(number: int, timestamp: int, value: Decimal, *, cancelled: bool) -> MeterEvent:
    """Make an event as the series takes it up."""
    made = MeterEvent("calls", str(number), {}, timestamp, 0, number, "v1", livemode=False)
    made.value, made.cancelled = value, cancelled
    return made


VALUES = st.decimals(-1_000_000, 1_000_000, places=6)
EVENTS = st.lists(st.tuples(st.integers(0, SPAN_S - 1), VALUES, st.booleans()), max_size=60)
BOUNDS = st.tuples(st.integers(0, SPAN_S // 60), st.integers(0, SPAN_S // 60)).map(sorted)


@given(
    sent=EVENTS,
    bounds=BOUNDS,
    formula=st.sampled_from(["sum", "count", "last"]),
    window=st.sampled_from([None, "hour", "day"]),
)
def test_series_is_its_definition(
    sent: list[tuple[int, Decimal, bool]], bounds: list[int], formula: str, window: str | None
) -> None:
    """Whatever the order of receipt, a total is what its definition says, to the last digit."""
    series = Series()
    events = [event(number, *each[:2], cancelled=each[2]) for number, each in enumerate(sent)]
    for each in events:
        series.add(each)
    start_s, end_s = (bound * 60 for bound in bounds)
    counted = [each for each in events if not each.cancelled]
    if window is not None:
        latest: dict[int, MeterEvent] = {}
        for each in counted:
            latest[each.timestamp // WINDOW_S[window]] = each
        counted = list(latest.values())
    counted = [each for each in counted if start_s <= each.timestamp < end_s]
    counted.sort(key=lambda each: (each.timestamp, each.number))
    expected = {
        "sum": sum((each.value for each in counted), Decimal(0)),
        "count": Decimal(len(counted)),
        "last": counted[-1].value if counted else Decimal(0),
    }[formula]
    assert series.total(formula, window, start_s, end_s) == expected


@given(sent=EVENTS, cuts=st.lists(st.integers(0, SPAN_S // 60), max_size=6))
def test_spans_add_up(sent: list[tuple[int, Decimal, bool]], cuts: list[int]) -> None:
    """Sums over spans that follow each other are the sum over all of them."""
    series = Series()
    for number, (timestamp, value, cancelled) in enumerate(sent):
        series.add(event(number, timestamp, value, cancelled=cancelled))
    marks = [0, *sorted(cut * 60 for cut in cuts), SPAN_S]
    parts = [series.total("sum", None, *each) for each in pairwise(marks)]
    assert sum(parts) == series.total("sum", None, 0, SPAN_S)


AMOUNTS = st.decimals(0, 1_000, places=4)


@st.composite
def tier_lists(draw: st.DrawFn) -> tuple[Tier, ...]:
    """Draw tiers that go up, the last without end."""
    bounds = sorted(draw(st.sets(st.integers(1, 200), max_size=4)))
    return tuple(Tier(bound, draw(AMOUNTS), draw(AMOUNTS)) for bound in [*bounds, None])


@given(tiers=tier_lists(), units=st.integers(0, 300))
def test_graduated_units_cost_their_tiers(tiers: tuple[Tier, ...], units: int) -> None:
    """Unit by unit, each costs what its tier says; a tier that is reached adds its flat amount."""
    by_tier: defaultdict[int, int] = defaultdict(int)
    by_tier[0] = 0
    for unit in range(1, units + 1):
        by_tier[next(i for i, t in enumerate(tiers) if t.up_to is None or unit <= t.up_to)] += 1
    expected = sum(
        rounded(tiers[index].unit_amount * count) + rounded(tiers[index].flat_amount)
        for index, count in by_tier.items()
    )
    price = Price("price", "prod", "usd", 0, livemode=False, tiers=tiers, tiers_mode="graduated")
    assert price.amount(Decimal(units)) == expected


@given(tiers=tier_lists(), units=st.integers(0, 300))
def test_volume_units_cost_the_one_tier(tiers: tuple[Tier, ...], units: int) -> None:
    """All units cost what the tier of their number says."""
    tier = next(each for each in tiers if each.up_to is None or units <= each.up_to)
    price = Price("price", "prod", "usd", 0, livemode=False, tiers=tiers, tiers_mode="volume")
    expected = rounded(tier.unit_amount * units) + rounded(tier.flat_amount)
    assert price.amount(Decimal(units)) == expected


@pytest.mark.parametrize(
    ("amount", "expected"), [("0.5", 1), ("-0.5", -1), ("1.4999", 1), ("2.5", 3), ("-2.4", -2)]
)
def test_halves_are_rounded_away_from_zero(amount: str, expected: int) -> None:
    """Half a cent is a cent, owed or given back."""
    assert rounded(Decimal(amount)) == expected


@pytest.mark.parametrize(
    ("number", "text"),
    [("1E+3", "1000"), ("0.10", "0.1"), ("5.000", "5"), ("1E-12", "0.000000000001")],
)
def test_numbers_are_written_plainly(number: str, text: str) -> None:
    """No exponent, and no zeros at the end."""
    assert plain(Decimal(number)) == text


# From 2000 to 2100.
ANCHORS = st.integers(946_684_800, 4_102_444_800)
INTERVALS = st.sampled_from(["day", "week", "month", "year"])


@given(anchor=ANCHORS, interval=INTERVALS, count=st.integers(1, 13), at_s=ANCHORS)
def test_periods_have_neither_gap_nor_overlap(
    anchor: int, interval: str, count: int, at_s: int
) -> None:
    """Every instant lies in one period, and the next begins where it ends."""
    start_s, end_s = period_of(anchor, interval, count, at_s)
    assert start_s <= at_s < end_s
    assert period_of(anchor, interval, count, end_s)[0] == end_s
    assert period_of(anchor, interval, count, start_s) == (start_s, end_s)
    assert period_of(anchor, interval, count, end_s - 1) == (start_s, end_s)


def test_short_months_end_on_their_last_day() -> None:
    """What begins on the 31st goes on on the 28th, and on the 31st again."""
    anchor = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp())
    days = [datetime.fromtimestamp(boundary(anchor, "month", 1, n), UTC).day for n in range(-1, 4)]
    assert days == [31, 31, 28, 31, 30]
