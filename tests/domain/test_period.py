"""Periods' states, what holds them, where late events belong: tables, and what must always hold."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.catalog import Aggregation, LatePolicy
from tallygate.domain.completeness import Identity
from tallygate.domain.period import (
    Act,
    Arrived,
    Figures,
    Held,
    PeriodNotSo,
    PeriodState,
    Place,
    Placed,
    Sealable,
    adjustment,
    after,
    following,
    held_because,
    period_at,
    place,
)
from tallygate.domain.period_digest import pieces
from tallygate.domain.window import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Billing,
    BillingKind,
    Calendar,
    Window,
)

OPEN, GRACE = PeriodState.OPEN, PeriodState.GRACE
SEALED, CLOSED = PeriodState.SEALED, PeriodState.CLOSED
# What figures tell; what others come to is folded.
TOLD = [Aggregation.COUNT, Aggregation.SUM, Aggregation.MAX, Aggregation.MIN]
LEADS = {
    (OPEN, Act.END): GRACE,
    (GRACE, Act.SEAL): SEALED,
    (SEALED, Act.CLOSE): CLOSED,
    (CLOSED, Act.CORRECT): SEALED,
    (CLOSED, Act.REOPEN): GRACE,
}


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize("state", PeriodState)
def test_each_act_is_for_one_state(state: PeriodState, act: Act) -> None:
    """Every act leads where the table says, and is refused by name everywhere else."""
    if (state, act) in LEADS:
        assert after(state, act) is LEADS[state, act]
    else:
        with pytest.raises(PeriodNotSo, match=f"{state} cannot {act}"):
            after(state, act)


NEXT = Sealable(900, OPEN, 0)


@pytest.mark.parametrize(
    ("of", "policy", "expected"),
    [
        (Sealable(5, OPEN, 0), LatePolicy.NEXT_PERIOD, None),
        (Sealable(5, GRACE, 0), LatePolicy.CORRECT, None),
        (Sealable(5, SEALED, 1), LatePolicy.NEXT_PERIOD, Place(900, 1, Placed.NEXT_PERIOD)),
        (Sealable(5, CLOSED, 3), LatePolicy.NEXT_PERIOD, Place(900, 1, Placed.NEXT_PERIOD)),
        (Sealable(5, SEALED, 1), LatePolicy.CORRECT, Place(5, 2, Placed.CORRECT)),
        (Sealable(5, CLOSED, 3), LatePolicy.CORRECT, Place(5, 4, Placed.CORRECT)),
        (Sealable(5, GRACE, 3), LatePolicy.NEXT_PERIOD, Place(5, 4, Placed.REOPENED)),
        (Sealable(5, GRACE, 3), LatePolicy.CORRECT, Place(5, 4, Placed.REOPENED)),
        (None, LatePolicy.CORRECT, Place(900, 1, Placed.NEXT_PERIOD)),
    ],
)
def test_late_events_have_one_place(
    of: Sealable | None, policy: LatePolicy, expected: Place | None
) -> None:
    """By the period's state and the meter's policy; before the first sealing nothing is late."""
    assert place(of, NEXT, policy) == expected


@pytest.mark.parametrize(
    ("arrived", "letters", "expected"),
    [
        (Arrived(Identity()), 0, None),
        (Arrived(Identity(in_stream=5, gaps=2)), 0, None),
        (Arrived(Identity(), oldest_us=99), 0, Held.INGEST_LAG),
        (Arrived(Identity(), oldest_us=100), 0, None),
        (Arrived(None), 0, Held.NOT_COUNTED),
        (Arrived(None, oldest_us=1), 0, Held.INGEST_LAG),
        (Arrived(Identity(unaccounted=1, awaited=1)), 0, Held.UNACCOUNTED),
        (Arrived(Identity(awaited=1, lost=1)), 0, Held.AWAITED),
        (Arrived(Identity(lost=2)), 1, Held.LOST),
        (Arrived(Identity(lost=2), accepted_lost=2), 0, None),
        (Arrived(Identity(lost=3), accepted_lost=2), 0, Held.LOST),
        (Arrived(Identity()), 1, Held.DEAD_LETTERS),
    ],
)
def test_what_may_be_missing_holds(arrived: Arrived, letters: int, expected: Held | None) -> None:
    """Whatever was accepted before 100 and may not be there speaks against closing."""
    assert held_because(arrived, 100, letters) is expected


amounts = st.lists(st.integers(1, 1_000), max_size=8)


def figures(found: list[int]) -> Figures:
    """Return what uses of these amounts add up to."""
    total = Figures()
    for amount in found:
        total = total.merged(Figures(1, amount, amount, amount))
    return total


@given(amounts, amounts, amounts, st.sampled_from(TOLD))
def test_adjustments_add_up(
    first: list[int], late: list[int], later: list[int], aggregation: Aggregation
) -> None:
    """What a period was closed with and all its adjustments are what it would have been."""
    frozen = figures(first)
    one = adjustment(frozen, figures(late), 0, aggregation)
    two = adjustment(frozen, figures([*late, *later]), one, aggregation)
    whole = figures([*first, *late, *later])
    assert frozen.quantity(aggregation) + one + two == whole.quantity(aggregation)


@given(amounts, amounts, amounts, st.sampled_from(TOLD))
def test_what_a_revision_has_taken_over_is_given_back(
    first: list[int], late: list[int], later: list[int], aggregation: Aggregation
) -> None:
    """A revision that covers later events has no part of an adjustment billed twice."""
    frozen = figures(first)
    one = adjustment(frozen, figures(late), 0, aggregation)
    again = frozen.merged(figures(later))
    two = adjustment(again, figures(late), one, aggregation)
    whole = figures([*first, *late, *later])
    assert again.quantity(aggregation) + one + two == whole.quantity(aggregation)


@given(amounts, amounts)
def test_figures_merge_in_any_order(one: list[int], other: list[int]) -> None:
    """Merging commutes, and is what adding one by one gives."""
    merged = figures(one).merged(figures(other))
    assert merged == figures(other).merged(figures(one)) == figures([*one, *other])


hours = st.dictionaries(st.integers(-2, 60), st.integers(1, 40), max_size=20)


@given(hours, st.integers(0, 59), st.integers(1, 3_000), st.integers(1, 50))
def test_pieces_are_the_whole(
    found: dict[int, int], begin: int, minutes: int, events_max: int
) -> None:
    """Pieces follow each other without a hole, in whole minutes, and are small enough."""
    within = Window(begin * MINUTE_US, (begin + minutes) * MINUTE_US)
    counted = [(hour * HOUR_US, count) for hour, count in sorted(found.items())]
    parts = [*pieces(counted, within, events_max)]
    assert (parts[0].start_us, parts[-1].end_us) == (within.start_us, within.end_us)
    assert all(one.end_us == two.start_us for one, two in pairwise(parts))
    assert all(part.start_us < part.end_us for part in parts)
    assert all(part.start_us % MINUTE_US == 0 for part in parts)
    for part in parts:
        inside = [count for hour, count in counted if part.start_us <= hour < part.end_us]
        assert len(inside) <= 1 or sum(inside) <= events_max


lengths = st.one_of(
    st.integers(1, 400).map(lambda days: days * DAY_US),
    st.integers(60, 20_000).map(lambda each: each * MINUTE_US),
)
starts = st.lists(st.integers(1, 500_000), min_size=1, max_size=5, unique=True).map(
    lambda found: tuple(each * HOUR_US for each in sorted(found))
)
billings = st.one_of(
    st.none(),
    st.sampled_from([Billing(BillingKind.MONTH), Billing(BillingKind.ANNIVERSARY)]),
    lengths.map(lambda each: Billing(BillingKind.EVERY, each)),
    starts.map(lambda each: Billing(BillingKind.STARTS, starts_us=each)),
)
zones = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/Havana", "Pacific/Apia", "Asia/Kathmandu"]
)


anchors = st.one_of(
    st.integers(0, 10**6).map(lambda each: each * HOUR_US), st.integers(0, 3 * 10**15)
)


@given(zones, anchors, billings, st.integers(0, 4 * 10**15))
def test_periods_partition_time(
    zone: str, anchor_us: int, billing: Billing | None, instant_us: int
) -> None:
    """A period holds its instant, is whole minutes, and the next begins where it ends.

    So it is for anchors of old too, which may lie within a minute.
    """
    calendar = Calendar(zone, anchor_us, billing=billing)
    found = period_at(calendar, instant_us)
    assert found.holds(instant_us)
    assert found.start_us % MINUTE_US == found.end_us % MINUTE_US == 0
    after_it = period_at(calendar, found.end_us)
    assert after_it.start_us == found.end_us or found.end_us > 4 * 10**15
    assert following(calendar, found.start_us) == found
    if found.start_us > 0:
        assert period_at(calendar, found.start_us - 1).end_us == found.start_us


@pytest.mark.parametrize("aggregation", Aggregation)
def test_figures_tell_no_other_quantity(aggregation: Aggregation) -> None:
    """What they do not tell is refused, never 0."""
    if aggregation in TOLD:
        assert Figures(2, 2, 2, 2).quantity(aggregation) == 2
    else:
        with pytest.raises(ValueError, match=aggregation):
            Figures(2, 2, 2, 2).quantity(aggregation)
