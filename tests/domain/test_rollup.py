"""Rollups come to what their events come to, in whatever order and parts these arrive."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.event import EventContext, UsageEvent
from tallygate.domain.ids import AMOUNT_MAX, EventId, MeterName
from tallygate.domain.rollup import (
    Rollup,
    Shape,
    group_of,
    in_seconds,
    level_at,
    quantity,
    rolled,
    shape_of,
)
from tallygate.domain.sketch import amount_of, percentile, slot_of
from tallygate.domain.window import SECOND_US, Window
from tests.usage_events import NOON_US, event

WINDOW = Window(NOON_US, NOON_US + 60 * SECOND_US)
METERS = [
    Meter(MeterName("m"), each, unique_by="user", percentile_ppm=950_000) for each in Aggregation
]
amounts = st.integers(1, 9) | st.integers(1, AMOUNT_MAX)


@st.composite
def usages(draw: st.DrawFn) -> list[UsageEvent]:
    """Return events in the window, with refunds of some of them."""
    found = [
        event(
            number,
            amount=draw(amounts),
            event_time_us=NOON_US + draw(st.integers(0, 59)) * SECOND_US,
            dimensions={"user": draw(st.sampled_from(["a", "b", "c", ""]))},
        )
        for number in range(draw(st.integers(0, 12)))
    ]
    for number, refunded in enumerate(list(found)):
        left = refunded.amount
        for part in range(draw(st.integers(0, 2))):
            if left:
                units = draw(st.integers(1, left) | st.just(left))
                left -= units
                found.append(
                    replace(
                        refunded,
                        event_id=EventId(f"refund-{number}-{part}"),
                        amount=-units,
                        refund_of=refunded.event_id,
                    )
                )
    return found


def naive(meter: Meter, events: Sequence[UsageEvent]) -> int | Decimal:
    """Return what events come to by the words of the documentation, one by one."""
    used = [each for each in events if not each.refund_of]
    net = {
        each.event_id: each.amount
        + sum(other.amount for other in events if other.refund_of == each.event_id)
        for each in used
    }
    last = sorted(used, key=lambda each: (each.event_time_us, each.event_id))
    amounts = sorted(each.amount for each in used)
    match meter.aggregation:
        case Aggregation.COUNT:
            return len(used)
        case Aggregation.SUM:
            return sum(net.values())
        case Aggregation.MAX:
            return amounts[-1] if amounts else 0
        case Aggregation.MIN:
            return amounts[0] if amounts else 0
        case Aggregation.LATEST:
            return last[-1].amount if last else 0
        case Aggregation.UNIQUE:
            there = {each.dimensions["user"] for each in used if net[each.event_id]}
            return len(there - {""})
        case Aggregation.PERCENTILE:
            rank = max(1, -(-len(amounts) * 95 // 100))
            return amounts[rank - 1] if amounts else 0
        case Aggregation.TIME_WEIGHTED:
            seconds = 0
            for second in range(60):
                at_us = NOON_US + second * SECOND_US
                before = [each for each in last if each.event_time_us <= at_us]
                seconds += net[before[-1].event_id] if before else 0
            return Decimal(seconds)


@pytest.mark.parametrize("meter", METERS, ids=[meter.aggregation for meter in METERS])
@given(events=usages(), data=st.data())
def test_any_order_and_any_parts_give_the_same(
    meter: Meter, events: list[UsageEvent], data: st.DataObject
) -> None:
    """Events in any order, in any batches, merged as any tree, are what all of them are naively."""
    shape = Shape(meter.aggregation, "user")
    shuffled = data.draw(st.permutations(events))
    states = [Rollup()]
    for each in shuffled:
        if data.draw(st.booleans()):
            states.append(Rollup())
        states[-1].add(shape, each)
    while len(states) > 1:
        other = states.pop(data.draw(st.integers(0, len(states) - 1)))
        states[data.draw(st.integers(0, len(states) - 1))].merge(other)
    assert states[0] == rolled(shape, events)
    found, expected = quantity(meter, states[0], WINDOW), naive(meter, events)
    if meter.aggregation is Aggregation.PERCENTILE:
        assert abs(int(found) - int(expected)) * 128 <= int(expected)
    else:
        assert found == expected


@given(amounts)
def test_a_slot_stands_for_its_amounts(amount: int) -> None:
    """Within 1/128 of each, exactly below 128, and in their order."""
    slot = slot_of(amount)
    found = amount_of(slot)
    assert abs(Fraction(found, amount) - 1) <= Fraction(1, 128)
    assert amount >= 128 or found == amount
    assert slot_of(found) == slot
    assert slot <= slot_of(amount + 1) <= slot + 1
    assert slot < 3_100


def test_every_boundary_of_slots_is_near() -> None:
    """At each power of two, and beside it, too."""
    for bits in range(1, 54):
        for amount in (2**bits - 1, 2**bits, 2**bits + 1):
            assert abs(amount_of(slot_of(amount)) - amount) * 128 <= amount


@pytest.mark.parametrize(
    ("ppm", "expected"), [(1, 1), (500_000, 10), (950_000, 19), (950_001, 20), (1_000_000, 20)]
)
def test_percentiles_are_of_the_nearest_rank(ppm: int, expected: int) -> None:
    """Of twenty amounts, the 95th percentile is the nineteenth."""
    assert percentile({slot_of(amount): 1 for amount in range(1, 21)}, ppm) == expected


def test_a_level_is_carried_into_a_window() -> None:
    """What was set before holds until the first event, and is refunded with its own event."""
    meter = Meter(MeterName("m"), Aggregation.TIME_WEIGHTED)
    before = event(1, amount=5, event_time_us=NOON_US - 1)
    refund = event(2, amount=-2, event_time_us=NOON_US - 1, refund_of=EventId("event-1"))
    levels = rolled(Shape(Aggregation.TIME_WEIGHTED), [refund, before]).levels
    assert level_at(levels, NOON_US) == 3
    assert level_at(levels, NOON_US - 1) == 0
    inside = rolled(
        Shape(Aggregation.TIME_WEIGHTED), [event(3, amount=7, event_time_us=NOON_US + SECOND_US)]
    )
    assert quantity(meter, inside, WINDOW, level_at(levels, NOON_US)) == 3 + 7 * 59


def test_seconds_keep_every_digit() -> None:
    """A century of the largest level is exact to the microsecond."""
    area = AMOUNT_MAX * 100 * 366 * 86_400 * SECOND_US + 1
    assert str(in_seconds(area)) == f"{area // SECOND_US}.000001"


def test_only_some_meters_have_a_shape() -> None:
    """What every meter's rollups say has none; which percentile is asked for makes no other."""
    assert shape_of(Meter(MeterName("m"))) is None
    assert shape_of(Meter(MeterName("m"), Aggregation.MAX)) is None
    grouped = shape_of(Meter(MeterName("m"), group_by=("region", "path", "none")))
    assert grouped is not None
    odd = event(1, dimensions={"region": ""}, context=EventContext(region="eu"))
    assert group_of(grouped, event(1)) == ("eu-1", "/ü", "")
    assert group_of(grouped, odd) == ("", "", "")
    one, other = (
        shape_of(Meter(MeterName("m"), Aggregation.PERCENTILE, percentile_ppm=ppm))
        for ppm in (1, 2)
    )
    assert one == other
