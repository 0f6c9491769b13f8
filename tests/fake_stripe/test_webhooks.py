"""What Stripe tells of: error reports and others, signed, delivered again, fetched by id."""

import json
from collections.abc import AsyncIterator

import pytest
import stripe
from stripe import StripeClient
from stripe.events import (
    V1BillingMeterErrorReportTriggeredEventNotification,
    V1BillingMeterNoMeterFoundEventNotification,
)

from tallygate_fake_stripe import FakeStripe, Fault, FaultKind

from .clients import DAY_S, HOUR_S, advance, connected, make_meter, now_s, send
from .receiver import Receiver

REPORTED = "v1.billing.meter.error_report_triggered"
NO_METER = "v1.billing.meter.no_meter_found"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that has been told of nothing yet."""
    async with Receiver() as running:
        yield running


async def test_report_is_joined_by_the_idempotency_key(
    client: StripeClient, fake: FakeStripe, receiver: Receiver
) -> None:
    """A thin notification, verified by Stripe's client, leads to the report and to the meter."""
    fake.behaviour.signed_by_system_clock = True
    meter = await make_meter(client)
    secret = fake.add_webhook(receiver.url, [REPORTED])
    await send(client, customer="cus_none", key="key-1")
    await send(client, "many", key="key-2")
    await receiver.wait_for(2)
    notification = client.parse_event_notification(*receiver.received[0], secret)
    assert isinstance(notification, V1BillingMeterErrorReportTriggeredEventNotification)
    assert "data" not in json.loads(receiver.received[0].body)
    assert notification.related_object.id == meter.id
    assert (await notification.fetch_related_object_async()).id == meter.id
    event = await notification.fetch_event_async()
    assert event.data.reason.error_count == 1
    (kind,) = event.data.reason.error_types
    assert (kind.code, kind.error_count) == ("meter_event_customer_not_found", 1)
    assert [sample.request.identifier for sample in kind.sample_errors] == ["key-1"]
    assert event.data.validation_start <= event.data.validation_end


async def test_reports_are_gathered_and_name_some(
    client: StripeClient, fake: FakeStripe, receiver: Receiver
) -> None:
    """Errors of a meter within the time of a report make one, whose samples are few."""
    await make_meter(client)
    fake.add_webhook(receiver.url)
    fake.behaviour.report_every_s = 300
    fake.behaviour.report_samples_max = 2
    for number in range(5):
        await send(client, customer="cus_none", key=f"lost-{number}")
    await send(client, "many", key="wrong-1")
    await fake.settle()
    assert receiver.received == []
    advance(fake, 300)
    await fake.settle()
    (webhook,) = receiver.received
    event = await client.v2.core.events.retrieve_async(json.loads(webhook.body)["id"])
    reason = event.to_dict()["data"]["reason"]
    assert reason["error_count"] == 6
    assert {kind["code"]: kind["error_count"] for kind in reason["error_types"]} == {
        "meter_event_customer_not_found": 5,
        "meter_event_invalid_value": 1,
    }
    named = [
        sample["request"]["identifier"]
        for kind in reason["error_types"]
        for sample in kind["sample_errors"]
    ]
    assert named == ["lost-0", "lost-1", "wrong-1"]


async def test_events_without_a_meter_have_a_report_of_their_own(
    client: StripeClient, fake: FakeStripe, receiver: Receiver
) -> None:
    """Where no meter was found, the notification has no related object."""
    fake.behaviour.signed_by_system_clock = True
    fake.behaviour.v1_checks_at_once = False
    secret = fake.add_webhook(receiver.url, [NO_METER])
    await send(client, event_name="none", key="key-1")
    await receiver.wait_for(1)
    notification = client.parse_event_notification(*receiver.received[0], secret)
    assert isinstance(notification, V1BillingMeterNoMeterFoundEventNotification)
    event = await notification.fetch_event_async()
    (kind,) = event.data.reason.error_types
    assert (kind.code, kind.sample_errors[0].request.identifier) == ("no_meter", "key-1")


async def test_any_error_can_be_asked_for(client: StripeClient, fake: FakeStripe) -> None:
    """A code that the fake has no way to come to itself is brought about by a fault."""
    await make_meter(client)
    code = "meter_event_dimension_count_too_high"
    fake.faults.add(Fault(FaultKind.ASYNC_ERROR, code=code, count=1))
    await send(client)
    await send(client)
    assert [event.error for event in fake.meter_events()] == [code, None]


async def test_signatures_are_stripes(
    client: StripeClient, fake: FakeStripe, receiver: Receiver
) -> None:
    """A body, a secret or a time that is another one is refused by Stripe's own check."""
    secret = fake.add_webhook(receiver.url)
    await make_meter(client)
    await receiver.wait_for(1)
    body, header = receiver.received[0]
    verify = stripe.WebhookSignature.verify_header
    assert verify(body, header, secret)
    assert header.startswith(f"t={now_s(fake)},v1=")
    for wrong in ((body + b" ", header, secret), (body, header, "whsec_other")):
        with pytest.raises(stripe.SignatureVerificationError):
            verify(*wrong)
    # The fake's time is long ago: whoever guards against replays refuses it.
    with pytest.raises(stripe.SignatureVerificationError, match="tolerance"):
        client.parse_event_notification(body, header, secret)


async def test_deliveries_are_tried_again(
    client: StripeClient, fake: FakeStripe, receiver: Receiver
) -> None:
    """What is not answered with 2xx comes again, later and later, signed anew, under one id."""
    secret = fake.add_webhook(receiver.url)
    receiver.statuses.extend([500, 302, 404])
    await make_meter(client)
    await fake.settle()
    for wait_s in (60, 300, 1_800):
        advance(fake, wait_s - 1)
        assert await fake.settle() == 0
        advance(fake, 1)
        assert await fake.settle() == 1
    assert len({each.body for each in receiver.received}) == 1
    assert len({each.signature for each in receiver.received}) == 4
    assert stripe.WebhookSignature.verify_header(*receiver.received[-1], secret)
    (delivery,) = fake.deliveries
    assert (delivery.state, delivery.attempts, delivery.status) == ("delivered", 4, 200)
    advance(fake, DAY_S)
    assert await fake.settle() == 0


async def test_deliveries_are_given_up_after_three_days(
    client: StripeClient, fake: FakeStripe
) -> None:
    """A receiver that is away for ever is left alone after three days."""
    fake.add_webhook("http://127.0.0.1:1/nobody")
    await make_meter(client)
    for _ in range(4 * 24):
        advance(fake, HOUR_S)
        await fake.settle()
    (delivery,) = fake.deliveries
    assert (delivery.state, delivery.status) == ("given_up", None)
    assert delivery.attempts == 11


async def test_events_can_be_fetched_for_30_days(client: StripeClient, fake: FakeStripe) -> None:
    """An event that nobody was sent can be read, by its id or listed, and then no more."""
    meter = await make_meter(client)
    page = await client.v2.core.events.list_async({"object_id": meter.id})
    (event,) = page.data
    assert event.type == "v1.billing.meter.created"
    advance(fake, 30 * DAY_S)
    await client.v2.core.events.retrieve_async(event.id)
    advance(fake, 1)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v2.core.events.retrieve_async(event.id)
    assert refused.value.http_status == 404


async def test_destinations_are_made_over_v2(
    client: StripeClient, fake: FakeStripe, receiver: Receiver
) -> None:
    """A destination has its secret where it is asked for, and can be switched off."""
    destinations = client.v2.core.event_destinations
    made = await destinations.create_async(
        {
            "name": "usage",
            "type": "webhook_endpoint",
            "event_payload": "thin",
            "enabled_events": ["v1.billing.meter.created"],
            "webhook_endpoint": {"url": receiver.url},
            "include": ["webhook_endpoint.signing_secret", "webhook_endpoint.url"],
        }
    )
    assert made.webhook_endpoint is not None
    assert made.webhook_endpoint.url == receiver.url
    secret = str(made.webhook_endpoint.signing_secret)
    meter = await make_meter(client)
    await client.v1.billing.meters.deactivate_async(meter.id)
    await fake.settle()
    (webhook,) = receiver.received
    assert stripe.WebhookSignature.verify_header(*webhook, secret)
    assert (await destinations.disable_async(made.id)).status == "disabled"
    await make_meter(client, "other")
    await fake.settle()
    assert len(receiver.received) == 1
    assert (await destinations.enable_async(made.id)).status == "enabled"
    await destinations.delete_async(made.id)
    with pytest.raises(stripe.InvalidRequestError):
        await destinations.retrieve_async(made.id)


async def test_snapshots_are_sent_to_endpoints_of_v1(
    client: StripeClient, fake: FakeStripe, receiver: Receiver
) -> None:
    """A v1 endpoint gets whole objects, as `construct_event` reads them."""
    fake.behaviour.signed_by_system_clock = True
    endpoint = await client.v1.webhook_endpoints.create_async(
        {"url": receiver.url, "enabled_events": ["invoice.created"]}
    )
    await client.v1.invoices.create_async({"customer": "cus_1", "currency": "usd"})
    await receiver.wait_for(1)
    event = client.construct_event(*receiver.received[0], str(endpoint.secret))
    assert event.type == "invoice.created"
    assert event.data.object["customer"] == "cus_1"
    assert (await client.v1.events.retrieve_async(event.id)).type == event.type
    await client.v1.webhook_endpoints.delete_async(endpoint.id)


async def test_connected_accounts_are_followed(fake: FakeStripe, receiver: Receiver) -> None:
    """A notification of a connected account says so, and what is fetched is that account's."""
    fake.behaviour.signed_by_system_clock = True
    secret = fake.add_webhook(receiver.url, account="acct_other")
    async with (
        connected(fake.url, account="acct_other") as other,
        connected(fake.url) as platform,
    ):
        meter = await make_meter(other)
        await receiver.wait_for(1)
        notification = platform.parse_event_notification(*receiver.received[0], secret)
        assert str(notification.context) == "acct_other"
        event = await notification.fetch_event_async()
        assert event.to_dict()["related_object"]["id"] == meter.id
        with pytest.raises(stripe.InvalidRequestError):
            await platform.v1.billing.meters.retrieve_async(meter.id)
