"""A price book, a subscriber, and a month of the fake's clock."""

from typing import Any

import stripe
from stripe import Invoice, Price, StripeClient, Subscription

from tallygate_fake_stripe import FakeStripe

from .clients import CUSTOMER, DAY_S, HOUR_S, advance, now_s

NEW_YEAR_S = 1_767_225_600
JANUARY_S = 31 * DAY_S
MONTHLY: Any = {"interval": "month"}


async def make_price(client: StripeClient, *, meter: str | None = None, **said: Any) -> Price:
    """Make a monthly price: of a meter's usage, or of a quantity."""
    recurring = MONTHLY if meter is None else {**MONTHLY, "usage_type": "metered", "meter": meter}
    amount = {} if {"tiers", "unit_amount_decimal"} & said.keys() else {"unit_amount": 10}
    params = {
        "currency": "usd",
        "product_data": {"name": "Calls"},
        "recurring": recurring,
        **amount,
        **said,
    }
    return await client.v1.prices.create_async(params)  # type: ignore[arg-type]


async def subscribe(client: StripeClient, *items: dict[str, Any], **said: Any) -> Subscription:
    """Subscribe the customer."""
    params = {"customer": CUSTOMER, "items": list(items), **said}
    return await client.v1.subscriptions.create_async(params)  # type: ignore[arg-type]


async def invoices(client: StripeClient, subscription: Subscription) -> list[Invoice]:
    """Return a subscription's invoices, oldest first."""
    page = await client.v1.invoices.list_async({"subscription": subscription.id, "limit": 100})
    return page.data[::-1]


def end_january(fake: FakeStripe) -> None:
    """Go on to the end of the first period of what began with the year."""
    advance(fake, NEW_YEAR_S + JANUARY_S - now_s(fake))


def grace_over(fake: FakeStripe) -> None:
    """Go on to when a draft finalizes itself."""
    advance(fake, HOUR_S)


def line_amounts(invoice: Invoice) -> list[tuple[str, int]]:
    """Return the quantity and the amount of each line."""
    return [(str(line.quantity_decimal), line.amount) for line in invoice.lines.data]


def refusal(error: stripe.InvalidRequestError) -> tuple[str | None, str | None]:
    """Return what a refusal is known by."""
    return error.param, error.code
