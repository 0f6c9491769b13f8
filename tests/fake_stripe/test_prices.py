"""Products and prices: what may be made, what the old recipes get."""

from typing import Any

import pytest
import stripe
from stripe import StripeClient

from .billing import make_price, refusal
from .clients import make_meter

TIERS = [{"up_to": 10, "unit_amount": 5}, {"up_to": "inf", "unit_amount_decimal": "0.25"}]


async def test_metered_price_has_its_meter(client: StripeClient) -> None:
    """A price of usage names its meter, and its amount exactly."""
    meter = await make_meter(client)
    price = await make_price(client, meter=meter.id, unit_amount_decimal="0.000000000001")
    shown = price.to_dict()
    assert shown["recurring"] == {
        "interval": "month",
        "interval_count": 1,
        "meter": meter.id,
        "trial_period_days": None,
        "usage_type": "metered",
    }
    assert (price.unit_amount, str(price.unit_amount_decimal)) == (None, "1E-12")
    assert price.active
    listed = await client.v1.prices.list_async({"recurring": {"meter": meter.id}})
    assert [each.id for each in listed.data] == [price.id]


METERED = {"interval": "month", "usage_type": "metered"}
NO_AMOUNT = {"unit_amount": None}
TIERED = {**NO_AMOUNT, "billing_scheme": "tiered", "tiers_mode": "volume"}
GONE = "parameter_missing"


@pytest.mark.parametrize(
    ("said", "param", "code"),
    [
        ({"recurring": METERED}, "recurring[meter]", GONE),
        (
            {"recurring": METERED | {"aggregate_usage": "sum"}},
            "recurring[aggregate_usage]",
            "parameter_unknown",
        ),
        ({"recurring": METERED | {"meter": "mtr_none"}}, "recurring[meter]", "resource_missing"),
        ({"recurring": {"interval": "month", "meter": "METER"}}, "recurring[meter]", None),
        ({"recurring": {"interval": "fortnight"}}, "recurring[interval]", None),
        (NO_AMOUNT, "unit_amount", GONE),
        ({"unit_amount": -1}, "unit_amount", None),
        ({"unit_amount_decimal": "0.5"}, "unit_amount", None),
        ({**NO_AMOUNT, "tiers": TIERS}, "tiers", None),
        ({**TIERED, "tiers_mode": None, "tiers": TIERS}, "tiers_mode", GONE),
        ({**TIERED, "tiers": TIERS[:1]}, "tiers", None),
        ({**TIERED, "tiers": [TIERS[0], *TIERS]}, "tiers", None),
        ({**TIERED, "tiers": TIERS, "unit_amount": 1}, "unit_amount", None),
        ({"product": "prod_none", "product_data": None}, "product", "resource_missing"),
        ({"product_data": None}, "product", None),
        ({"currency": None}, "currency", GONE),
    ],
)
async def test_wrong_prices_are_refused(
    client: StripeClient, said: dict[str, Any], param: str, code: str | None
) -> None:
    """The recipes from before 2025-03-31.basil, and what contradicts itself, are refused."""
    meter = await make_meter(client)
    params: dict[str, Any] = {
        "currency": "usd",
        "product_data": {"name": "x"},
        "unit_amount": 1,
        **said,
    }
    if params.get("recurring", {}).get("meter") == "METER":
        params["recurring"] = {**params["recurring"], "meter": meter.id}
    sent = {name: value for name, value in params.items() if value is not None}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.prices.create_async(sent)  # type: ignore[arg-type]
    assert refusal(refused.value) == (param, code)
    assert (await client.v1.products.list_async()).data == []


async def test_tiers_are_shown_where_asked_for(client: StripeClient) -> None:
    """Tiers come with a price only where they are to be expanded."""
    price = await make_price(client, billing_scheme="tiered", tiers_mode="graduated", tiers=TIERS)
    assert "tiers" not in price.to_dict()
    shown = await client.v1.prices.retrieve_async(price.id, {"expand": ["tiers"]})
    assert shown.tiers is not None
    assert [(tier.up_to, str(tier.unit_amount_decimal)) for tier in shown.tiers] == [
        (10, "5"),
        (None, "0.25"),
    ]


async def test_lookup_keys_move(client: StripeClient) -> None:
    """A lookup key belongs to one price, and goes to another only where that is said."""
    first = await make_price(client, lookup_key="calls")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await make_price(client, lookup_key="calls")
    assert refused.value.param == "lookup_key"
    second = await make_price(client, lookup_key="calls", transfer_lookup_key=True)
    page = await client.v1.prices.list_async({"lookup_keys": ["calls"]})
    assert [price.id for price in page.data] == [second.id]
    assert (await client.v1.prices.retrieve_async(first.id)).lookup_key is None


async def test_prices_and_products_change(client: StripeClient) -> None:
    """What is said of them changes, what they cost does not; a product with prices stays."""
    product = await client.v1.products.create_async({"id": "prod_calls", "name": "Calls"})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.products.create_async({"id": "prod_calls", "name": "Again"})
    assert refused.value.code == "resource_already_exists"
    price = await client.v1.prices.create_async(
        {
            "currency": "EUR",
            "product": product.id,
            "unit_amount": 3,
            "metadata": {"a": "1", "b": "2"},
        }
    )
    assert (price.currency, price.type) == ("eur", "one_time")
    changed = await client.v1.prices.update_async(
        price.id, {"active": False, "nickname": "old", "metadata": {"a": "", "c": "3"}}
    )
    assert (changed.active, changed.nickname) == (False, "old")
    assert changed.metadata.to_dict() == {"b": "2", "c": "3"}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.prices.update_async(price.id, {"unit_amount": 4})  # type: ignore[arg-type]
    assert refused.value.code == "parameter_unknown"
    renamed = await client.v1.products.update_async(product.id, {"name": "Requests"})
    assert renamed.name == "Requests"
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.products.delete_async(product.id)


async def test_customers_come_and_go(client: StripeClient) -> None:
    """A customer is made, changed, listed by address and deleted."""
    made = await client.v1.customers.create_async({"email": "a@example.org", "name": "A"})
    changed = await client.v1.customers.update_async(made.id, {"name": "B", "metadata": {"k": "v"}})
    assert (changed.name, changed.email) == ("B", "a@example.org")
    page = await client.v1.customers.list_async({"email": "a@example.org"})
    assert [each.id for each in page.data] == [made.id]
    assert (await client.v1.customers.delete_async(made.id)).deleted
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.customers.retrieve_async(made.id)
