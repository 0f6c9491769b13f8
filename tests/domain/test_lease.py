"""How much is leased: a share of what is left, by how the last lease went."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.catalog import Limit, LimitKind
from tallygate.domain.decision import (
    Charge,
    LimitReading,
    LimitState,
    Mode,
    RateRule,
)
from tallygate.domain.lease import (
    CALLS_MAX,
    CALLS_MIN,
    CALLS_START,
    QUICK_US,
    RATE_LIFE_US,
    SHARE,
    SPAN_US,
    Demand,
    Past,
    ends_us,
    held_units,
    lease_charges,
    less,
    reading_now,
    room_for,
    shares_leased,
    size_after,
)
from tallygate.domain.limit import evaluate
from tallygate.domain.verdict import EMPTY, Moment
from tests.builders import charges, now_us, rate, window

PLENTY = 10_000_000


def sliding() -> Limit:
    """Return a limit of a trailing minute, in buckets of a second."""
    return window("s", kind=LimitKind.SLIDING, period=None, duration_us=60_000_000)


def reading(charge: Charge, used: int, resets_at_us: int = 0) -> LimitReading:
    """Return a limit with that much used."""
    return LimitReading(
        account=charge.account,
        limit_id=charge.limit_id,
        meter=charge.meter,
        state=LimitState.OK,
        used=used,
        limit=charge.limit,
        remaining=max(0, charge.limit - used),
        resets_at_us=resets_at_us,
    )


@pytest.mark.parametrize(
    ("past", "size"),
    [
        (None, CALLS_START),
        (Past(8, 8, 1_000), 16),
        (Past(8, 8, QUICK_US), 8),
        (Past(64, 40, 1_000), 64),
        (Past(64, 31, 1_000_000), 32),
        (Past(8, 0, 1_000_000), CALLS_START),
        (Past(CALLS_MAX, CALLS_MAX, 1), CALLS_MAX),
    ],
    ids=["first", "quickly used", "slowly used", "mostly used", "left over", "least", "most"],
)
def test_size_follows_the_last_lease(past: Past | None, size: int) -> None:
    """A lease doubles when the last one was used up quickly, and halves when half was left."""
    assert size_after(past, PLENTY, PLENTY, rated=False) == size


@pytest.mark.parametrize(
    ("room", "demand_per_s", "rated", "size"),
    [
        (PLENTY, 500, False, 500),
        (PLENTY, 500, True, 50),
        (100, 500, False, 100),
        (CALLS_MIN - 1, 500, False, 0),
        (0, 500, False, 0),
        (PLENTY, CALLS_MIN * 10 - 1, True, 0),
    ],
    ids=["demand", "rated demand", "room", "little room", "no room", "little rated demand"],
)
def test_size_is_bounded(room: int, demand_per_s: int, rated: bool, size: int) -> None:
    """No lease is for more than there is room for, nor than is asked for while it lasts."""
    past = Past(1024, 1024, 1)
    assert size_after(past, room, demand_per_s, rated=rated) == size


@given(
    limit=st.integers(0, 2**53 - 1),
    used=st.integers(0, 2**53 - 1),
    amount=st.integers(1, 2**40),
    past=st.none()
    | st.builds(Past, st.integers(1, CALLS_MAX), st.integers(0, CALLS_MAX), st.integers(0, 10**7)),
    demand_per_s=st.integers(0, 10**6),
)
def test_lease_is_a_share_of_what_is_left(
    limit: int, used: int, amount: int, past: Past | None, demand_per_s: int
) -> None:
    """No lease takes more than an eighth of a limit, nor of what is left of it."""
    (charge,) = charges([window(limit=limit)], amount)
    room = room_for([charge], [reading(charge, used)])
    units = size_after(past, room, demand_per_s, rated=False) * amount
    assert units * SHARE <= max(0, limit - used)
    assert units * SHARE <= limit


@given(used=st.integers(0, 1_000), calls=st.integers(1, 1_000))
def test_leased_charges_gate_below_the_next_warning(used: int, calls: int) -> None:
    """What reserves a lease is refused where it would cross a warning that is not crossed yet."""
    limit = window(limit=1_000, warn_at_ppm=(250_000, 500_000))
    (charge,) = charges([limit], 1)
    (taken,) = lease_charges([charge], [reading(charge, used)], calls)
    ahead = [units for _, units in ((250_000, 250), (500_000, 500)) if units > used]
    assert taken.amount == calls
    assert taken.limit == (ahead[0] - 1 if ahead else 1_000)


def test_lease_ends_with_the_first_of_its_limits() -> None:
    """Its own life, a window's end, a bucket's end and a rate's tenth of a second bound it."""
    at_us = now_us()
    month, slid, bucket = charges([window(), sliding(), rate()], 1)
    far = reading(month, 0, at_us + 5_000_000)
    assert ends_us([month], [far], at_us, 1_000_000) == at_us + 1_000_000
    assert ends_us([month], [reading(month, 0, at_us + 7)], at_us, 1_000_000) == at_us + 7
    assert ends_us([bucket], [reading(bucket, 0)], at_us, 1_000_000) == at_us + RATE_LIFE_US
    ends = ends_us([slid], [reading(slid, 0)], at_us, 10_000_000)
    assert ends % 1_000_000 == 0
    assert at_us < ends <= at_us + 1_000_000


def test_shares_are_those_that_the_store_holds() -> None:
    """What is said to be held is what the verdicts of the reservation say."""
    at_us = now_us()
    made = charges([window(), sliding(), rate(limit=100)], 7, at_us=at_us)
    moment = Moment(at_us, Mode.RESERVE, at_us)
    verdicts = [evaluate(charge, None, moment) for charge in made]
    shares = shares_leased(made, [verdict.after for verdict in verdicts], at_us)
    (share,) = shares
    assert [piece.slots for piece in share.pieces] == [v.slots for v in verdicts if v.slots]
    units = held_units(shares)
    assert set(units.values()) == {7}
    left = less(shares, dict.fromkeys(units, 3))
    assert set(held_units(left).values()) == {4}
    assert less(shares, units) == ()


def test_shares_of_a_second_window_are_there() -> None:
    """A store whose clock is in the second of the two windows holds the units in that one."""
    (charge,) = charges([window()], 7)
    later_us = getattr(charge.rule, "turns_us") + 1  # noqa: B009  a window's
    verdict = evaluate(charge, EMPTY, Moment(later_us, Mode.RESERVE, later_us))
    (share,) = shares_leased([charge], [verdict.after], later_us)
    assert share.pieces[0].slots == verdict.slots


@given(
    gaps_us=st.lists(st.integers(0, 300_000), max_size=60),
)
def test_demand_lies_between_spans(gaps_us: list[int]) -> None:
    """The estimate never exceeds what two spans have seen, and is exact for a steady load."""
    demand, at_us, seen = Demand(), 0, []
    for gap_us in gaps_us:
        at_us += gap_us
        demand.count(at_us)
        seen.append(at_us)
        trailing = [each for each in seen if each > at_us - 2 * SPAN_US]
        assert demand.per_second(at_us) <= len(trailing) * 2


def test_demand_of_a_steady_load() -> None:
    """A call each millisecond is a thousand a second, and none afterwards."""
    demand = Demand()
    for at_us in range(0, 2_000_000, 1_000):
        demand.count(at_us)
    assert demand.per_second(2_000_000) in range(990, 1_011)
    assert demand.per_second(4_000_000) == 0


def test_reading_shows_what_is_unused_as_free() -> None:
    """Units of a lease that nobody has used are not shown as used."""
    (charge,) = charges([window(limit=1_000, warn_at_ppm=(500_000,))], 1)
    now = reading_now(charge, reading(charge, 700, 9), 100)
    assert (now.used, now.remaining, now.limit, now.resets_at_us) == (600, 400, 1_000, 9)
    assert now.state is LimitState.WARNING
    assert reading_now(charge, reading(charge, 700), 300).state is LimitState.OK


def test_rates_hold_nothing() -> None:
    """A rate's tokens never come back, so that no share names them."""
    (charge,) = charges([rate(limit=100)], 7)
    assert isinstance(charge.rule, RateRule)
    assert shares_leased([charge], [reading(charge, 7)], now_us()) == ()
