"""What a quantity costs by a price, line by line.

Guarantees: exact decimals; each line is rounded once, half away from zero, to the smallest unit;
usage that is negative over a period costs nothing.
Refuses to know: whose usage it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import NamedTuple

from .tables import Json


class Part(NamedTuple):
    """One line: so many, at so much each, make so much."""

    quantity: Decimal
    unit_amount: Decimal
    amount: int


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier, up to and with a quantity; the last is without end."""

    up_to: int | None
    unit_amount: Decimal
    flat_amount: Decimal

    def render(self) -> Json:
        """Return it as the v1 API does."""
        return {
            "flat_amount": _whole(self.flat_amount),
            "flat_amount_decimal": plain(self.flat_amount),
            "unit_amount": _whole(self.unit_amount),
            "unit_amount_decimal": plain(self.unit_amount),
            "up_to": self.up_to,
        }


@dataclass(slots=True)
class Price:
    """What something costs."""

    id: str
    product: str
    currency: str
    created: int
    livemode: bool
    unit_amount: Decimal | None = None
    tiers: tuple[Tier, ...] = ()
    tiers_mode: str | None = None
    divide_by: int | None = None
    round: str = "up"
    # None for what is sold once.
    interval: str | None = None
    interval_count: int = 1
    metered: bool = False
    meter: str | None = None
    active: bool = True
    nickname: str | None = None
    lookup_key: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def parts(self, quantity: Decimal) -> list[Part]:
        """Return what a quantity costs."""
        counted = max(quantity, Decimal(0))
        if self.divide_by is not None:
            rounding = ROUND_CEILING if self.round == "up" else ROUND_FLOOR
            counted = (counted / self.divide_by).to_integral_value(rounding)
        if self.unit_amount is not None:
            return [_part(counted, self.unit_amount)]
        if self.tiers_mode == "volume":
            tier = next(tier for tier in self.tiers if tier.up_to is None or counted <= tier.up_to)
            return list(_tier_parts(counted, tier))
        return list(self._graduated(counted))

    def amount(self, quantity: Decimal) -> int:
        """Return what a quantity costs in all."""
        return sum(part.amount for part in self.parts(quantity))

    def render(self) -> Json:
        """Return it as the v1 API does."""
        recurring = None
        if self.interval is not None:
            recurring = {
                "interval": self.interval,
                "interval_count": self.interval_count,
                "meter": self.meter,
                "trial_period_days": None,
                "usage_type": "metered" if self.metered else "licensed",
            }
        unit = self.unit_amount
        divided = {"divide_by": self.divide_by, "round": self.round} if self.divide_by else None
        return {
            "id": self.id,
            "object": "price",
            "active": self.active,
            "billing_scheme": "tiered" if self.tiers else "per_unit",
            "created": self.created,
            "currency": self.currency,
            "custom_unit_amount": None,
            "livemode": self.livemode,
            "lookup_key": self.lookup_key,
            "metadata": self.metadata,
            "nickname": self.nickname,
            "product": self.product,
            "recurring": recurring,
            "tax_behavior": "unspecified",
            "tiers_mode": self.tiers_mode,
            "transform_quantity": divided,
            "type": "one_time" if recurring is None else "recurring",
            "unit_amount": None if unit is None else _whole(unit),
            "unit_amount_decimal": None if unit is None else plain(unit),
        }

    def _graduated(self, quantity: Decimal) -> Iterator[Part]:
        below = 0
        for tier in self.tiers:
            upper = quantity if tier.up_to is None else min(quantity, Decimal(tier.up_to))
            # The first tier's line is there for no usage, too.
            if upper > below or below == 0:
                yield from _tier_parts(max(upper - below, Decimal(0)), tier)
            if tier.up_to is None or quantity <= tier.up_to:
                return
            below = tier.up_to


def _tier_parts(quantity: Decimal, tier: Tier) -> Iterator[Part]:
    yield _part(quantity, tier.unit_amount)
    if tier.flat_amount:
        yield _part(Decimal(1), tier.flat_amount)


def _part(quantity: Decimal, unit_amount: Decimal) -> Part:
    return Part(quantity, unit_amount, rounded(quantity * unit_amount))


def rounded(amount: Decimal) -> int:
    """Return an amount in whole smallest units, half away from zero."""
    return int(amount.to_integral_value(ROUND_HALF_UP))


def plain(number: Decimal) -> str:
    """Write a number without an exponent and without zeros at its end."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _whole(number: Decimal) -> int | None:
    return int(number) if number == number.to_integral_value() else None
