"""What one price asks for: each model's working, from a quantity to an amount in the price's unit.

Guarantees: the parts of a working add up to its amount; nothing is rounded here but packages and
a part of a period's units, which are whole.
Refuses to know: currencies' coins, other prices, and whose usage it is.

A quantity below nothing comes of refunds of earlier periods' usage. Where every unit costs the
same, with none included, it is given back; else nobody can say what those units cost, and nothing
is asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tallygate.domain.catalog import UNLIMITED
from tallygate.domain.currency import minor_units
from tallygate.domain.invoice import Part
from tallygate.domain.money import exactly, share, units_share
from tallygate.domain.price import ZERO, DiscountStep, Price, PriceModel, Tier

ONE: Final = Decimal(1)


@dataclass(frozen=True, slots=True)
class Stretch:
    """The part of a period that a price counts for, in microseconds of it and of all."""

    part_us: int
    whole_us: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What a price asks for in its own unit, and how that came about."""

    parts: tuple[Part, ...] = ()
    included: int = 0
    charged: Decimal = ZERO


@exactly
def fee(price: Price, of: Stretch) -> Asked:
    """Return what a flat price asks for that part of a period."""
    amount = share(price.amount, of.part_us, of.whole_us) if price.prorate else price.amount
    return Asked((Part(ONE, amount),), 0, amount)


@exactly
def for_usage(price: Price, quantity: Decimal, included: int, of: Stretch, currency: str) -> Asked:
    """Return what a price asks for usage in that part of a period.

    `included` is what a whole period includes; `currency` is that whose smallest unit the meter of
    a percentage counts.
    """
    free = included
    if price.prorate and included != UNLIMITED:
        free = units_share(included, of.part_us, of.whole_us)
    # What is unlimited has no end, where a sum goes on beyond the largest number for it.
    units = ZERO if included == UNLIMITED else max(ZERO, quantity - free)
    if quantity < 0:
        linear = price.model in (PriceModel.PER_UNIT, PriceModel.PERCENTAGE) and not included
        units = quantity if linear else ZERO
    parts = tuple(part for part in _parts(price, units, of, currency) if part.units or part.flat)
    return Asked(parts, free, sum((charge_of(part) for part in parts), ZERO))


@exactly
def charge_of(part: Part) -> Decimal:
    """Return what a step of a working comes to."""
    return part.units * part.each + part.flat


@exactly
def discount_percent(
    steps: Sequence[DiscountStep], reached: Decimal, of: Stretch, *, prorate: bool
) -> Decimal:
    """Return the percentage of the highest step that was reached; a part of a period has lower."""
    part, whole = (of.part_us, of.whole_us) if prorate else (1, 1)
    found = [step for step in steps if abs(reached) * whole >= step.start * part]
    return max(found, key=lambda step: step.start).percent if found else ZERO


def _parts(price: Price, units: Decimal, of: Stretch, currency: str) -> Iterator[Part]:
    match price.model:
        case PriceModel.PER_UNIT:
            yield Part(units, price.amount)
        case PriceModel.PACKAGE:
            packages = units // price.size
            yield Part(packages + 1 if units % price.size else packages, price.amount)
        case PriceModel.PERCENTAGE:
            yield Part(units, price.percent.scaleb(-2 - minor_units(currency)))
        case PriceModel.GRADUATED:
            below = ZERO
            for up_to, tier in _tiers(price, of):
                here = (units if up_to is None else min(units, Decimal(up_to))) - below
                if here > 0:
                    yield Part(here, tier.amount, tier.flat, up_to)
                    below += here
        case PriceModel.VOLUME:
            if units > 0:
                for up_to, tier in _tiers(price, of):
                    if up_to is None or units <= up_to:
                        yield Part(units, tier.amount, tier.flat, up_to)
                        return
        case PriceModel.FLAT:
            raise AssertionError("a fee is for no usage")


def _tiers(price: Price, of: Stretch) -> Iterator[tuple[int | None, Tier]]:
    """Iterate over the tiers with where they end in that part of a period."""
    for tier in price.tiers:
        up_to = tier.up_to
        if up_to is not None and price.prorate:
            up_to = units_share(up_to, of.part_us, of.whole_us)
        yield up_to, tier
