"""Subscriptions: their periods, and quantities and prices that change within one."""

from typing import Any

import pytest
import stripe
from stripe import StripeClient

from tallygate_fake_stripe import FakeStripe

from .billing import (
    JANUARY_S,
    NEW_YEAR_S,
    end_january,
    invoices,
    line_amounts,
    make_price,
    subscribe,
)
from .clients import CUSTOMER, DAY_S, advance, make_meter, send


async def pending(client: StripeClient) -> list[tuple[int, bool]]:
    """Return what is pending, oldest first: amounts, and whether they are prorations."""
    page = await client.v1.invoice_items.list_async({"customer": CUSTOMER, "pending": True})
    return [(item.amount, item.proration) for item in page.data[::-1]]


async def test_quantities_are_billed_ahead(client: StripeClient, fake: FakeStripe) -> None:
    """A quantity is on the first invoice, final at once, and on that of each next period."""
    price = await make_price(client, unit_amount=100)
    subscription = await subscribe(client, {"price": price.id, "quantity": 3})
    end_january(fake)
    advance(fake, 28 * DAY_S)
    found = await invoices(client, subscription)
    assert [(each.billing_reason, each.total) for each in found] == [
        ("subscription_create", 300),
        ("subscription_cycle", 300),
        ("subscription_cycle", 300),
    ]
    assert [each.status for each in found] == ["open", "open", "draft"]
    assert [line.period.start for line in found[1].lines.data] == [NEW_YEAR_S + JANUARY_S]


@pytest.mark.parametrize(
    ("proration", "expected"),
    [
        ("create_prorations", [(-150, True), (250, True)]),
        ("none", []),
        (None, [(-150, True), (250, True)]),
    ],
)
async def test_quantity_changes_are_prorated(
    client: StripeClient, fake: FakeStripe, proration: str | None, expected: list[tuple[int, bool]]
) -> None:
    """Half a period on, half of the old amount is given back and half of the new one billed."""
    price = await make_price(client, unit_amount=100)
    subscription = await subscribe(client, {"price": price.id, "quantity": 3})
    item = subscription["items"].data[0]
    advance(fake, JANUARY_S / 2)
    change: Any = {"quantity": 5} | ({"proration_behavior": proration} if proration else {})
    changed = await client.v1.subscription_items.update_async(item.id, change)
    assert changed.quantity == 5
    assert await pending(client) == expected
    kept = fake.world().subscriptions.get(subscription.id).changes
    assert [(each["quantity"], each["proration_behavior"]) for each in kept] == [
        (5, proration or "create_prorations")
    ]
    end_january(fake)
    draft = (await invoices(client, subscription))[-1]
    assert draft.total == 500 + sum(amount for amount, _ in expected)


async def test_prorations_may_be_invoiced_at_once(client: StripeClient, fake: FakeStripe) -> None:
    """With `always_invoice` the change is billed by an invoice of its own."""
    price = await make_price(client, unit_amount=100)
    subscription = await subscribe(client, {"price": price.id, "quantity": 1})
    item = subscription["items"].data[0]
    advance(fake, JANUARY_S / 2)
    await client.v1.subscription_items.update_async(
        item.id, {"quantity": 3, "proration_behavior": "always_invoice"}
    )
    last = (await invoices(client, subscription))[-1]
    assert (last.billing_reason, last.status) == ("subscription_update", "open")
    assert line_amounts(last) == [("1", -50), ("1", 150)]
    assert await pending(client) == []


async def test_proration_date_is_taken(client: StripeClient, fake: FakeStripe) -> None:
    """A change may be prorated as of another instant of the period, and of no other period."""
    price = await make_price(client, unit_amount=3_100)
    subscription = await subscribe(client, {"price": price.id})
    item = subscription["items"].data[0].id
    advance(fake, 10 * DAY_S)
    items = client.v1.subscription_items
    await items.update_async(item, {"quantity": 2, "proration_date": NEW_YEAR_S + DAY_S})
    assert await pending(client) == [(-3_000, True), (6_000, True)]
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await items.update_async(item, {"quantity": 3, "proration_date": NEW_YEAR_S - 1})
    assert refused.value.param == "proration_date"


async def test_prices_change_within_a_period(client: StripeClient, fake: FakeStripe) -> None:
    """Usage until the change is billed at the old price, usage after it at the new one."""
    meter = await make_meter(client)
    old = await make_price(client, meter=meter.id, unit_amount=1)
    new = await make_price(client, meter=meter.id, unit_amount=100)
    subscription = await subscribe(client, {"price": old.id})
    await send(client, "5")
    advance(fake, 10 * DAY_S)
    await client.v1.subscriptions.update_async(
        subscription.id,
        {"items": [{"id": subscription["items"].data[0].id, "price": new.id}]},
    )
    await send(client, "3")
    end_january(fake)
    draft = (await invoices(client, subscription))[-1]
    assert line_amounts(draft) == [("5", 5), ("3", 300)]


async def test_items_come_and_go(client: StripeClient, fake: FakeStripe) -> None:
    """An item that is added is billed from then on; one that is removed until then."""
    meter = await make_meter(client)
    usage = await make_price(client, meter=meter.id, unit_amount=1)
    seats = await make_price(client, unit_amount=3_100)
    subscription = await subscribe(client, {"price": seats.id})
    await send(client, "100")
    advance(fake, 10 * DAY_S)
    items = client.v1.subscription_items
    added = await items.create_async({"subscription": subscription.id, "price": usage.id})
    assert "quantity" not in added.to_dict()
    await send(client, "7")
    advance(fake, 11 * DAY_S)
    listed = await items.list_async({"subscription": subscription.id})
    assert next(each.id for each in listed.data) == added.id
    await items.delete_async(added.id)
    await send(client, "1000")
    await items.delete_async(subscription["items"].data[0].id)
    assert await pending(client) == [(-1_000, True)]
    end_january(fake)
    assert line_amounts((await invoices(client, subscription))[-1]) == [("1", -1_000), ("7", 7)]
    assert (await invoices(client, subscription))[-1].amount_due == 0


async def test_anchors_in_the_future_begin_with_a_part(
    client: StripeClient, fake: FakeStripe
) -> None:
    """A first period up to the anchor is shorter, and costs its share."""
    price = await make_price(client, unit_amount=3_100)
    advance(fake, 21 * DAY_S)
    subscription = await subscribe(
        client, {"price": price.id}, billing_cycle_anchor=NEW_YEAR_S + JANUARY_S
    )
    assert subscription["items"].data[0].current_period_end == NEW_YEAR_S + JANUARY_S
    end_january(fake)
    totals = [invoice.total for invoice in await invoices(client, subscription)]
    assert totals == [1_000, 3_100]


async def test_subscriptions_end(client: StripeClient, fake: FakeStripe) -> None:
    """At the period's end its usage is billed; ended now, only where an invoice is asked for."""
    meter = await make_meter(client)
    price = await make_price(client, meter=meter.id, unit_amount=1)
    ending = await subscribe(client, {"price": price.id}, cancel_at_period_end=True)
    now, silent = [await subscribe(client, {"price": price.id}) for _ in range(2)]
    await send(client, "5")
    advance(fake, DAY_S)
    cancelled = await client.v1.subscriptions.cancel_async(now.id, {"invoice_now": True})
    assert cancelled.status == "canceled"
    await client.v1.subscriptions.cancel_async(silent.id)
    assert [each.total for each in await invoices(client, now)] == [0, 5]
    assert [each.total for each in await invoices(client, silent)] == [0]
    end_january(fake)
    advance(fake, 90 * DAY_S)
    assert [each.total for each in await invoices(client, ending)] == [0, 5]
    assert (await client.v1.subscriptions.retrieve_async(ending.id)).status == "canceled"
    assert (await client.v1.subscriptions.list_async()).data == []
    assert len((await client.v1.subscriptions.list_async({"status": "all"})).data) == 3
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.subscriptions.cancel_async(now.id)


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([], "items"),
        ([{"quantity": 1}], "items[0][price]"),
        ([{"price": "price_none"}], "items[0][price]"),
        ([{"price": "METERED", "quantity": 1}], "quantity"),
        ([{"price": "SEATS"}, {"price": "YEARLY"}], "items"),
        ([{"price": "SEATS"}, {"price": "EUROS"}], "items"),
        ([{"price": "ONCE"}], "items"),
        ([{"price": "SEATS", "quantity": -1}], "items[0][quantity]"),
    ],
)
async def test_wrong_subscriptions_are_refused(
    client: StripeClient, items: list[dict[str, Any]], param: str
) -> None:
    """Usage has no quantity, and all prices agree in currency and interval."""
    meter = await make_meter(client)
    once = await client.v1.prices.create_async(
        {"currency": "usd", "unit_amount": 1, "product_data": {"name": "x"}}
    )
    prices = {
        "METERED": (await make_price(client, meter=meter.id)).id,
        "SEATS": (await make_price(client)).id,
        "YEARLY": (await make_price(client, recurring={"interval": "year"})).id,
        "EUROS": (await make_price(client, currency="eur")).id,
        "ONCE": once.id,
    }
    for item in items:
        if "price" in item:
            item["price"] = prices.get(item["price"], item["price"])
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await subscribe(client, *items)
    assert refused.value.param == param
    assert (await client.v1.subscriptions.list_async()).data == []
