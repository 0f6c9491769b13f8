"""What a naive rater takes usage to be: each event looked at, as the page on meters says.

Owns nothing of the product but the names of aggregations, and no rule of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tallygate.domain.catalog import Aggregation, Meter


@dataclass(frozen=True)
class Use:
    """One event; one below nothing takes from the event `refund_of`, at the same time."""

    at_us: int
    meter: str
    amount: int
    dimensions: tuple[tuple[str, str], ...] = ()
    name: str = ""
    refund_of: str = ""


def measure(meter: Meter, uses: Sequence[Use], start: int, end: int) -> Fraction:
    """Return what events come to from `start` to `end`; earlier ones may have set a level."""
    here = [use for use in uses if start <= use.at_us < end]
    own = [use.amount for use in here if use.amount > 0]
    match meter.aggregation:
        case Aggregation.COUNT:
            return Fraction(len(own))
        case Aggregation.SUM:
            return Fraction(sum(use.amount for use in here))
        case Aggregation.MAX:
            return Fraction(max(own, default=0))
        case Aggregation.MIN:
            return Fraction(min(own, default=0))
        case Aggregation.LATEST:
            last = sorted((use.at_us, use.name, use.amount) for use in here if use.amount > 0)
            return Fraction(last[-1][2] if last else 0)
        case Aggregation.UNIQUE:
            values = {dict(use.dimensions).get(meter.unique_by, "") for use in here} - {""}
            return Fraction(sum(net(meter.unique_by, value, here) > 0 for value in values))
        case Aggregation.PERCENTILE:
            # Amounts below 128 are exact.
            rank = -(-len(own) * meter.percentile_ppm // 1_000_000)
            return Fraction(sorted(own)[max(rank, 1) - 1] if own else 0)
        case _:
            every = {series(meter, use) for use in uses}
            found = (
                held([use for use in uses if series(meter, use) == each], start, end)
                for each in every
            )
            return sum(found, Fraction(0)) / 1_000_000


def net(name: str, value: str, uses: Sequence[Use]) -> int:
    """Return how much of what a value used was not taken back."""
    return sum(use.amount for use in uses if dict(use.dimensions).get(name, "") == value)


def series(meter: Meter, use: Use) -> tuple[str, ...]:
    """Return which of the meter's levels an event sets."""
    return tuple(dict(use.dimensions).get(name, "") for name in meter.group_by)


def held(uses: Sequence[Use], start: int, end: int) -> Fraction:
    """Return each level that was set times the microseconds that it held."""
    found = Fraction(0)
    levels = sorted(
        (use.at_us, use.name, use.amount + sum(r.amount for r in uses if r.refund_of == use.name))
        for use in uses
        if use.amount > 0
    )
    for place, (at, _, level) in enumerate(levels):
        until = levels[place + 1][0] if place + 1 < len(levels) else end
        found += level * max(0, min(until, end) - max(at, start))
    return found
