"""Money: the one decimal context, the shares of a period, and rounding to a currency's coins.

Guarantees: `rounded` is what exact arithmetic on fractions would give, ties included; a float that
strays in raises.
Refuses to know: prices.

Sums and products of what a catalog holds are exact in the context's digits. A share of a period may
be no finite decimal; it is then cut after some 150 digits, and what is made of it is off by less
than 10^-100. Everything here is a fraction whose denominator is a period in microseconds (below
10^15) times a power of ten (amounts, percentages and rates have at most 12 decimals each, so below
10^60): it is a tie of a rounding, or further than 10^-80 from one. `rounded` first rounds to
`SNAP`, which lies between the two, and so takes what was cut back to the tie that it came from.
"""

from collections.abc import Callable, Iterable
from decimal import (
    ROUND_DOWN,
    ROUND_HALF_EVEN,
    ROUND_HALF_UP,
    ROUND_UP,
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    InvalidOperation,
    Overflow,
    localcontext,
)
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from tallygate.domain.currency import minor_units
from tallygate.domain.price import ZERO, Rounding

DECIMALS_MAX: Final = 12
"""The most decimals of an amount, a percentage or a rate of exchange."""

SNAP: Final = Decimal(1).scaleb(-90)
# What people and documents are shown of an amount before rounding.
SHOWN: Final = Decimal(1).scaleb(-18)

CONTEXT: Final = Context(
    prec=200,
    rounding=ROUND_HALF_EVEN,
    traps=[InvalidOperation, DivisionByZero, Overflow, FloatOperation],
)

_ROUNDINGS: Final = {
    Rounding.HALF_EVEN: ROUND_HALF_EVEN,
    Rounding.HALF_UP: ROUND_HALF_UP,
    Rounding.UP: ROUND_UP,
    Rounding.DOWN: ROUND_DOWN,
}

Taken = ParamSpec("Taken")
Given = TypeVar("Given")


def exactly(function: Callable[Taken, Given]) -> Callable[Taken, Given]:
    """Have a function count in the context of money, whatever its caller counts in."""

    @wraps(function)
    def within(*args: Taken.args, **kwargs: Taken.kwargs) -> Given:
        with localcontext(CONTEXT):
            return function(*args, **kwargs)

    return within


@exactly
def rounded(amount: Decimal, currency: str, rounding: Rounding) -> Decimal:
    """Return the amount in coins of the currency."""
    coin = Decimal(1).scaleb(-minor_units(currency))
    whole = amount.quantize(SNAP, ROUND_HALF_EVEN).quantize(coin, _ROUNDINGS[rounding])
    # There is no amount below nothing that is nothing.
    return whole if whole else abs(whole)


@exactly
def shown(amount: Decimal) -> Decimal:
    """Return an amount that was not rounded to at most 18 decimals, without zeros at its end."""
    cut = amount.quantize(SNAP, ROUND_HALF_EVEN).quantize(SHOWN, ROUND_HALF_EVEN)
    plain = cut.normalize()
    if plain.as_tuple().exponent > 0:  # type: ignore[operator]  # it is finite
        plain = plain.quantize(Decimal(1))
    return plain if plain else ZERO


@exactly
def share(amount: Decimal, part: int, whole: int) -> Decimal:
    """Return `part / whole` of an amount."""
    return amount if part == whole else amount * part / whole


def units_share(units: int, part: int, whole: int) -> int:
    """Return `part / whole` of so many units, in whole units; a part of a unit counts as one."""
    return -(-units * part // whole)


@exactly
def percent_of(amount: Decimal, percent: Decimal) -> Decimal:
    """Return so many percent of an amount."""
    return (amount * percent).scaleb(-2)


@exactly
def total(amounts: Iterable[Decimal]) -> Decimal:
    """Return the sum."""
    return sum(amounts, ZERO)
