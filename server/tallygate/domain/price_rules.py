"""What must hold of a plan's prices and of their terms.

Guarantees: prices without faults can be rated, and exactly; each fault says which field.
Refuses to know: documents, and what prices come to.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from tallygate.domain.catalog import Aggregation, Limit, LimitKind, Meter, OnExceed, Plan
from tallygate.domain.currency import CURRENCIES
from tallygate.domain.ids import AMOUNT_MAX, MeterName, is_name
from tallygate.domain.limit_rules import is_key, key_message, where_faults
from tallygate.domain.money import DECIMALS_MAX
from tallygate.domain.path_fault import PathFault, closest, unknown
from tallygate.domain.price import ZERO, DiscountStep, Pay, Price, PriceModel, RoundPer, Tier
from tallygate.domain.window import Period

PRICES_MAX: Final = 128
TIERS_MAX: Final = 64
STEPS_MAX: Final = 16
# Above any price there is; with what a meter can count it stays within money's context.
MONEY_MAX: Final = Decimal(10**15)
PERCENT_MAX: Final = Decimal(100)

_FLAT: Final = (PriceModel.FLAT,)
_USAGE: Final = tuple(model for model in PriceModel if model is not PriceModel.FLAT)
_TIERED: Final = (PriceModel.GRADUATED, PriceModel.VOLUME)
_PLAIN: Final = (PriceModel.FLAT, PriceModel.PER_UNIT, PriceModel.PACKAGE)

PRICE_SUITS: Final[Mapping[str, tuple[PriceModel, ...]]] = {
    "meter": _USAGE,
    "amount": _PLAIN,
    "credits": _PLAIN,
    "size": (PriceModel.PACKAGE,),
    "percent": (PriceModel.PERCENTAGE,),
    "tiers": _TIERED,
    "included": _USAGE,
    "above": _USAGE,
    "minimum": _USAGE,
    "where": _USAGE,
    "per": _USAGE,
    "round_per": _TIERED,
    "pay": _FLAT,
}
"""The models that each field is for; fields that are not named here are for all."""


def price_unsuited(field: str) -> str:
    """Return the message for a field that stands at a price of another model."""
    return f"is for prices of model {', '.join(PRICE_SUITS[field])}"


def prices_faults(plan: Plan, meters: Mapping[MeterName, Meter], path: str) -> Iterator[PathFault]:
    """Iterate over the faults of a plan's prices, and of the terms that they share."""
    seen: set[str] = set()
    for index, price in enumerate(plan.prices):
        at = f"{path}.prices[{index}]"
        if price.price_id in seen:
            yield PathFault(f"{at}.id", f"{price.price_id} is there twice in this plan")
        seen.add(price.price_id)
        yield from _price_faults(price, plan, meters, at)
    if len(plan.prices) > PRICES_MAX:
        yield PathFault(f"{path}.prices", f"holds more than {PRICES_MAX} prices")
    yield from _terms_faults(plan, f"{path}.terms")


def money_fault(amount: Decimal, path: str, most: Decimal = MONEY_MAX) -> Iterator[PathFault]:
    """Iterate over the fault of an amount, if it has one."""
    exponent = amount.as_tuple().exponent
    if not amount.is_finite() or not 0 <= amount <= most:
        yield PathFault(path, f"must be from 0 to {most}")
    elif isinstance(exponent, int) and -exponent > DECIMALS_MAX:
        yield PathFault(path, f"must have at most {DECIMALS_MAX} decimals")


def _price_faults(
    price: Price, plan: Plan, meters: Mapping[MeterName, Meter], path: str
) -> Iterator[PathFault]:
    if not is_name(price.price_id):
        yield PathFault(f"{path}.id", "is not a name: a-z, 0-9, '_', '.', '-'")
    yield from _suit_faults(price, path)
    if price.model is not PriceModel.FLAT:
        yield from _meter_faults(price, meters, path)
    at = "credits" if price.in_credits else "amount"
    yield from money_fault(price.amount, f"{path}.{at}")
    yield from money_fault(price.percent, f"{path}.percent", PERCENT_MAX)
    yield from money_fault(price.minimum, f"{path}.minimum")
    if price.model is PriceModel.PACKAGE and not 1 <= price.size <= AMOUNT_MAX:
        yield PathFault(f"{path}.size", f"must be from 1 to {AMOUNT_MAX}")
    if price.model in _TIERED:
        yield from _tiers_faults(price.tiers, f"{path}.tiers")
    if not 0 <= price.included <= AMOUNT_MAX:
        yield PathFault(f"{path}.included", f"must be from 0 to {AMOUNT_MAX}")
    yield from _discount_faults(price.discount, f"{path}.discount")
    if price.model is PriceModel.FLAT and any(step.start for step in price.discount):
        yield PathFault(f"{path}.discount", "of a fee has no `from`: there are no units")
    if price.per and not is_key(price.per):
        yield PathFault(f"{path}.per", key_message())
    yield from where_faults(price.where, path)
    if price.currency:
        yield from _currency_faults(price.currency, f"{path}.currency")
    yield from _credits_faults(price, plan, path)
    if price.above:
        yield from _above_faults(price, plan, meters, f"{path}.above")


def _suit_faults(price: Price, path: str) -> Iterator[PathFault]:
    given = {
        "meter": price.meter != "",
        "amount": price.amount != ZERO and not price.in_credits,
        "credits": price.amount != ZERO and price.in_credits,
        "size": price.size != 1,
        "percent": price.percent != ZERO,
        "tiers": bool(price.tiers),
        "included": price.included != 0,
        "above": price.above != "",
        "minimum": price.minimum != ZERO,
        "where": bool(price.where),
        "per": price.per != "",
        "round_per": price.round_per is not RoundPer.LINE,
        "pay": price.pay is not Pay.ARREARS,
    }
    for field, there in given.items():
        if there and price.model not in PRICE_SUITS[field]:
            yield PathFault(f"{path}.{field}", price_unsuited(field))


def _meter_faults(
    price: Price, meters: Mapping[MeterName, Meter], path: str
) -> Iterator[PathFault]:
    meter = meters.get(price.meter)
    if meter is None:
        yield unknown(f"{path}.meter", "meter", price.meter, meters)
    elif price.model is PriceModel.PERCENTAGE and meter.aggregation is not Aggregation.SUM:
        message = f"a percentage needs a meter that sums, {meter.name} takes the"
        yield PathFault(f"{path}.meter", f"{message} {meter.aggregation}")


def _tiers_faults(tiers: Sequence[Tier], path: str) -> Iterator[PathFault]:
    if not 1 <= len(tiers) <= TIERS_MAX:
        yield PathFault(path, f"must hold from 1 to {TIERS_MAX} tiers")
    below = 0
    for index, tier in enumerate(tiers):
        at = f"{path}[{index}]"
        yield from money_fault(tier.amount, f"{at}.amount")
        yield from money_fault(tier.flat, f"{at}.flat")
        last = index == len(tiers) - 1
        if tier.up_to is None:
            if not last:
                yield PathFault(f"{at}.up_to", "is required but of the last tier")
            continue
        if last:
            yield PathFault(f"{at}.up_to", "must be left out of the last tier: it has no end")
        if not below < tier.up_to <= AMOUNT_MAX:
            yield PathFault(f"{at}.up_to", f"must rise, from 1 to {AMOUNT_MAX}")
        below = max(below, tier.up_to)


def _discount_faults(steps: Sequence[DiscountStep], path: str) -> Iterator[PathFault]:
    if len(steps) > STEPS_MAX:
        yield PathFault(path, f"holds more than {STEPS_MAX} steps")
    if len({step.start for step in steps}) < len(steps):
        yield PathFault(path, "holds a `from` twice")
    for step in steps:
        yield from money_fault(step.start, path)
        yield from money_fault(step.percent, path, PERCENT_MAX)


def _currency_faults(currency: str, path: str) -> Iterator[PathFault]:
    if currency not in CURRENCIES:
        guess = closest(currency.upper(), CURRENCIES)
        yield PathFault(path, f"{currency!r} is not an ISO 4217 code", guess)


def _credits_faults(price: Price, plan: Plan, path: str) -> Iterator[PathFault]:
    if not price.in_credits:
        return
    at = f"{path}.{'tiers' if price.tiers else 'credits'}"
    if plan.terms.credit is None:
        yield PathFault(at, "needs `terms.credit`: what a credit costs")
    if price.currency:
        yield PathFault(f"{path}.currency", "is not for prices in credits")
    if price.pay is Pay.ADVANCE:
        yield PathFault(f"{path}.pay", "credits are burned in arrears")
    if price.round_per is RoundPer.TIER:
        yield PathFault(f"{path}.round_per", "is not for prices in credits")


def _above_faults(
    price: Price, plan: Plan, meters: Mapping[MeterName, Meter], path: str
) -> Iterator[PathFault]:
    """What is above a limit has to be counted as the limit counts, and to be let through."""
    limits = {limit.limit_id: limit for limit in plan.limits}
    limit = limits.get(price.above)
    if limit is None:
        yield unknown(path, f"limit of plan {plan.name}", price.above, limits)
        return
    if price.included:
        yield PathFault(path, "is not for prices with `included`: the limit says how much is")
    if limit.kind is not LimitKind.WINDOW or limit.period is not Period.BILLING_PERIOD:
        yield PathFault(path, f"needs a window of a billing_period, {limit.limit_id} is none")
    if limit.on_exceed is OnExceed.REFUSE:
        yield PathFault(
            path, f"{limit.limit_id} refuses what is above it: there is nothing to bill"
        )
    meter = meters.get(price.meter)
    if meter is not None and meter.weights:
        yield PathFault(path, f"{meter.name} weighs other meters in limits, but not in prices")
    yield from _counted_alike(price, limit, path)


def _counted_alike(price: Price, limit: Limit, path: str) -> Iterator[PathFault]:
    if limit.meter != price.meter:
        yield PathFault(path, f"{limit.limit_id} is of {limit.meter}, the price of {price.meter}")
    if limit.per or price.per:
        yield PathFault(path, "is not for limits and prices with `per`")
    elif sorted(limit.where) != sorted(price.where):
        yield PathFault(path, f"{limit.limit_id} has another `where`")


def _terms_faults(plan: Plan, path: str) -> Iterator[PathFault]:
    terms = plan.terms
    yield from _currency_faults(terms.currency, f"{path}.currency")
    yield from money_fault(terms.minimum, f"{path}.minimum")
    yield from _discount_faults(terms.discount, f"{path}.discount")
    if terms.credit is None:
        return
    yield from money_fault(terms.credit.price, f"{path}.credit.price")
    if terms.credit.balance:
        balances = _balances(plan.limits)
        if terms.credit.balance not in balances:
            kind = f"balance of plan {plan.name}"
            yield unknown(f"{path}.credit.balance", kind, terms.credit.balance, balances)


def _balances(limits: Sequence[Limit]) -> Collection[str]:
    return [limit.limit_id for limit in limits if limit.kind is LimitKind.BALANCE]
