"""Periods of a tenant with usage that comes late, and what a naive rater bills when.

Owns nothing of the product but declarations: a closed period is rated again, with all usage that
belongs to it by then, and costs what it costs more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final

from hypothesis import strategies as st

from tallygate.domain.event import NO_CONTEXT, UsageEvent
from tallygate.domain.ids import EventId, MeterName
from tallygate.domain.window import Window, from_datetime
from tests.rating.naive import NaiveGrant, Story, total_due
from tests.rating.naive_usage import Use
from tests.rating.test_differential import METERS, grants, own_uses, plans
from tests.usage_events import event

START_US: Final = from_datetime(datetime(2026, 1, 1, tzinfo=UTC)) + 1
LENGTH_US: Final = 2_678_400_000_007
CURRENCIES: Final = ("USD", "EUR", "JPY", "KWD")
PERIODS: Final = tuple(
    Window(START_US + n * LENGTH_US, START_US + (n + 1) * LENGTH_US) for n in range(3)
)
WHOLE: Final = Window(PERIODS[0].start_us, PERIODS[-1].end_us)


@dataclass(frozen=True)
class Arrival:
    """A use, and the place of the period that it belongs to: its own, or one after it."""

    use: Use
    own: int
    billed: int


@dataclass
class Chain:
    """What happened to a tenant in a few periods, each as long as the others."""

    story: Story
    arrivals: Sequence[Arrival]
    granted: dict[int, Fraction] = field(default_factory=dict)

    def of(self, place: int, by: int) -> Story:
        """Return a period's story with the uses that belong to periods up to one."""
        window = PERIODS[place]
        uses = [each.use for each in self.arrivals if each.own <= place and each.billed <= by]
        return replace(
            self.story,
            start_us=window.start_us,
            end_us=window.end_us,
            plans=[(at, plan) for at, plan in self.story.plans if at <= window.end_us],
            uses=uses,
        )


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """Return three periods with plans, rates, grants, and usage of which some comes late."""
    books = [draw(plans(f"plan-{place}")) for place in range(draw(st.integers(1, 2)))]
    instants = st.integers(0, 24).map(lambda part: WHOLE.start_us + 3 * LENGTH_US * part // 24)
    changes = {at: draw(st.sampled_from(books)) for at in draw(st.lists(instants, max_size=3))}
    changes[WHOLE.start_us - 1] = books[0]
    rates = {
        (currency, WHOLE.start_us + n * LENGTH_US): Fraction(draw(st.integers(1, 9_000)), 1_000)
        for currency in CURRENCIES
        for n in range(-1, 4)
    }
    arrivals: list[Arrival] = []
    for own, window in enumerate(PERIODS):
        for number, use in enumerate(draw(st.lists(own_uses(window), max_size=6))):
            at_us = max(use.at_us, window.start_us)
            named = replace(use, at_us=at_us, name=f"e{own}{number}")
            named = replace(named, refund_of="gone" if use.amount < 0 else "")
            arrivals.append(Arrival(named, own, draw(st.integers(own, 2))))
    story = Story(
        start_us=WHOLE.start_us,
        end_us=WHOLE.end_us,
        currency=draw(st.sampled_from(CURRENCIES)),
        plans=sorted(changes.items(), key=lambda change: change[0]),
        uses=(),
        meters=METERS,
        grants=[draw(grants(seq, WHOLE)) for seq in range(1, draw(st.integers(1, 4)))],
        rates=rates,
    )
    return Chain(story, arrivals, {each.seq: each.left for each in story.grants})


def naive(chain: Chain) -> list[Fraction]:
    """Return what each invoice is to come to: closed periods rated again, less what they were."""
    due: dict[int, Fraction] = {}
    burned: dict[int, dict[int, Fraction]] = {}

    def rated(place: int, by: int) -> Fraction:
        """Return by how much a period is another, with the credits that no other has burned."""
        others = [each for of, each in burned.items() if of != place]
        story = chain.of(place, by)
        before = {
            seq: units - sum((each.get(seq, Fraction(0)) for each in others), Fraction(0))
            for seq, units in chain.granted.items()
        }
        story.grants = [_of(each, before[each.seq]) for each in chain.story.grants]
        now = total_due(story)
        change = now - due.get(place, Fraction(0))
        due[place] = now
        burned[place] = {each.seq: before[each.seq] - each.left for each in story.grants}
        return change

    found: list[Fraction] = []
    for place in range(len(PERIODS)):
        late = {each.own for each in chain.arrivals if each.billed == place and each.own < place}
        # A level lasts: from the first of them on, all periods may be others.
        closed = range(min(late), place) if late else ()
        found.append(sum((rated(each, place) for each in closed), Fraction(0)))
        found[-1] += rated(place, place)
    return found


def _of(grant: NaiveGrant, left: Fraction) -> NaiveGrant:
    return replace(grant, left=left)


def in_decimals(rate: Fraction) -> Decimal:
    """Return a rate as it is written."""
    return Decimal(rate.numerator) / Decimal(rate.denominator)


def stored(number: int, use: Use) -> UsageEvent:
    """Return a use as a ledger stores it."""
    return event(
        number,
        event_id=EventId(use.name),
        event_time_us=use.at_us,
        meter=MeterName(use.meter),
        amount=use.amount,
        dimensions=dict(use.dimensions),
        context=NO_CONTEXT,
        refund_of=EventId(use.refund_of),
    )
