"""Which prices an account should have for a catalog, beside those it has: a plan, step by step.

Guarantees: a price that is made asks for what the catalog's does, of any quantity, to the last
decimal before rounding; what Stripe cannot express is told with its reason, never approximated.
Refuses to know: how a step is done, and how Stripe rounds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final

from tallygate.domain.catalog import Catalog, Plan
from tallygate.domain.ids import MeterName
from tallygate.domain.money import CONTEXT, DECIMALS_MAX
from tallygate.domain.price import NO_LIMIT, NO_METER, Pay, Price, PriceModel, Tier
from tallygate.domain.stripe_invoice import minor_units_of
from tallygate.domain.stripe_rules import synced
from tallygate.domain.stripe_sync import StripeSync, Way

ONE: Final = Decimal(1)


class Cannot(Exception):
    """Stripe cannot express a price; the text says why."""


@dataclass(frozen=True, slots=True)
class AccountTier:
    """A tier of an account's price, in the currency's smallest unit; without `up_to` the last."""

    up_to: int | None
    unit: Decimal
    flat: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class AccountPrice:
    """A monthly price of an account; amounts are in the currency's smallest unit.

    It has a `unit` amount, for each unit or, where that is not 0, each begun package of
    `divide_by`; or tiers by `mode`. An empty `event_name` is
    a fee's, which is of no meter. `name` is the product's, `price_id` the account's own.
    """

    lookup_key: str
    name: str
    currency: str
    event_name: str
    unit: Decimal | None = None
    divide_by: int = 0
    mode: str = ""
    tiers: tuple[AccountTier, ...] = ()
    interval: str = "month"
    price_id: str = ""


class PriceStepKind(StrEnum):
    """What is to be done about a price. To replace is to make another, with its lookup key."""

    CREATE = "create"
    REPLACE = "replace"
    KEEP = "keep"
    CANNOT = "cannot"


@dataclass(frozen=True, slots=True)
class PriceStep:
    """One step: which price, as it is to be, and why. To replace, `price_id` is of the one before.

    Of what cannot be, `wanted` is None.
    """

    step: PriceStepKind
    lookup_key: str
    wanted: AccountPrice | None = None
    reason: str = ""


def price_steps(
    catalog: Catalog, destination: str, has: Sequence[AccountPrice]
) -> Iterator[PriceStep]:
    """Iterate over what is to be done, by plan and price."""
    known = {each.lookup_key: each for each in has}
    for key, wanted in wanted_prices(catalog, destination):
        if isinstance(wanted, str):
            yield PriceStep(PriceStepKind.CANNOT, key, reason=wanted)
            continue
        found = known.get(key)
        if found is None:
            yield PriceStep(PriceStepKind.CREATE, key, wanted)
            continue
        faults = "; ".join(_differences(wanted, found))
        kind = PriceStepKind.REPLACE if faults else PriceStepKind.KEEP
        yield PriceStep(kind, key, replace(wanted, price_id=found.price_id), faults)


def lookup_keys(catalog: Catalog, destination: str) -> list[str]:
    """Return the lookup keys of all prices that an account should have."""
    found = wanted_prices(catalog, destination)
    return [key for key, wanted in found if not isinstance(wanted, str)]


def wanted_prices(catalog: Catalog, destination: str) -> Iterator[tuple[str, AccountPrice | str]]:
    """Iterate over lookup keys with the price of each, or why there can be none."""
    meters = {meter.name: sync for meter, sync in synced(catalog, destination, Way.METER_EVENTS)}
    accounts = [each.stripe for each in catalog.destinations if each.name == destination]
    itemized = any(account is not None and account.fees for account in accounts)
    for plan in sorted(catalog.plans.values(), key=lambda each: each.name):
        metered = any(price.meter in meters for price in plan.prices)
        if metered and (plan.terms.minimum or plan.terms.discount):
            reason = "a plan's minimum or discount is of all its prices together: no price has it"
            yield f"{plan.name}/", reason
        for price in plan.prices:
            fee = price.model is PriceModel.FLAT and metered and not itemized
            if price.meter not in meters and not fee:
                continue
            key = f"{plan.name}/{price.price_id}"
            try:
                yield key, _wanted(key, plan, price, meters)
            except Cannot as cannot:
                yield key, str(cannot)


def _wanted(
    key: str, plan: Plan, price: Price, meters: Mapping[MeterName, StripeSync]
) -> AccountPrice:
    """Return a price as an account should have it. Raises `Cannot`."""
    for fault in _faults(price):
        raise Cannot(fault)
    currency = price.currency or plan.terms.currency
    sync = meters[price.meter] if price.meter != NO_METER else None
    scale = Decimal(sync.scale) if sync is not None else ONE
    made = AccountPrice(
        lookup_key=key,
        name=price.description or f"{plan.name} {price.price_id}",
        currency=currency.lower(),
        event_name=sync.event_name if sync is not None else "",
    )
    of = _Amounts(minor_units_of(currency), scale)
    match price.model:
        case PriceModel.FLAT:
            return replace(made, unit=of.flat(price.amount))
        case PriceModel.PER_UNIT if not price.included:
            return replace(made, unit=of.unit(price.amount))
        case PriceModel.PER_UNIT:
            tiers = _after(price.included, (Tier(None, price.amount),))
            return replace(made, mode="graduated", tiers=of.tiers(tiers))
        case PriceModel.PACKAGE:
            return replace(made, unit=of.exact(price.amount), divide_by=of.whole(price.size))
        case PriceModel.GRADUATED | PriceModel.VOLUME:
            tiers = _after(price.included, price.tiers)
            return replace(made, mode=price.model.value, tiers=of.tiers(tiers))
        case _:
            raise Cannot("a percentage of money is no price of Stripe's")


def _faults(price: Price) -> Iterator[str]:
    """Iterate over what no price of Stripe's has."""
    told: list[tuple[bool, str]] = [
        (price.in_credits, "it is in credits: which grants pay is worked out here"),
        (bool(price.per or price.where), "it is told apart by dimensions, Stripe's is for all"),
        (price.above != NO_LIMIT, "what is free is a limit's, which a tenant may have of its own"),
        (bool(price.minimum), "it has a minimum"),
        (bool(price.discount), "it has a discount by what was used"),
        (
            price.model is PriceModel.FLAT and price.pay is not Pay.ADVANCE,
            "Stripe asks for fees ahead: say pay: advance",
        ),
        (
            bool(price.included) and price.model in (PriceModel.PACKAGE, PriceModel.VOLUME),
            f"included units do not go with {price.model.value} there",
        ),
        (
            bool(price.tiers) and bool(price.tiers[0].flat) and not price.included,
            "Stripe asks for the first tier's flat amount also where nothing was used",
        ),
    ]
    return (reason for fault, reason in told if fault)


def _after(included: int, tiers: Iterable[Tier]) -> Iterator[Tier]:
    """Iterate over tiers that begin after what is free."""
    if included:
        yield Tier(included)
    for tier in tiers:
        up_to = None if tier.up_to is None else tier.up_to + included
        yield replace(tier, up_to=up_to)


@dataclass(frozen=True, slots=True)
class _Amounts:
    """Money per our unit, as money in smallest units per Stripe's."""

    minor: int
    scale: Decimal

    def unit(self, amount: Decimal) -> Decimal:
        """Return an amount for a unit. Raises `Cannot`."""
        each = CONTEXT.divide(amount.scaleb(self.minor), self.scale)
        if CONTEXT.multiply(each, self.scale) != amount.scaleb(self.minor):
            raise Cannot(f"{amount} divided by the scale {self.scale} has no end")
        return self._bounded(each)

    def exact(self, amount: Decimal) -> Decimal:
        """Return an amount for a package, whatever its size. Raises `Cannot`."""
        return self._bounded(amount.scaleb(self.minor))

    def flat(self, amount: Decimal) -> Decimal:
        """Return an amount that is asked for once. Raises `Cannot`."""
        found = amount.scaleb(self.minor)
        if found != found.to_integral_value():
            raise Cannot(f"a flat amount of {amount} is no whole number of smallest units")
        return found

    def whole(self, units: int) -> int:
        """Return a number of units. Raises `Cannot`."""
        found = CONTEXT.multiply(Decimal(units), self.scale)
        if found != found.to_integral_value() or found < 1:
            raise Cannot(f"{units} units are no whole number at the scale {self.scale}")
        return int(found)

    def tiers(self, tiers: Iterable[Tier]) -> tuple[AccountTier, ...]:
        """Return tiers. Raises `Cannot`."""
        return tuple(
            AccountTier(
                None if tier.up_to is None else self.whole(tier.up_to),
                self.unit(tier.amount),
                self.flat(tier.flat),
            )
            for tier in tiers
        )

    def _bounded(self, amount: Decimal) -> Decimal:
        if amount != round(amount, DECIMALS_MAX):
            raise Cannot(f"an amount of {amount:f} has more than {DECIMALS_MAX} decimals")
        return amount


def _differences(wanted: AccountPrice, found: AccountPrice) -> Iterator[str]:
    for name in ("currency", "interval", "event_name", "unit", "divide_by", "mode"):
        want, has = getattr(wanted, name), getattr(found, name)
        if want != has:
            yield f"its {name} is {_shown(has)} and is to be {_shown(want)}"
    if wanted.tiers != found.tiers:
        yield "its tiers are others"


def _shown(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value) if value not in (None, "") else "none"
