"""Periods that are kept come before the calendar, and all of them together partition time."""

from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.period import following, period_at
from tallygate.domain.period_chain import Chain
from tallygate.domain.window import (
    DAY_US,
    MINUTE_US,
    NO_END_US,
    Billing,
    BillingKind,
    Calendar,
    Window,
)
from tests.usage_events import NOON_US

CALENDARS = [
    Calendar(),
    Calendar("Europe/Berlin", NOON_US - NOON_US % MINUTE_US),
    Calendar("UTC", NOON_US - 3 * DAY_US, billing=Billing(BillingKind.EVERY, every_us=7 * DAY_US)),
    Calendar(
        "UTC",
        billing=Billing(
            BillingKind.STARTS, starts_us=(NOON_US - 90 * DAY_US, NOON_US, NOON_US + 40 * DAY_US)
        ),
    ),
]


def test_without_any_it_is_the_calendar() -> None:
    """Nothing is kept of a tenant that was never looked at."""
    for calendar in CALENDARS:
        assert Chain(calendar).at(NOON_US) == period_at(calendar, NOON_US)


def test_what_is_kept_stands() -> None:
    """A calendar that changed changes no period that is kept; the next one is what is left."""
    kept = Window(NOON_US, NOON_US + 10 * DAY_US)
    for calendar in CALENDARS:
        chain = Chain(calendar, (kept,))
        assert chain.at(NOON_US + DAY_US) == kept
        assert chain.at(kept.end_us) == following(calendar, kept.end_us)
        assert chain.before(chain.at(kept.end_us)) == kept
        assert chain.before(kept).end_us == kept.start_us


@given(
    calendar=st.sampled_from(CALENDARS),
    lengths=st.lists(st.integers(1, 60), max_size=4),
    days=st.integers(-60, 200),
)
def test_a_chain_partitions_time(calendar: Calendar, lengths: list[int], days: int) -> None:
    """Whatever is kept, each instant is in one period, and those beside it adjoin."""
    at_us, kept = NOON_US, list[Window]()
    for length in lengths:
        kept.append(Window(at_us, at_us + length * DAY_US))
        at_us += length * DAY_US
    chain = Chain(calendar, tuple(kept))
    found = chain.at(NOON_US + days * DAY_US)
    assert found.holds(NOON_US + days * DAY_US)
    assert chain.at(found.start_us) == found == chain.at(found.end_us - 1)
    assert chain.before(found).end_us == found.start_us
    assert found.end_us == NO_END_US or chain.at(found.end_us).start_us == found.end_us
