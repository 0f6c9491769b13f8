"""Dated rates of exchange.

Guarantees: a rate without faults can be stored and counted with exactly.
Refuses to know: where rates come from.

A rate holds from its instant on until the next one's. It is what is written: none is turned round,
or put together over a third currency, as that would have to be rounded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tallygate.domain.currency import CURRENCIES
from tallygate.domain.money import DECIMALS_MAX
from tallygate.domain.path_fault import PathFault, closest

RATE_END: Final = Decimal(10**12)
SOURCE_LENGTH_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class ExchangeRate:
    """What one of `base` is worth in `quote` from an instant on, and who says so."""

    base: str
    quote: str
    from_us: int
    rate: Decimal
    source: str


def rate_faults(rate: ExchangeRate, path: str = "rate") -> Iterator[PathFault]:
    """Iterate over the faults of a rate."""
    for name, currency in (("base", rate.base), ("quote", rate.quote)):
        if currency not in CURRENCIES:
            message = f"{currency!r} is not an ISO 4217 code"
            yield PathFault(f"{path}.{name}", message, closest(currency.upper(), CURRENCIES))
    if rate.base == rate.quote:
        yield PathFault(f"{path}.quote", "is the base itself")
    exponent = rate.rate.as_tuple().exponent
    if not rate.rate.is_finite() or not 0 < rate.rate < RATE_END:
        yield PathFault(f"{path}.rate", f"must be above 0 and below {RATE_END}")
    elif isinstance(exponent, int) and -exponent > DECIMALS_MAX:
        yield PathFault(f"{path}.rate", f"must have at most {DECIMALS_MAX} decimals")
    if not rate.source or len(rate.source) > SOURCE_LENGTH_MAX or not rate.source.isprintable():
        yield PathFault(f"{path}.source", f"must be 1 to {SOURCE_LENGTH_MAX} printable characters")
