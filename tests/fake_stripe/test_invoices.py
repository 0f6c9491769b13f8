"""Periods and their invoices: what of the usage reaches which of them."""

from decimal import Decimal

import pytest
import stripe
from stripe import StripeClient

from tallygate_fake_stripe import FakeStripe

from .billing import (
    JANUARY_S,
    NEW_YEAR_S,
    end_january,
    grace_over,
    invoices,
    line_amounts,
    make_price,
    refusal,
    subscribe,
)
from .clients import CUSTOMER, DAY_S, HOUR_S, advance, make_meter, now_s, send


async def test_usage_is_billed_at_the_periods_end(client: StripeClient, fake: FakeStripe) -> None:
    """A period's usage is on a draft at its end, which finalizes itself an hour later."""
    meter = await make_meter(client)
    price = await make_price(client, meter=meter.id, unit_amount_decimal="0.3")
    subscription = await subscribe(client, {"price": price.id})
    assert subscription["items"].data[0].current_period_end == NEW_YEAR_S + JANUARY_S
    await send(client, "100.5")
    end_january(fake)
    first, second = await invoices(client, subscription)
    assert (first.billing_reason, first.status, first.total) == ("subscription_create", "paid", 0)
    assert (second.billing_reason, second.status) == ("subscription_cycle", "draft")
    assert second.automatically_finalizes_at == now_s(fake) + HOUR_S
    assert line_amounts(second) == [("100.5", 30)]
    advance(fake, HOUR_S - 1)
    assert (await client.v1.invoices.retrieve_async(second.id)).status == "draft"
    advance(fake, 1)
    final = await client.v1.invoices.retrieve_async(second.id)
    assert (final.status, final.amount_due, final.subtotal) == ("open", 30, 30)
    assert final.status_transitions.finalized_at == now_s(fake)
    assert final.number


async def test_usage_after_finalization_is_on_no_invoice(
    client: StripeClient, fake: FakeStripe
) -> None:
    """Late usage of a period reaches its draft within the grace, and after it no invoice at all."""
    meter = await make_meter(client)
    price = await make_price(client, meter=meter.id, unit_amount=1)
    subscription = await subscribe(client, {"price": price.id})
    late_s = now_s(fake) + DAY_S
    end_january(fake)
    await send(client, "7", timestamp=late_s)
    grace_over(fake)
    await send(client, "1000", timestamp=late_s)
    advance(fake, 60 * DAY_S)
    amounts = [invoice.subtotal for invoice in await invoices(client, subscription)]
    assert amounts == [0, 7, 0, 0]
    assert fake.total("calls", CUSTOMER, NEW_YEAR_S, NEW_YEAR_S + JANUARY_S) == 1_007


async def test_grace_may_be_up_to_72_hours(client: StripeClient, fake: FakeStripe) -> None:
    """The grace is what the account was set to, and no more than 72 hours."""
    fake.behaviour.finalization_grace_s = 100 * HOUR_S
    meter = await make_meter(client)
    price = await make_price(client, meter=meter.id)
    subscription = await subscribe(client, {"price": price.id})
    end_january(fake)
    draft = (await invoices(client, subscription))[-1]
    assert draft.automatically_finalizes_at == now_s(fake) + 72 * HOUR_S


async def test_lag_decides_what_is_billed(client: StripeClient, fake: FakeStripe) -> None:
    """Usage that was taken but not applied when its invoice was finalized is not on it."""
    meter = await make_meter(client)
    price = await make_price(client, meter=meter.id, unit_amount=1)
    subscription = await subscribe(client, {"price": price.id})
    end_january(fake)
    fake.behaviour.lag_s = 2 * HOUR_S
    await send(client, "5", timestamp=now_s(fake) - DAY_S)
    advance(fake, 3 * HOUR_S)
    assert (await invoices(client, subscription))[-1].subtotal == 0


async def test_negative_cycles_cost_nothing(client: StripeClient, fake: FakeStripe) -> None:
    """A cycle's usage that is negative in all is billed as 0, and not carried over."""
    meter = await make_meter(client)
    price = await make_price(client, meter=meter.id)
    subscription = await subscribe(client, {"price": price.id})
    await send(client, "-50")
    end_january(fake)
    await send(client, "20")
    advance(fake, 28 * DAY_S)
    drafts = (await invoices(client, subscription))[1:]
    assert [invoice["id"] for invoice in fake.invoices(CUSTOMER)][1:] == [i.id for i in drafts]
    assert [line_amounts(invoice) for invoice in drafts] == [[("0", 0)], [("20", 200)]]


async def test_cancelled_usage_leaves_a_final_invoice_alone(
    client: StripeClient, fake: FakeStripe
) -> None:
    """An adjustment changes summaries, and never a finalized invoice."""
    meter = await make_meter(client)
    price = await make_price(client, meter=meter.id, unit_amount=1)
    subscription = await subscribe(client, {"price": price.id})
    end_january(fake)
    await send(client, "9", identifier="one", timestamp=now_s(fake) - 60)
    grace_over(fake)
    await client.v1.billing.meter_event_adjustments.create_async(
        {"event_name": "calls", "type": "cancel", "cancel": {"identifier": "one"}}
    )
    assert fake.total("calls", CUSTOMER, 0, 2**40) == 0
    assert (await invoices(client, subscription))[-1].amount_due == 9


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("graduated", [("10", 50), ("1", 100), ("25", 6)]),
        ("volume", [("35", 9)]),
    ],
)
async def test_tiers_are_billed(
    client: StripeClient, fake: FakeStripe, mode: str, expected: list[tuple[str, int]]
) -> None:
    """Graduated usage fills tier after tier, volume usage is all in one; each line rounds once."""
    meter = await make_meter(client)
    tiers = [
        {"up_to": 10, "unit_amount": 5, "flat_amount": 100},
        {"up_to": "inf", "unit_amount_decimal": "0.25"},
    ]
    price = await make_price(
        client, meter=meter.id, billing_scheme="tiered", tiers_mode=mode, tiers=tiers
    )
    subscription = await subscribe(client, {"price": price.id})
    await send(client, "35")
    end_january(fake)
    assert line_amounts((await invoices(client, subscription))[-1]) == expected


async def test_packages_are_billed(client: StripeClient, fake: FakeStripe) -> None:
    """Quantities are divided into packages, of which one that is begun counts whole."""
    meter = await make_meter(client)
    divided = {"divide_by": 100, "round": "up"}
    price = await make_price(client, meter=meter.id, transform_quantity=divided)
    subscription = await subscribe(client, {"price": price.id})
    await send(client, "201")
    end_january(fake)
    assert line_amounts((await invoices(client, subscription))[-1]) == [("3", 30)]


async def test_invoice_items_reach_the_next_invoice(client: StripeClient, fake: FakeStripe) -> None:
    """What was computed elsewhere is pending, then on the period's invoice, then fixed."""
    price = await make_price(client)
    subscription = await subscribe(client, {"price": price.id})
    items = client.v1.invoice_items
    whole = await items.create_async(
        {"customer": CUSTOMER, "amount": 1234, "currency": "usd", "description": "January"}
    )
    exact = await items.create_async(
        {
            "customer": CUSTOMER,
            "currency": "usd",
            "quantity": 3,
            "unit_amount_decimal": Decimal("0.5"),
            "subscription": subscription.id,
            "period": {"start": NEW_YEAR_S, "end": NEW_YEAR_S + JANUARY_S},
        }
    )
    other = await items.create_async({"customer": CUSTOMER, "amount": 5, "currency": "eur"})
    assert (whole.amount, exact.amount, exact.quantity) == (1234, 2, 3)
    pending = await items.list_async({"customer": CUSTOMER, "pending": True})
    assert len(pending.data) == 3
    end_january(fake)
    draft = (await invoices(client, subscription))[-1]
    assert line_amounts(draft) == [("1", 1234), ("3", 2), ("1", 10)]
    assert draft.lines.data[1].period.end == NEW_YEAR_S + JANUARY_S
    await items.update_async(whole.id, {"amount": 1000})
    grace_over(fake)
    final = await client.v1.invoices.retrieve_async(draft.id)
    assert final.amount_due == 1012
    for attempt in (items.update_async(whole.id, {"amount": 1}), items.delete_async(exact.id)):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await attempt
        assert refused.value.code == "invoice_not_editable"
    await items.delete_async(other.id)


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"currency": "usd"}, "amount"),
        ({"amount": 5}, "currency"),
        ({"amount": 5, "currency": "usd", "quantity": 2}, "amount"),
        ({"amount": 5, "currency": "usd", "customer": "cus_none"}, "customer"),
        ({"amount": "5.5", "currency": "usd"}, "amount"),
        ({"amount": 5, "currency": "usd", "price": "price_1"}, "price"),
    ],
)
async def test_wrong_items_are_refused(
    client: StripeClient, said: dict[str, object], param: str
) -> None:
    """An item is an amount or a quantity, of a customer that is there."""
    params = {"customer": CUSTOMER, **said}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.invoice_items.create_async(params)  # type: ignore[arg-type]
    assert refused.value.param == param


async def test_manual_invoices(client: StripeClient, fake: FakeStripe) -> None:
    """An invoice can be drafted of what is pending, finalized, paid; or deleted, or voided."""
    item = await client.v1.invoice_items.create_async(
        {"customer": CUSTOMER, "amount": 50, "currency": "usd"}
    )
    made = client.v1.invoices
    draft = await made.create_async(
        {"customer": CUSTOMER, "pending_invoice_items_behavior": "include"}
    )
    assert (draft.currency, draft.total, draft.auto_advance) == ("usd", 50, False)
    advance(fake, 10 * DAY_S)
    assert (await made.retrieve_async(draft.id)).status == "draft"
    assert (await made.delete_async(draft.id)).deleted
    assert (await client.v1.invoice_items.retrieve_async(item.id)).invoice is None
    again = await made.create_async(
        {"customer": CUSTOMER, "pending_invoice_items_behavior": "include", "auto_advance": True}
    )
    grace_over(fake)
    opened = await made.retrieve_async(again.id)
    assert (opened.status, opened.amount_remaining) == ("open", 50)
    paid = await made.pay_async(again.id)
    assert (paid.status, paid.amount_paid, paid.amount_remaining) == ("paid", 50, 0)
    with pytest.raises(stripe.InvalidRequestError):
        await made.void_invoice_async(again.id)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await made.finalize_invoice_async(again.id)
    assert refusal(refused.value) == (None, "invoice_not_editable")
    await client.v1.invoice_items.create_async(
        {"customer": CUSTOMER, "amount": 7, "currency": "usd"}
    )
    third = await made.create_async(
        {"customer": CUSTOMER, "pending_invoice_items_behavior": "include"}
    )
    await made.finalize_invoice_async(third.id)
    assert (await made.void_invoice_async(third.id)).status == "void"


async def test_lines_are_pages(client: StripeClient) -> None:
    """An invoice's lines can be listed in their order."""
    for amount in range(12):
        await client.v1.invoice_items.create_async(
            {"customer": CUSTOMER, "amount": amount, "currency": "usd"}
        )
    draft = await client.v1.invoices.create_async(
        {"customer": CUSTOMER, "pending_invoice_items_behavior": "include"}
    )
    page = await client.v1.invoices.line_items.list_async(draft.id)
    assert page.has_more
    assert [line.amount async for line in page.auto_paging_iter()] == list(range(12))


async def test_preview_is_what_would_be(client: StripeClient, fake: FakeStripe) -> None:
    """A preview has the usage so far, what is pending and the next period, and changes nothing."""
    meter = await make_meter(client)
    usage = await make_price(client, meter=meter.id, unit_amount=2)
    seats = await make_price(client, unit_amount=100)
    await subscribe(client, {"price": usage.id}, {"price": seats.id, "quantity": 3})
    await send(client, "4")
    await client.v1.invoice_items.create_async(
        {"customer": CUSTOMER, "amount": 5, "currency": "usd"}
    )
    preview = await client.v1.invoices.create_preview_async({"customer": CUSTOMER})
    assert line_amounts(preview) == [("1", 5), ("4", 8), ("3", 300)]
    again = await client.v1.invoices.create_preview_async({"customer": CUSTOMER})
    assert again.total == preview.total == 313
    fake.add_customer("cus_2")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.invoices.create_preview_async({"customer": "cus_2"})
    assert refused.value.code == "invoice_upcoming_none"
