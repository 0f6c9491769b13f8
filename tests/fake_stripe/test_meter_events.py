"""Meter events over v1: what is taken, what is refused, what is told of later."""

import pytest
import stripe
from stripe import StripeClient

from tallygate_fake_stripe import FakeStripe, UnknownCustomer

from .clients import CUSTOMER, DAY_S, HOUR_S, advance, make_meter, now_s, send, summed


async def test_event_has_every_field(client: StripeClient, fake: FakeStripe) -> None:
    """An event that was taken has the fields of Stripe's; it has no id."""
    await make_meter(client)
    event = await send(client, "25", identifier="one", timestamp=now_s(fake) - 60)
    assert event.to_dict() == {
        "object": "billing.meter_event",
        "created": now_s(fake),
        "event_name": "calls",
        "identifier": "one",
        "livemode": False,
        "payload": {"stripe_customer_id": CUSTOMER, "value": "25"},
        "timestamp": now_s(fake) - 60,
    }
    assert event.last_response is not None
    assert event.last_response.request_id is not None
    assert event.last_response.request_id.startswith("req_")


async def test_identifier_and_timestamp_may_be_left_out(
    client: StripeClient, fake: FakeStripe
) -> None:
    """Without them an event has an identifier of its own, and the present."""
    await make_meter(client)
    first, second = await send(client), await send(client)
    assert first.identifier != second.identifier
    assert first.timestamp == now_s(fake)


async def test_repeated_identifiers_are_refused_as_v1_does(client: StripeClient) -> None:
    """A repeat is a 400 without a code, known by its message, that must not be tried again."""
    await make_meter(client)
    await send(client, identifier="one")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await send(client, "2", identifier="one")
    error = refused.value
    assert (error.http_status, error.code, error.param) == (400, None, None)
    assert error.user_message == "An event already exists with identifier one."
    assert (error.headers or {})["stripe-should-retry"] == "false"
    assert error.error is not None
    assert error.error.type == "invalid_request_error"


async def test_identifiers_are_free_again_after_a_day(
    client: StripeClient, fake: FakeStripe
) -> None:
    """The hole: an identifier counts again once 24 hours are over, and not a second before."""
    meter = await make_meter(client)
    at_s = now_s(fake)
    await send(client, identifier="one", timestamp=at_s)
    advance(fake, DAY_S - 1)
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        await send(client, identifier="one", timestamp=at_s)
    advance(fake, 1)
    await send(client, identifier="one", timestamp=at_s)
    assert await summed(client, meter, at_s, at_s + 60) == 2
    fake.behaviour.identifier_window_s = 2 * DAY_S
    advance(fake, DAY_S)
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        await send(client, identifier="one", timestamp=at_s)


async def test_refused_events_leave_their_identifier_free(client: StripeClient) -> None:
    """What is refused at once has taken nothing: the same identifier is good afterwards."""
    with pytest.raises(stripe.InvalidRequestError):
        await send(client, identifier="one")
    await make_meter(client)
    await send(client, identifier="one")


@pytest.mark.parametrize(
    ("offset_s", "taken"),
    [(-35 * DAY_S, True), (-35 * DAY_S - 1, False), (300, True), (301, False)],
)
async def test_timestamps_are_bounded(
    client: StripeClient, fake: FakeStripe, offset_s: int, *, taken: bool
) -> None:
    """35 days back and 5 minutes ahead are taken; a second more is refused in words alone."""
    await make_meter(client)
    timestamp = now_s(fake) + offset_s
    if taken:
        assert (await send(client, timestamp=timestamp)).timestamp == timestamp
        return
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await send(client, timestamp=timestamp)
    assert (refused.value.code, refused.value.param) == (None, "timestamp")
    bound = "35 days in past" if offset_s < 0 else "5 minutes in future"
    assert bound in str(refused.value.user_message)


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"payload": {"stripe_customer_id": "cus_1", "value": "1"}}, "event_name"),
        ({"event_name": "calls"}, "payload"),
        ({"event_name": "calls", "payload": {"value": {"deep": "1"}}}, "payload[value]"),
        ({"event_name": "calls", "payload": "flat"}, "payload"),
        ({"event_name": "calls", "payload": {"value": "1"}, "identifier": "x" * 101}, "identifier"),
        ({"event_name": "calls", "payload": {"value": "1"}, "timestamp": "soon"}, "timestamp"),
        ({"event_name": "calls", "payload": {"value": "1"}, "value": "1"}, "value"),
        ({"event_name": "none", "payload": {"value": "1"}}, "event_name"),
    ],
)
async def test_wrong_shapes_are_refused_at_once(
    client: StripeClient, fake: FakeStripe, params: dict[str, object], param: str
) -> None:
    """A parameter that is missing, nested, too long, no number or unknown is named."""
    await make_meter(client)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.billing.meter_events.create_async(params)  # type: ignore[arg-type]
    assert refused.value.param == param
    assert fake.meter_events() == []


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("0", None),
        ("-17", None),
        ("0.000000000001", None),
        ("123456789012345", None),
        ("1234567890.12345", None),
        ("1234567890123456", "meter_event_value_too_many_digits"),
        ("1e3", "meter_event_invalid_value"),
        ("1,5", "meter_event_invalid_value"),
        ("+1", "meter_event_invalid_value"),
        ("NaN", "meter_event_invalid_value"),
        ("", "meter_event_value_not_found"),
    ],
)
async def test_values_are_judged_later(
    client: StripeClient, fake: FakeStripe, value: str, error: str | None
) -> None:
    """Any value is taken; decimals of up to 15 digits count, others have an error."""
    await make_meter(client)
    await send(client, value)
    (event,) = fake.meter_events()
    assert event.error == error
    assert (event.applied_us is not None) == (error is None)
    if error is None:
        assert str(fake.total("calls", CUSTOMER, 0, 2**40)) == f"{event.value}"


async def test_whole_values_only_is_a_switch(client: StripeClient, fake: FakeStripe) -> None:
    """As older documentation has it, decimals can be refused."""
    await make_meter(client)
    fake.behaviour.whole_values_only = True
    await send(client, "1.5")
    (event,) = fake.meter_events()
    assert event.error == "meter_event_invalid_value"


@pytest.mark.parametrize("mode", list(UnknownCustomer))
async def test_unknown_customers_are_disputed(
    client: StripeClient, fake: FakeStripe, mode: UnknownCustomer
) -> None:
    """Usage for a customer that is not there is told of later, or refused, or taken."""
    await make_meter(client)
    fake.behaviour.unknown_customer = mode
    if mode is UnknownCustomer.REFUSE:
        with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
            await send(client, customer="cus_none")
        return
    await send(client, customer="cus_none")
    (event,) = fake.meter_events()
    refused = mode is UnknownCustomer.REPORT
    assert event.error == ("meter_event_customer_not_found" if refused else None)


async def test_checks_at_once_are_a_switch(client: StripeClient, fake: FakeStripe) -> None:
    """Without them timestamps and names without a meter are taken, and told of later."""
    await make_meter(client)
    fake.behaviour.v1_checks_at_once = False
    await send(client, event_name="none")
    await send(client, timestamp=now_s(fake) - 36 * DAY_S)
    await send(client, timestamp=now_s(fake) + HOUR_S)
    errors = [event.error for event in fake.meter_events()]
    assert errors == ["no_meter", "timestamp_too_far_in_past", "timestamp_in_future"]


async def test_usage_shows_after_its_lag(client: StripeClient, fake: FakeStripe) -> None:
    """An event is taken at once and counts once its lag is over."""
    meter = await make_meter(client)
    fake.behaviour.lag_s = 120
    start_s = now_s(fake)
    await send(client, "5", timestamp=start_s)
    advance(fake, 119)
    assert await summed(client, meter, start_s, start_s + 60) == 0
    advance(fake, 1)
    assert await summed(client, meter, start_s, start_s + 60) == 5


async def test_keys_of_the_payload_may_be_chosen(client: StripeClient, fake: FakeStripe) -> None:
    """A meter that maps other keys reads the customer and the value from them."""
    await client.v1.billing.meters.create_async(
        {
            "display_name": "Bytes",
            "event_name": "bytes",
            "default_aggregation": {"formula": "sum"},
            "customer_mapping": {"type": "by_id", "event_payload_key": "who"},
            "value_settings": {"event_payload_key": "bytes"},
        }
    )
    await client.v1.billing.meter_events.create_async(
        {"event_name": "bytes", "payload": {"who": CUSTOMER, "bytes": "7", "region": "eu"}}
    )
    assert fake.total("bytes", CUSTOMER, 0, 2**40) == 7
