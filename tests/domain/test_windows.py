"""Windows of every kind: where they begin and end, and what a session is."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.errors import InvalidField
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName
from tallygate.domain.window import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    Calendar,
    Window,
    from_datetime,
)
from tallygate.domain.windows import (
    Session,
    SessionsOf,
    Sliding,
    checked_sliding,
    sliding,
    tumbling,
)
from tests.usage_events import NOON_US, event

METER = Meter(MeterName("requests"))
BERLIN = Calendar("Europe/Berlin", from_datetime(datetime(2024, 1, 30, 23, tzinfo=UTC)))


@pytest.mark.parametrize("by", ["total", "minute", "hour", "day", "period"])
@given(start=st.integers(0, 10**6), minutes=st.integers(1, 5_000))
def test_tumbling_windows_cover_all_once(by: str, start: int, minutes: int) -> None:
    """They adjoin from the start of what was asked for to its end."""
    whole = Window(start * MINUTE_US, (start + minutes) * MINUTE_US)
    found = list(tumbling(by, BERLIN, whole))
    assert (found[0].start_us, found[-1].end_us) == (whole.start_us, whole.end_us)
    assert all(one.end_us == other.start_us for one, other in pairwise(found))


def test_periods_are_the_tenants_own() -> None:
    """From its anchor's day, at midnight in its zone, in summer too."""
    first, last = (from_datetime(datetime(2026, month, 1, tzinfo=UTC)) for month in (3, 6))
    found = list(tumbling("period", BERLIN, Window(first, last)))
    ends = [datetime.fromtimestamp(each.end_us / 1e6, UTC) for each in found]
    assert [(each.month, each.day, each.hour) for each in ends] == [
        (3, 30, 22),
        (4, 29, 22),
        (5, 30, 22),
        (6, 1, 0),
    ]


def test_sliding_windows_lie_inside() -> None:
    """Each begins a step after the one before; none goes beyond what was asked for."""
    whole = Window(0, HOUR_US)
    found = list(sliding(Sliding(30 * MINUTE_US, 20 * MINUTE_US), whole))
    assert [each.start_us // MINUTE_US for each in found] == [0, 20]
    assert list(sliding(Sliding(2 * HOUR_US, MINUTE_US), whole)) == []


@pytest.mark.parametrize(
    ("length_us", "step_us", "field"),
    [(0, MINUTE_US, "sliding"), (SECOND_US, MINUTE_US, "sliding"), (MINUTE_US, 1, "step")],
)
def test_sliding_windows_are_whole_minutes(length_us: int, step_us: int, field: str) -> None:
    """Others would not be made of rollups."""
    with pytest.raises(InvalidField) as raised:
        checked_sliding(Sliding(length_us, step_us))
    assert raised.value.field == field


def sessions(events: Sequence[UsageEvent], gap_us: int, *names: str) -> list[Session]:
    """Return the sessions of events that come two by two."""
    finding = SessionsOf(METER, gap_us, names)
    found = [
        session for n in range(0, len(events), 2) for session in finding.add(events[n : n + 2])
    ]
    return [*found, *finding.rest()]


def test_a_gap_ends_a_session() -> None:
    """An event exactly a gap after the one before is in its session, one later is not."""
    times = (0, 10, 20, 31, 90)
    events = [event(n, amount=2**n, event_time_us=NOON_US + at) for n, at in enumerate(times)]
    found = sessions(events, 10)
    assert [(each.window.start_us - NOON_US, each.quantity, each.count) for each in found] == [
        (0, 7, 3),
        (31, 8, 1),
        (90, 16, 1),
    ]
    assert found[0].window.end_us == NOON_US + 30


def test_groups_have_sessions_of_their_own() -> None:
    """What one does keeps no other's session open."""
    users = ("a", "b", "a", "b")
    events = [
        event(n, event_time_us=NOON_US + 10 * n, dimensions={"user": user})
        for n, user in enumerate(users)
    ]
    assert len(sessions(events, 10)) == 1
    assert (
        sorted(each.group for each in sessions(events, 10, "user")) == [("a",)] * 2 + [("b",)] * 2
    )


def test_a_refund_is_in_its_events_session() -> None:
    """It takes from the sum, and is no event of its own."""
    refund = event(2, amount=-3, refund_of=EventId("event-1"))
    (found,) = sessions([event(1, amount=5), refund], 10)
    assert (found.quantity, found.count) == (2, 1)


def test_a_session_is_by_its_meters_aggregation() -> None:
    """As any other window is."""
    meter = Meter(METER.name, Aggregation.MAX)
    finding = SessionsOf(meter, DAY_US)
    assert list(finding.add([event(1, amount=5), event(2, amount=9)])) == []
    assert [each.quantity for each in finding.rest()] == [9]
    assert list(finding.rest()) == []
