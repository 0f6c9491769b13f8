"""Builders of prices, plans and invoices: a test names only what it is about."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tallygate.domain.catalog import Aggregation, Catalog, Limit, Meter, Plan, Tenant
from tallygate.domain.ids import MeterName, PlanName, TenantId
from tallygate.domain.invoice import Invoice, Measured
from tallygate.domain.price import Pay, Price, PriceId, PriceModel, Terms, Tier
from tallygate.domain.purse import GrantLeft
from tallygate.domain.rating import Ahead, Rating, invoice_of
from tallygate.domain.segment import Segment, Version, segments
from tallygate.domain.window import DAY_US, Window

ACME: Final = TenantId("acme")
CALLS: Final = MeterName("calls")
PLAN: Final = PlanName("pro")
NOVEMBER: Final = Window(0, 30 * DAY_US)
EUR: Final = Terms(currency="EUR")


def d(text: str) -> Decimal:
    """Return a decimal."""
    return Decimal(text)


def price(model: PriceModel = PriceModel.PER_UNIT, **fields: object) -> Price:
    """Return a price of calls, with other fields replaced."""
    values: dict[str, object] = {"price_id": PriceId(model.value), "meter": CALLS}
    if model is PriceModel.FLAT:
        del values["meter"]
    return Price(model=model, **{**values, **fields})  # type: ignore[arg-type]  # fields by name


def fee(amount: str, name: str = "base", pay: Pay = Pay.ARREARS, **fields: object) -> Price:
    """Return a flat price."""
    made = price(PriceModel.FLAT, price_id=PriceId(name), amount=d(amount), pay=pay)
    return replace(made, **fields)  # type: ignore[arg-type]  # fields by name


def tiers(*parts: tuple[int | None, str, str]) -> tuple[Tier, ...]:
    """Return tiers of an end, an amount and a fee."""
    return tuple(Tier(up_to, d(amount), d(flat)) for up_to, amount, flat in parts)


def plan(
    *prices: Price, terms: Terms = EUR, name: str = PLAN, limits: Sequence[Limit] = ()
) -> Plan:
    """Return a plan."""
    return Plan(PlanName(name), tuple(limits), prices=prices, terms=terms)


def version(at_us: int, of: Plan, currency: str = "EUR", **fields: object) -> Version:
    """Return what is in effect from an instant on."""
    meters = {CALLS: Meter(CALLS, Aggregation.SUM)}
    tenant = Tenant(ACME, of.name, currency=currency, **fields)  # type: ignore[arg-type]
    return Version(at_us, Catalog(at_us // DAY_US + 1, meters, {of.name: of}), tenant)


def cut(*versions: Version, period: Window = NOVEMBER) -> tuple[Segment, ...]:
    """Return the segments of a period."""
    return segments(versions, period)


def used(segment: Segment, quantity: str | int, place: int = 0) -> list[Measured]:
    """Return usage of each selection of a segment."""
    count = max(1, abs(int(quantity)))
    return [Measured(place, each, Decimal(quantity), count) for each in segment.selections()]


def bill(
    of: Plan,
    quantity: str | int = 0,
    *,
    currency: str = "EUR",
    grants: Sequence[GrantLeft] = (),
    rates: Mapping[tuple[str, int], Decimal] | None = None,
    ahead: Ahead | None = None,
) -> Invoice:
    """Return the invoice of a whole November with one plan and so much of everything."""
    (segment,) = cut(version(-1, of, currency))
    return invoice_of(
        Rating(
            tenant_id=ACME,
            period=NOVEMBER,
            currency=currency,
            segments=(segment,),
            usage=used(segment, quantity) if quantity else (),
            grants=grants,
            rates=rates or {},
            ahead=ahead or Ahead(),
        )
    )
