"""Stripe's own client against the fake, and the few calls that many tests make."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import stripe
from stripe import StripeClient
from stripe.billing import Meter, MeterEvent, MeterEventSummary

from tallygate_fake_stripe import FakeStripe, VirtualClock

TEST_KEY = "sk_test_tests"
LIVE_KEY = "sk_live_tests"
CUSTOMER = "cus_1"
HOUR_S = 3_600
DAY_S = 86_400
TIMEOUT_S = 60


@asynccontextmanager
async def connected(
    url: str, key: str = TEST_KEY, *, account: str | None = None
) -> AsyncIterator[StripeClient]:
    """Yield a client as a sender has it: asynchronous, without retries of its own."""
    http = stripe.AIOHTTPClient(timeout=TIMEOUT_S)
    try:
        yield StripeClient(
            key,
            base_addresses={"api": url, "meter_events": url},
            max_network_retries=0,
            http_client=http,
            stripe_account=account,
        )
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]


def now_s(fake: FakeStripe) -> int:
    """Return the fake's time in seconds."""
    return fake.clock.now_us() // 1_000_000


def advance(fake: FakeStripe, seconds: float) -> None:
    """Have the fake's clock go on."""
    assert isinstance(fake.clock, VirtualClock)
    fake.clock.advance(seconds)


async def make_meter(
    client: StripeClient, event_name: str = "calls", *, formula: str = "sum", window: str = ""
) -> Meter:
    """Make a meter."""
    params: stripe.params.billing.MeterCreateParams = {
        "display_name": event_name.title(),
        "event_name": event_name,
        "default_aggregation": {"formula": formula},
    }
    if window:
        params["event_time_window"] = window
    return await client.v1.billing.meters.create_async(params)


async def send(
    client: StripeClient,
    value: str = "1",
    *,
    event_name: str = "calls",
    customer: str = CUSTOMER,
    identifier: str | None = None,
    timestamp: int | None = None,
    key: str | None = None,
) -> MeterEvent:
    """Send a meter event over v1."""
    params: stripe.params.billing.MeterEventCreateParams = {
        "event_name": event_name,
        "payload": {"stripe_customer_id": customer, "value": value},
    }
    if identifier is not None:
        params["identifier"] = identifier
    if timestamp is not None:
        params["timestamp"] = timestamp
    options: stripe.RequestOptions = {} if key is None else {"idempotency_key": key}
    return await client.v1.billing.meter_events.create_async(params, options)


async def summed(
    client: StripeClient, meter: Meter, start_s: int, end_s: int, customer: str = CUSTOMER
) -> float:
    """Return the one ungrouped summary of a span."""
    summary = await only_summary(client, meter, start_s, end_s, customer)
    return summary.aggregated_value


async def only_summary(
    client: StripeClient, meter: Meter, start_s: int, end_s: int, customer: str = CUSTOMER
) -> MeterEventSummary:
    """Return the ungrouped summary of a span, of which there is one."""
    page = await client.v1.billing.meters.event_summaries.list_async(
        meter.id, {"customer": customer, "start_time": start_s, "end_time": end_s}
    )
    (summary,) = page.data
    return summary
