"""Sliding limits: at most so many units in any trailing time, counted in buckets.

Guarantees: what is counted is never less than an exact log of the trailing time holds, and never
more than a log of one bucket's width longer: the limit is never passed.
Refuses to know: other limits.

The estimate that weighs the window before by its overlap needs less room, but errs to both sides.
"""

from dataclasses import dataclass
from typing import Final

from tallygate.domain.decision import Charge, LimitReading, SlidingRule
from tallygate.domain.ids import AMOUNT_MAX
from tallygate.domain.verdict import Moment, gates, reading_of, state_of

# An error of 1/60 of the trailing time, for at most 61 numbers per counter.
BUCKETS: Final = 60


@dataclass(frozen=True, slots=True)
class Buckets:
    """Units by bucket number, rising; those with none are left out."""

    units: tuple[tuple[int, int], ...] = ()

    @property
    def total(self) -> int:
        """All units."""
        return sum(units for _, units in self.units)


@dataclass(frozen=True, slots=True)
class SlidingVerdict:
    """What `evaluate_sliding` found; `place` is the bucket that the charge falls into."""

    refuses: bool
    before: LimitReading
    after: LimitReading
    buckets: Buckets | None
    place: int
    amount: int
    retry_after_us: int | None
    overflow: bool


def sliding_rule(duration_us: int) -> SlidingRule:
    """Return the buckets that cover a trailing time."""
    return SlidingRule(-(-duration_us // BUCKETS), BUCKETS)


def evaluate_sliding(
    charge: Charge, rule: SlidingRule, stored: Buckets, moment: Moment
) -> SlidingVerdict:
    """Say what the charge does to the limit whose buckets are `stored`."""
    width = rule.width_us
    first = moment.now_us // width - rule.buckets
    live = Buckets(tuple(each for each in stored.units if each[0] >= first))
    place = moment.used_at_us // width
    amount = charge.amount if place >= first else 0
    used, would = live.total, live.total + amount
    over = would > charge.limit
    after = add(live, place, amount)
    return SlidingVerdict(
        refuses=over and amount > 0 and gates(charge, moment),
        before=_reading(charge, rule, live, over),
        after=_reading(charge, rule, after, over),
        buckets=after if amount > 0 else None,
        place=place,
        amount=amount,
        retry_after_us=_wait(charge, rule, live, used, moment.now_us),
        overflow=would > AMOUNT_MAX,
    )


def add(buckets: Buckets, place: int, units: int) -> Buckets:
    """Return the buckets with units added; a negative number takes away what is there."""
    found = dict(buckets.units)
    found[place] = max(0, found.get(place, 0) + units)
    return Buckets(tuple(sorted((place, units) for place, units in found.items() if units > 0)))


def _leaves_us(rule: SlidingRule, place: int) -> int:
    """Return when a bucket has left the trailing time."""
    return (place + rule.buckets + 1) * rule.width_us


def _reading(charge: Charge, rule: SlidingRule, buckets: Buckets, over: bool) -> LimitReading:
    resets_at_us = _leaves_us(rule, buckets.units[0][0]) if buckets.units else 0
    return reading_of(charge, state_of(charge, over), buckets.total, resets_at_us)


def _wait(charge: Charge, rule: SlidingRule, live: Buckets, used: int, now_us: int) -> int | None:
    if charge.amount > charge.limit:
        return None
    wait = 1
    for place, units in live.units:
        if used + charge.amount <= charge.limit:
            break
        used -= units
        wait = max(1, _leaves_us(rule, place) - now_us)
    return wait
