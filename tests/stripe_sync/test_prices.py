"""Prices at Stripe ask for what the catalog's do, of any quantity; what cannot be is said."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any, Final

import pytest

from tallygate.adapters.stripe.client import Client, ClientOptions
from tallygate.adapters.stripe.meters import StripeAccountMeters
from tallygate.adapters.stripe.prices import StripeAccountPrices
from tallygate.domain.catalog import Catalog, Destination, Meter, Plan
from tallygate.domain.currency import minor_units
from tallygate.domain.ids import LimitId, MeterName, PlanName
from tallygate.domain.price import (
    DiscountStep,
    Pay,
    Price,
    PriceId,
    PriceModel,
    Terms,
    Tier,
)
from tallygate.domain.stripe_prices import (
    AccountPrice,
    AccountTier,
    PriceStepKind,
    lookup_keys,
    price_steps,
    wanted_prices,
)
from tallygate.domain.stripe_sync import StripeAccount, StripeSync, Way
from tallygate.domain.tariff import Stretch, for_usage
from tallygate.flow.stripe_catalog import SyncCatalog
from tallygate_fake_stripe import Behaviour, FakeStripe, VirtualClock
from tests.fake_stripe.mock import MOCK, stripe_mock
from tests.stripe_world import START_S, SYNC

CALLS: Final = MeterName("calls")
START: Final = PlanName("start")
WHOLE: Final = Stretch(1, 1)
DESTINATION: Final = "stripe"


def price(model: PriceModel = PriceModel.PER_UNIT, **fields: Any) -> Price:
    """Return a price of the meter."""
    return Price(PriceId(fields.pop("price_id", "calls")), model, **{"meter": CALLS, **fields})


def catalog(
    *prices: Price, scale: str = "1", account: StripeAccount | None = None, **terms: Any
) -> Catalog:
    """Return a catalog with one plan, whose meter goes to Stripe as events."""
    sync: StripeSync = replace(SYNC, event_name="calls", scale=scale)
    return Catalog(
        meters={CALLS: Meter(CALLS, stripe=sync), MeterName("other"): Meter(MeterName("other"))},
        plans={START: Plan(START, prices=prices, terms=Terms(**{"currency": "EUR", **terms}))},
        destinations=(
            Destination(DESTINATION, "stripe", "", (), stripe=account or StripeAccount()),
        ),
    )


@asynccontextmanager
async def account() -> AsyncIterator[tuple[FakeStripe, SyncCatalog]]:
    """Lend an account, and what brings it in line."""
    behaviour = Behaviour(rate_limited=False)
    async with FakeStripe(VirtualClock(START_S), behaviour=behaviour) as stripe:
        client = Client(lambda: "sk_test_x", ClientOptions(url=stripe.url))
        try:
            yield stripe, SyncCatalog(StripeAccountMeters(client), StripeAccountPrices(client))
        finally:
            await client.close()


async def brought(sync: SyncCatalog, wanted: Catalog) -> list[str]:
    """Bring an account in line; return the steps that its prices needed."""
    await sync.apply(await sync.plan(wanted, DESTINATION))
    planned = await sync.plan_prices(wanted, DESTINATION)
    await sync.apply_prices(planned)
    return [each.step.value for each in planned]


def drawn(chance: Random) -> Price:
    """Return any price that Stripe can express."""

    def amount() -> Decimal:
        return Decimal(chance.randint(0, 10**6)).scaleb(-chance.randint(0, 6))

    def cents() -> Decimal:
        return Decimal(chance.randint(0, 900)).scaleb(-2)

    model = chance.choice(
        [PriceModel.PER_UNIT, PriceModel.PACKAGE, PriceModel.GRADUATED, PriceModel.VOLUME]
    )
    included = chance.choice([0, 5_000])
    if model is PriceModel.PER_UNIT:
        return price(model, amount=amount(), included=included)
    if model is PriceModel.PACKAGE:
        return price(model, amount=amount(), size=chance.choice([1_000, 3_000]))
    ends = sorted(chance.sample(range(1, 20), chance.randint(0, 4)))
    bounds = [*(1_000 * end for end in ends), None]
    included = included if model is PriceModel.GRADUATED else 0
    tiers = tuple(
        Tier(up_to, amount(), cents() if number or included else Decimal(0))
        for number, up_to in enumerate(bounds)
    )
    return price(model, tiers=tiers, included=included)


async def test_any_quantity_costs_the_same() -> None:
    """What the account's price comes to before rounding is what ours does, at any scale."""
    chance = Random(7)
    async with account() as (stripe, sync):
        for scale in ("1", "0.001", "1000"):
            prices = [replace(drawn(chance), price_id=PriceId(f"p{n}")) for n in range(30)]
            currency = chance.choice(["EUR", "JPY"])
            prices = [each for each in prices if currency == "EUR" or not _cents(each)]
            wanted = catalog(*prices, scale=scale, currency=currency)
            await brought(sync, wanted)
            assert not [
                each for _, each in wanted_prices(wanted, DESTINATION) if isinstance(each, str)
            ]
            made = {each.lookup_key: each for each in stripe.world().prices if each.lookup_key}
            for each in prices:
                theirs = made[f"start/{each.price_id}"]
                for quantity in (0, 1, 999, 5_000, 5_001, 19_000, chance.randint(0, 30_000)):
                    units = Decimal(quantity)
                    ours = for_usage(each, units, each.included, WHOLE, currency).charged
                    parts = theirs.parts(units * Decimal(scale))
                    found = sum((part.quantity * part.unit_amount for part in parts), Decimal(0))
                    assert found == ours.scaleb(minor_units(currency)), (each, quantity)


def _cents(of: Price) -> bool:
    """Say whether a flat amount is no whole yen."""
    return any(tier.flat != tier.flat.to_integral_value() for tier in of.tiers)


async def test_a_price_is_made_once_and_replaced() -> None:
    """What differs makes another price, which takes the lookup key; the one before stays."""
    async with account() as (stripe, sync):
        first, dearer = price(amount=Decimal("0.0004")), price(amount=Decimal("0.0005"))
        assert await brought(sync, catalog(first)) == ["create"]
        assert await brought(sync, catalog(first)) == ["keep"]
        assert await brought(sync, catalog(dearer)) == ["replace"]
        (step,) = await sync.plan_prices(catalog(first), DESTINATION)
        assert (step.step, step.reason) == (
            PriceStepKind.REPLACE,
            "its unit is 0.05 and is to be 0.04",
        )
        assert await brought(sync, catalog(first)) == ["replace"]
        assert await brought(sync, catalog(first)) == ["keep"]
        keys = [each.lookup_key for each in stripe.world().prices]
        assert sorted(keys, key=str) == [None, None, "start/calls"]
        assert all(each.active for each in stripe.world().prices)


async def test_fees_are_paid_ahead() -> None:
    """A fee is a price of no meter, once a month, unless it goes on invoices as an item."""
    ahead = price(PriceModel.FLAT, price_id="base", meter="", amount=Decimal(9), pay=Pay.ADVANCE)
    used = price(amount=Decimal("0.01"))
    async with account() as (stripe, sync):
        assert await brought(sync, catalog(used, ahead)) == ["create", "create"]
        fee = next(each for each in stripe.world().prices if each.lookup_key == "start/base")
        assert (fee.unit_amount, fee.metered, fee.interval) == (Decimal(900), False, "month")
    itemized = catalog(used, ahead, account=StripeAccount(fees=True))
    assert lookup_keys(itemized, DESTINATION) == ["start/calls"]
    # Of a plan that Stripe bills nothing of, it bills no fee.
    assert lookup_keys(catalog(ahead), DESTINATION) == []
    assert lookup_keys(catalog(price(meter="other"), used), DESTINATION) == ["start/calls"]


CANNOT: Final[list[tuple[Price, str, dict[str, Any]]]] = [
    (price(PriceModel.PERCENTAGE, percent=Decimal(2)), "percentage", {}),
    (price(in_credits=True), "credits", {}),
    (price(per="region"), "dimensions", {}),
    (price(where=(("region", ("eu",)),)), "dimensions", {}),
    (price(above=LimitId("calls")), "limit", {}),
    (price(minimum=Decimal(5)), "minimum", {}),
    (price(discount=(DiscountStep(Decimal(0), Decimal(5)),)), "discount", {}),
    (price(PriceModel.PACKAGE, included=5, size=10), "included units", {}),
    (price(PriceModel.VOLUME, included=5, tiers=(Tier(None),)), "included units", {}),
    (price(PriceModel.GRADUATED, tiers=(Tier(None, flat=Decimal(1)),)), "first tier", {}),
    (price(amount=Decimal(1)), "has no end", {"scale": "0.003"}),
    (price(amount=Decimal("0.000000000001")), "decimals", {"scale": "1000"}),
    (price(PriceModel.PACKAGE, size=10), "no whole number", {"scale": "0.001"}),
    (
        price(PriceModel.GRADUATED, included=5, tiers=(Tier(None, flat=Decimal("0.001")),)),
        "smallest units",
        {},
    ),
]


@pytest.mark.parametrize(("of", "reason", "fields"), CANNOT, ids=lambda each: str(each)[:20])
def test_what_cannot_be_is_said(of: Price, reason: str, fields: dict[str, Any]) -> None:
    """With its reason; nothing is made in its place."""
    (step,) = price_steps(catalog(of, **fields), DESTINATION, [])
    assert (step.step, step.wanted) == (PriceStepKind.CANNOT, None)
    assert reason in step.reason


def test_what_a_plan_asks_for_as_a_whole_is_said() -> None:
    """Its minimum and its discount are of no single price."""
    steps = [*price_steps(catalog(price(), minimum=Decimal(9)), DESTINATION, [])]
    assert [(each.step, each.lookup_key) for each in steps] == [
        (PriceStepKind.CANNOT, "start/"),
        (PriceStepKind.CREATE, "start/calls"),
    ]
    behind = price(PriceModel.FLAT, price_id="base", meter="", amount=Decimal(9))
    steps = [*price_steps(catalog(price(), behind), DESTINATION, [])]
    assert "pay: advance" in steps[1].reason


@pytest.mark.parametrize("path", [None] if MOCK is None else [None, MOCK])
async def test_the_shapes_are_those_of_the_specification(path: str | None) -> None:
    """The fake takes what is asked for, and `stripe-mock` where it is on PATH."""
    tiers = (AccountTier(1_000, Decimal("1E-12"), Decimal("9E+2")), AccountTier(None, Decimal(5)))
    fee = AccountPrice("start/base", "Base", "eur", "", Decimal("9E+2"))
    tiered = AccountPrice("start/t", "Tiers", "eur", "", mode="volume", tiers=tiers)
    async with AsyncExitStack() as stack:
        if path is None:
            fake = await stack.enter_async_context(FakeStripe(VirtualClock(START_S)))
            url = fake.url
        else:
            url = stack.enter_context(stripe_mock(path))
        client = Client(lambda: "sk_test_x", ClientOptions(url=url))
        stack.push_async_callback(client.close)
        prices = StripeAccountPrices(client)
        for each in (fee, replace(fee, lookup_key="start/p", divide_by=100), tiered):
            assert await prices.create_price(each)
        await prices.prices(["start/base"])


def test_only_events_have_prices_of_their_own() -> None:
    """What goes as items, or as a quantity, is billed by other means."""
    made = catalog(price())
    meter = replace(made.meters[CALLS], stripe=StripeSync(Way.INVOICE_ITEMS))
    assert lookup_keys(replace(made, meters={CALLS: meter}), DESTINATION) == []
