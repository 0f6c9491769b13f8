"""The requests that a sender makes have the shapes that Stripe's specification asks for.

Each is made of the fake and, where `stripe-mock` is on PATH, of that: the header of a test run says
which were found.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from stripe import StripeClient

from tallygate_fake_stripe import Behaviour, FakeStripe, VirtualClock

from .clients import CUSTOMER, TEST_KEY, connected
from .mock import MOCK, stripe_mock

TARGETS = ["fake"] if MOCK is None else ["fake", "stripe-mock"]
METER, PRICE = "mtr_fake000001", "price_fake000001"
SUBSCRIPTION, ITEM = "sub_fake000001", "si_fake000001"
START_S = 1_767_225_600

Shape = Callable[[StripeClient], Awaitable[Any]]


@pytest.fixture(scope="module")
def mock_url() -> Iterator[str]:
    """The address of a stripe-mock; asked for only where there is one."""
    assert MOCK is not None
    with stripe_mock(MOCK) as url:
        yield url


@pytest.fixture(params=TARGETS)
async def target(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, StripeClient]]:
    """Each server found, with a client of it; the fake has a meter, its usage and a subscriber."""
    if request.param == "stripe-mock":
        async with connected(request.getfixturevalue("mock_url"), TEST_KEY) as client:
            yield "stripe-mock", client
        return
    behaviour = Behaviour(rate_limited=False)
    async with (
        FakeStripe(VirtualClock(), behaviour=behaviour, customers=[CUSTOMER]) as fake,
        connected(fake.url, TEST_KEY) as client,
    ):
        await make_meter(client, "calls")
        await send_event(client, "event-1")
        for shape in (make_price, subscribe, add_invoice_item, draft_invoice):
            await shape(client)
        yield "fake", client


async def make_meter(client: StripeClient, name: str = "more_calls") -> Any:
    """Make a meter, with all there is to say of it."""
    return await client.v1.billing.meters.create_async(
        {
            "display_name": "Calls",
            "event_name": name,
            "default_aggregation": {"formula": "sum"},
            "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
            "value_settings": {"event_payload_key": "value"},
            "event_time_window": "hour",
        }
    )


async def list_meters(client: StripeClient) -> Any:
    """List active meters, and take the first."""
    page = await client.v1.billing.meters.list_async({"status": "active", "limit": 100})
    return page.data[0]


async def rename_meter(client: StripeClient) -> Any:
    """Rename a meter."""
    return await client.v1.billing.meters.update_async(METER, {"display_name": "Requests"})


async def deactivate_meter(client: StripeClient) -> Any:
    """Deactivate a meter."""
    return await client.v1.billing.meters.deactivate_async(METER)


async def send_event(client: StripeClient, identifier: str = "event-2") -> Any:
    """Send a meter event, with all there is to say of it."""
    return await client.v1.billing.meter_events.create_async(
        {
            "event_name": "calls",
            "payload": {"stripe_customer_id": CUSTOMER, "value": "2.5", "region": "eu"},
            "identifier": identifier,
            "timestamp": START_S,
        },
        {"idempotency_key": f"key of {identifier}"},
    )


async def cancel_event(client: StripeClient) -> Any:
    """Cancel a meter event."""
    return await client.v1.billing.meter_event_adjustments.create_async(
        {"event_name": "calls", "type": "cancel", "cancel": {"identifier": "event-1"}}
    )


async def summarise(client: StripeClient) -> Any:
    """Ask for summaries by hour, and take the first."""
    page = await client.v1.billing.meters.event_summaries.list_async(
        METER,
        {
            "customer": CUSTOMER,
            "start_time": START_S,
            "end_time": START_S + 3_600,
            "value_grouping_window": "hour",
            "limit": 100,
        },
    )
    return page.data[0]


async def make_price(client: StripeClient) -> Any:
    """Make a metered price, exact, with a product of its own."""
    return await client.v1.prices.create_async(
        {
            "currency": "usd",
            "product_data": {"name": "Calls", "unit_label": "call"},
            "recurring": {"interval": "month", "usage_type": "metered", "meter": METER},
            "unit_amount_decimal": Decimal("0.25"),
            "nickname": "calls",
            "metadata": {"catalog": "1"},
        }
    )


async def subscribe(client: StripeClient) -> Any:
    """Subscribe a customer to a price."""
    return await client.v1.subscriptions.create_async(
        {"customer": CUSTOMER, "items": [{"price": PRICE}], "metadata": {"tenant": "acme"}}
    )


async def change_item(client: StripeClient) -> Any:
    """Change what is said of a subscription's item, with the flags of a change of quantity."""
    return await client.v1.subscription_items.update_async(
        ITEM,
        {"metadata": {"tenant": "acme"}, "proration_behavior": "none", "proration_date": START_S},
    )


async def add_invoice_item(client: StripeClient) -> Any:
    """Have an amount be billed that was computed elsewhere."""
    return await client.v1.invoice_items.create_async(
        {
            "customer": CUSTOMER,
            "amount": 1_234,
            "currency": "usd",
            "description": "Calls in January",
            "metadata": {"tenant": "acme"},
            "period": {"start": START_S, "end": START_S + 86_400},
        },
        {"idempotency_key": "january"},
    )


async def draft_invoice(client: StripeClient) -> Any:
    """Draft an invoice of what is pending."""
    return await client.v1.invoices.create_async(
        {"customer": CUSTOMER, "pending_invoice_items_behavior": "include", "currency": "usd"}
    )


async def preview_invoice(client: StripeClient) -> Any:
    """Ask what a subscription's next invoice would be."""
    return await client.v1.invoices.create_preview_async(
        {"customer": CUSTOMER, "subscription": SUBSCRIPTION}
    )


async def give_credits(client: StripeClient) -> Any:
    """Give a customer credits."""
    return await client.v1.billing.credit_grants.create_async(
        {
            "customer": CUSTOMER,
            "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": 1_000}},
            "applicability_config": {"scope": {"price_type": "metered"}},
            "category": "paid",
            "name": "Prepaid",
        }
    )


SHAPES: dict[str, tuple[Shape, ...]] = {
    "billing.meter": (make_meter, list_meters, rename_meter, deactivate_meter),
    "billing.meter_event": (send_event,),
    "billing.meter_event_adjustment": (cancel_event,),
    "billing.meter_event_summary": (summarise,),
    "price": (make_price,),
    "subscription": (subscribe,),
    "subscription_item": (change_item,),
    "invoiceitem": (add_invoice_item,),
    "invoice": (draft_invoice, preview_invoice),
    "billing.credit_grant": (give_credits,),
}

# What the fake answers with, all of which is in Stripe's specification.
FIELDS = {
    "billing.meter": (
        "created customer_mapping default_aggregation display_name event_name event_time_window "
        "id livemode object status status_transitions updated value_settings"
    ),
    "billing.meter_event": "created event_name identifier livemode object payload timestamp",
    "billing.meter_event_adjustment": "cancel event_name livemode object status type",
    "billing.meter_event_summary": "aggregated_value end_time id livemode meter object start_time",
    "price": (
        "active billing_scheme created currency custom_unit_amount id livemode lookup_key "
        "metadata nickname object product recurring tax_behavior tiers_mode transform_quantity "
        "type unit_amount unit_amount_decimal"
    ),
    "subscription": (
        "billing_cycle_anchor billing_mode cancel_at cancel_at_period_end canceled_at "
        "collection_method created currency customer days_until_due description ended_at id items "
        "latest_invoice livemode metadata object start_date status"
    ),
    "subscription_item": (
        "created current_period_end current_period_start discounts id metadata object price "
        "subscription tax_rates"
    ),
    "invoiceitem": (
        "amount currency customer date description discountable discounts id invoice livemode "
        "metadata net_amount object parent period pricing proration quantity quantity_decimal "
        "tax_rates"
    ),
    "invoice": (
        "amount_due amount_paid amount_remaining attempt_count attempted auto_advance "
        "automatically_finalizes_at billing_reason collection_method created currency customer "
        "description id lines livemode metadata number object parent period_end period_start "
        "status status_transitions subtotal total total_pretax_credit_amounts"
    ),
    "billing.credit_grant": (
        "amount applicability_config category created customer effective_at expires_at id "
        "livemode metadata name object priority updated voided_at"
    ),
}


@pytest.mark.parametrize(
    ("name", "shape"), [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]
)
async def test_requests_are_answered(
    target: tuple[str, StripeClient], name: str, shape: Shape
) -> None:
    """What is sent is taken, and answered with the object it asks for, without unknown fields."""
    server, client = target
    answer = (await shape(client)).to_dict()
    assert answer["object"] == name
    fields = set(FIELDS[name].split())
    assert fields == set(answer) if server == "fake" else fields <= set(answer)
