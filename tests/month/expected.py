"""What the month should come to, said event by event, without the product's flows.

Owns where each event belongs, what each invoice is, and what Stripe should have. Guarantees that
money is counted by the naive rater, and time by the script. Refuses to know the ledger.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Final

from tallygate.domain.billed import PLAIN
from tallygate.domain.catalog import Aggregation, LatePolicy, Meter, Plan
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.period import Group
from tallygate.domain.window import Window
from tests.month.cast import (
    BEGIN_US,
    CAST,
    CURRENCIES,
    END_US,
    HELD,
    METERS,
    PLANS,
    Member,
    grants,
    plans,
    rates,
)
from tests.month.script import MOVES, RAISED, REOPENED, Arrival, story, ticks
from tests.rating.naive import NaiveGrant, Story, in_decimal, total_due
from tests.rating.naive_usage import Use, measure

Key = tuple[TenantId, int]
"""A tenant, and when one of its periods starts."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An event in the ledger: when it came, the period of its time, the one that bills it."""

    name: EventId
    use: Use
    at_us: int
    start_us: int
    billed_us: int

    @property
    def moved(self) -> bool:
        """Whether another period bills it than that of its time."""
        return self.billed_us != self.start_us


@dataclass
class Life:
    """One tenant's month."""

    member: Member
    periods: tuple[Window, ...]
    sealed_us: dict[int, int]
    reopened: tuple[int, int, int] | None
    plans: list[tuple[int, Plan]]
    stored: list[Stored] = field(default_factory=list)

    def closed(self) -> list[Window]:
        """Return the periods that are closed by the end, oldest first."""
        return [each for each in self.periods if each.start_us in self.sealed_us]

    def period_of(self, at_us: int) -> Window:
        """Return the period that holds an instant."""
        return next(each for each in self.periods if each.holds(at_us))

    def revisions(self, start_us: int) -> int:
        """Return how often a period was sealed."""
        more = {
            each.at_us for each in self.stored if each.start_us == start_us and self._again(each)
        }
        opened = self.reopened is not None and self.reopened[0] == start_us
        return 1 + len(more) + opened

    def _again(self, each: Stored) -> bool:
        """Say whether an event makes another revision of its period, but for a reopening."""
        return (
            not each.moved
            and self.sealed(each.start_us, each.at_us)
            and not self.open_again(each.start_us, each.at_us)
        )

    def sealed(self, start_us: int, at_us: int) -> bool:
        """Say whether a period was ever sealed before an instant's round."""
        return self.sealed_us.get(start_us, at_us) < at_us

    def open_again(self, start_us: int, at_us: int) -> bool:
        """Say whether a period is open again then."""
        if self.reopened is None:
            return False
        start, from_us, until_us = self.reopened
        return start == start_us and from_us <= at_us <= until_us

    def place(self, meter: str, event_us: int, at_us: int) -> tuple[int, int]:
        """Return the start of an event's own period, and of the one that bills it."""
        own = self.period_of(event_us).start_us
        if not self.sealed(own, at_us) or self.open_again(own, at_us):
            return own, own
        if METERS[meter].late_policy is LatePolicy.CORRECT:
            return own, own
        return own, next(e.start_us for e in self.periods if not self.sealed(e.start_us, at_us))

    def uses(self, period: Window, by_us: int) -> list[Use]:
        """Return a period's usage as periods up to one have billed it, and levels of before."""
        known = [each for each in self.stored if each.billed_us <= by_us]
        return [e.use for e in known if e.start_us == period.start_us or _lasts(e, period)]

    def own(self, meter: MeterName, group: Group, period: Window) -> list[Use]:
        """Return a period's own usage of a meter, or of a group of it, and levels of before."""
        return [
            each.use
            for each in self.stored
            if each.use.meter == meter
            and each.billed_us <= period.start_us
            and (each.start_us == period.start_us or _lasts(each, period))
            and {*group} <= {*each.use.dimensions}
        ]

    def due(self, period: Window, by_us: int, grants: list[NaiveGrant]) -> Fraction:
        """Return what a period comes to with what is billed up to one, and burn credits."""
        currency, uses = self.member.tenant.currency, self.uses(period, by_us)
        place = self.periods.index(period)
        before_us = self.periods[place - 1].start_us if place else BEFORE_US
        length_us = period.end_us - period.start_us
        asked = {
            period.start_us - length_us: before_us,
            period.start_us: period.start_us,
            period.end_us: period.end_us,
        }
        worth = {
            (base, at): rate_at(base, currency, of)
            for base in CURRENCIES
            if base != currency
            for at, of in asked.items()
        }
        return total_due(
            Story(
                *(period.start_us, period.end_us, currency, self.plans, uses, dict(METERS)),
                grants=grants,
                rates=worth,
            )
        )

    def invoices(self) -> dict[int, Decimal]:
        """Return each closed period's total: what came late of others, then what is its own.

        A level lasts: from the first period on of which some came late, all may be others.
        """
        books = Books(granted_to(self.member.name))
        closed = self.closed()
        found: dict[int, Decimal] = {}
        for place, period in enumerate(closed):
            late = [e.start_us for e in self.stored if e.moved and e.billed_us == period.start_us]
            again = [each for each in closed[:place] if late and each.start_us >= min(late)]
            due = Fraction(0)
            for each in (*again, period):
                now = self.due(each, period.start_us, books.opened(each.start_us))
                due += now - books.due.get(each.start_us, Fraction(0))
                books.due[each.start_us] = now
                books.closed(each.start_us)
            found[period.start_us] = in_decimal(due, self.member.tenant.currency)
        return found

    def all_due(self) -> Decimal:
        """Return what all periods come to, each with all of its usage that was billed."""
        closed = self.closed()
        due = sum((self.due(each, closed[-1].start_us, []) for each in closed), Fraction(0))
        return in_decimal(due, self.member.tenant.currency)

    def quantity(self, meter: MeterName, period: Window) -> int:
        """Return the units of a meter that adds up that a period bills, late ones too."""
        counts = METERS[meter].aggregation is Aggregation.COUNT
        billed = [e.use for e in self.stored if e.billed_us == period.start_us]
        return sum(
            (use.amount > 0) if counts else use.amount for use in billed if use.meter == meter
        )

    def moved(self, meter: str, period: Window) -> Fraction:
        """Return by how much less a period bills of a meter than was used in its time."""
        of = METERS[meter]
        if of.aggregation not in PLAIN:
            of = Meter(of.name)
        mine = [e for e in self.stored if e.use.meter == meter and e.start_us == period.start_us]
        span = (period.start_us, period.end_us)
        all_of_it = measure(of, [each.use for each in mine], *span)
        return all_of_it - measure(of, [each.use for each in mine if not each.moved], *span)

    def carried(self, meter: str, period: Window) -> int:
        """Return how many units of other periods a period tells Stripe."""
        of = METERS[meter]
        if of.stripe is None or not self.member.tenant.stripe_customer_id:
            return 0
        own = [e for e in self.stored if e.start_us == e.billed_us == period.start_us]
        counts = of.aggregation is Aggregation.COUNT
        mine = [each.use.amount for each in own if each.use.meter == meter]
        units = sum((amount > 0) if counts else amount for amount in mine)
        return self.quantity(of.name, period) - units


def _lasts(stored: Stored, period: Window) -> bool:
    """Say whether an event may have set a level that a period begins with."""
    return stored.use.meter == HELD and stored.start_us < period.start_us


@dataclass
class Books:
    """What periods have come to by now, and how much each has burned of which grant."""

    grants: Sequence[NaiveGrant]
    due: dict[int, Fraction] = field(default_factory=dict)
    burned: dict[int, dict[int, Fraction]] = field(default_factory=dict)
    open: list[NaiveGrant] = field(default_factory=list)
    left: dict[int, Fraction] = field(default_factory=dict)

    def opened(self, start_us: int) -> list[NaiveGrant]:
        """Return what other periods have left of the grants."""
        others = [units for start, units in self.burned.items() if start != start_us]
        self.open = [
            replace(each, left=each.left - sum(units.get(each.seq, 0) for units in others))
            for each in self.grants
        ]
        self.left = {each.seq: each.left for each in self.open}
        return self.open

    def closed(self, start_us: int) -> None:
        """Note what was burned of them."""
        self.burned[start_us] = {each.seq: self.left[each.seq] - each.left for each in self.open}


def granted_to(tenant_id: TenantId) -> list[NaiveGrant]:
    """Return a tenant's prepaid credits, by number."""
    mine = [each for each in grants() if each.tenant_id == tenant_id]
    return [
        NaiveGrant(*(each.priority, each.expires_us, seq, each.starts_us, Fraction(each.amount)))
        for seq, each in enumerate(mine, 1)
    ]


# The rates of a first period's predecessor are those of the table's beginning.
BEFORE_US: Final = BEGIN_US - 20 * 86_400_000_000


def rate_at(base: str, quote: str, at_us: int) -> Fraction:
    """Return the newest rate of the table at an instant."""
    known = [each for each in rates() if (each.base, each.quote) == (base, quote)]
    return Fraction([each.rate for each in known if each.from_us <= at_us][-1])


def lives(seed: int) -> Mapping[TenantId, Life]:
    """Return what becomes of everybody."""
    found = {each.name: _life(each) for each in CAST}
    rounds = ticks()
    for arrival in story(seed):
        at_us = rounds[bisect_left(rounds, arrival.at_us)]
        life = found[arrival.event.tenant_id]
        used = arrival.event
        places = life.place(used.meter, used.event_time_us, at_us)
        life.stored.append(Stored(used.event_id, _use(arrival), at_us, *places))
    return found


def _use(arrival: Arrival) -> Use:
    used = arrival.event
    dimensions = tuple(sorted(used.dimensions.items()))
    return Use(
        used.event_time_us, used.meter, used.amount, dimensions, used.event_id, used.refund_of
    )


def _life(member: Member) -> Life:
    rounds = ticks()
    periods = member.periods()
    sealed = {
        each.start_us: rounds[bisect_left(rounds, each.end_us + member.grace_us)]
        for each in periods
        if each.end_us + member.grace_us <= END_US
    }
    reopened = None
    if member.number in REOPENED:
        from_us = REOPENED[member.number]
        march = next(e for e in periods if e.holds(REOPENED_OF_US))
        until_us = rounds[bisect_left(rounds, from_us + member.grace_us)]
        reopened = (march.start_us, from_us, until_us)
    return Life(member, periods, sealed, reopened, _plans(member))


REOPENED_OF_US: Final = BEGIN_US + 24 * 86_400_000_000


def _plans(member: Member) -> list[tuple[int, Plan]]:
    """Return which plan a tenant had from when on, each with its prices of then."""
    named = [(BEGIN_US, member.tenant.plan)]
    named += [(e.at_us, e.plan) for e in MOVES if e.tenant_id == member.name and e.plan]
    raised_us = next(each.at_us for each in MOVES if each.tenant_id is None)
    found = [(at, (plans(RAISED) if at >= raised_us else PLANS)[name]) for at, name in named]
    held = [name for at, name in named if at <= raised_us][-1]
    found.append((raised_us, plans(RAISED)[held]))
    return sorted(found, key=lambda each: each[0])
