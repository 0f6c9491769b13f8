"""Prices: what a plan asks for usage and for time, as the catalog declares it.

Guarantees: amounts are `Decimal`, exact as written; a `Price` means the same to everyone who rates.
Refuses to know: usage, rates of exchange, and how amounts are worked out.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, NewType

from tallygate.domain.ids import LimitId, MeterName

PriceId = NewType("PriceId", str)

ZERO: Final = Decimal(0)
NO_METER: Final = MeterName("")
NO_LIMIT: Final = LimitId("")


class PriceModel(StrEnum):
    """How a quantity becomes an amount."""

    FLAT = "flat"
    PER_UNIT = "per_unit"
    PACKAGE = "package"
    GRADUATED = "graduated"
    VOLUME = "volume"
    PERCENTAGE = "percentage"


class Rounding(StrEnum):
    """How an amount becomes one that a currency has coins for. `up` is away from zero."""

    HALF_EVEN = "half_even"
    HALF_UP = "half_up"
    UP = "up"
    DOWN = "down"


class RoundPer(StrEnum):
    """What is rounded: a line once, or each of its tiers by itself."""

    LINE = "line"
    TIER = "tier"


class Pay(StrEnum):
    """When a fee is asked for: with its period's usage, or a period ahead."""

    ARREARS = "arrears"
    ADVANCE = "advance"


class ExchangeAt(StrEnum):
    """Whose day's rate of exchange counts."""

    PERIOD_END = "period_end"
    PERIOD_START = "period_start"


@dataclass(frozen=True, slots=True)
class Tier:
    """The units above the tier before, up to and with `up_to`; None is without end.

    `flat` is asked for once a unit lies in it, beside `amount` for each unit.
    """

    up_to: int | None
    amount: Decimal = ZERO
    flat: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class DiscountStep:
    """So many percent off all of it, once it reaches `start`: units of a price, money of a plan."""

    start: Decimal
    percent: Decimal


@dataclass(frozen=True, slots=True)
class Price:
    """One price of a plan.

    `amount` is asked for per period (flat), per unit, or per package of `size` units; tiers have
    their own. `percent` is of an amount meter, which counts the currency's smallest unit. Amounts
    are in `currency` (empty for the plan's), or `in_credits`.

    `included` units are free, or those of the limit `above`. Where `per` names a dimension, each of
    its values is rated by itself; `where` keeps the price to usage with one of the values given.
    `rounding` None is the plan's. With `prorate`, a part of a period has that part of the fee, the
    included units, the tiers and the minimum.
    """

    price_id: PriceId
    model: PriceModel
    meter: MeterName = NO_METER
    amount: Decimal = ZERO
    in_credits: bool = False
    size: int = 1
    percent: Decimal = ZERO
    tiers: tuple[Tier, ...] = ()
    included: int = 0
    above: LimitId = NO_LIMIT
    minimum: Decimal = ZERO
    discount: tuple[DiscountStep, ...] = ()
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    per: str = ""
    currency: str = ""
    rounding: Rounding | None = None
    round_per: RoundPer = RoundPer.LINE
    pay: Pay = Pay.ARREARS
    prorate: bool = True
    description: str = ""


@dataclass(frozen=True, slots=True)
class CreditTerms:
    """What a credit costs in the plan's currency, and the balance whose grants pay before."""

    price: Decimal
    balance: LimitId = NO_LIMIT


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all prices of a plan. `minimum` is what a period costs at least."""

    currency: str = "USD"
    minimum: Decimal = ZERO
    discount: tuple[DiscountStep, ...] = ()
    credit: CreditTerms | None = None
    exchange_at: ExchangeAt = ExchangeAt.PERIOD_END
    rounding: Rounding = Rounding.HALF_EVEN


TERMS: Final = Terms()
"""The terms of a plan that states none."""
