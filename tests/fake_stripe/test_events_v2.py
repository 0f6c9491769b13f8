"""Usage over v2: checked at once with codes, or streamed and judged later."""

from datetime import UTC, datetime, timedelta

import pytest
import stripe
from stripe import StripeClient
from stripe.params.v2.billing._meter_event_stream_create_params import (
    MeterEventStreamCreateParamsEvent,
)

from tallygate_fake_stripe import FakeStripe, VirtualClock

from .clients import CUSTOMER, DAY_S, LIVE_KEY, advance, connected, make_meter, now_s

PAYLOAD = {"stripe_customer_id": CUSTOMER, "value": "3"}
# What Stripe's own client cannot be made to send goes as it is.
RAW = "/v2/billing/meter_events"


def instant(fake: FakeStripe, offset_s: int = 0) -> str:
    """Return an instant as v2 writes it."""
    return (datetime.fromtimestamp(now_s(fake), UTC) + timedelta(seconds=offset_s)).isoformat()


async def test_event_has_every_field(client: StripeClient, fake: FakeStripe) -> None:
    """An event over v2 has its times in RFC 3339."""
    await make_meter(client)
    event = await client.v2.billing.meter_events.create_async(
        {
            "event_name": "calls",
            "payload": PAYLOAD,
            "identifier": "one",
            "timestamp": "2025-12-31T23:00:00.5+01:00",
        }
    )
    assert event.to_dict() == {
        "object": "v2.billing.meter_event",
        "created": "2026-01-01T00:00:00.000Z",
        "event_name": "calls",
        "identifier": "one",
        "livemode": False,
        "payload": PAYLOAD,
        "timestamp": "2025-12-31T22:00:00.000Z",
    }
    assert fake.total("calls", CUSTOMER, 0, now_s(fake)) == 3


async def test_repeated_identifiers_have_a_code(client: StripeClient) -> None:
    """A repeat is `duplicate_meter_event`, whichever API took the first."""
    await make_meter(client)
    await client.v1.billing.meter_events.create_async(
        {"event_name": "calls", "payload": PAYLOAD, "identifier": "one"}
    )
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v2.billing.meter_events.create_async(
            {"event_name": "calls", "payload": PAYLOAD, "identifier": "one"}
        )
    assert (refused.value.http_status, refused.value.code) == (400, "duplicate_meter_event")


@pytest.mark.parametrize(
    ("name", "payload", "code"),
    [
        ("none", PAYLOAD, "no_meter"),
        ("old", PAYLOAD, "archived_meter"),
        ("calls", {"value": "1"}, "payload_no_customer_defined"),
        ("calls", {"stripe_customer_id": CUSTOMER}, "payload_no_value_defined"),
        ("calls", PAYLOAD | {"value": "many"}, "payload_invalid_value"),
        ("calls", PAYLOAD | {"value": "1" * 16}, "payload_invalid_value"),
    ],
)
async def test_faults_have_codes(
    client: StripeClient, fake: FakeStripe, name: str, payload: dict[str, str], code: str
) -> None:
    """Each fault that v2 finds at once has the code that its specification has."""
    await make_meter(client)
    old = await make_meter(client, "old")
    await client.v1.billing.meters.deactivate_async(old.id)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v2.billing.meter_events.create_async({"event_name": name, "payload": payload})
    assert (refused.value.http_status, refused.value.code) == (400, code)
    assert fake.meter_events() == []


async def test_counting_needs_no_value(client: StripeClient, fake: FakeStripe) -> None:
    """A meter that counts asks for no value."""
    await make_meter(client, formula="count")
    await client.v2.billing.meter_events.create_async(
        {"event_name": "calls", "payload": {"stripe_customer_id": CUSTOMER}}
    )
    assert fake.total("calls", CUSTOMER, 0, 2**40) == 1


@pytest.mark.parametrize("timestamp", ["1767225600", "soon", "2026-01-01T00:00:00", 1_767_225_600])
async def test_timestamps_are_rfc_3339(client: StripeClient, timestamp: object) -> None:
    """Seconds, words and instants without an offset are no timestamps of v2."""
    await make_meter(client)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.raw_request_async(
            "post", RAW, event_name="calls", payload=PAYLOAD, timestamp=timestamp
        )
    assert refused.value.param == "timestamp"


@pytest.mark.parametrize(("offset_s", "past"), [(-36 * DAY_S, True), (301, False)])
async def test_timestamps_are_bounded(
    client: StripeClient, fake: FakeStripe, offset_s: int, *, past: bool
) -> None:
    """The bounds are those of v1."""
    await make_meter(client)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v2.billing.meter_events.create_async(
            {"event_name": "calls", "payload": PAYLOAD, "timestamp": instant(fake, offset_s)}
        )
    assert refused.value.code == ("timestamp_too_far_in_past" if past else "timestamp_in_future")


@pytest.mark.parametrize("value", [3, None, ["3"], {"deep": "3"}])
async def test_values_are_strings(client: StripeClient, value: object) -> None:
    """A value that is no JSON string is refused, and named."""
    await make_meter(client)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.raw_request_async(
            "post", RAW, event_name="calls", payload={**PAYLOAD, "value": value}
        )
    assert refused.value.param == "payload[value]"


async def test_adjustments_have_ids(client: StripeClient, fake: FakeStripe) -> None:
    """Over v2 an adjustment has an id and its time."""
    await make_meter(client)
    await client.v2.billing.meter_events.create_async(
        {"event_name": "calls", "payload": PAYLOAD, "identifier": "one"}
    )
    adjustment = await client.v2.billing.meter_event_adjustments.create_async(
        {"event_name": "calls", "type": "cancel", "cancel": {"identifier": "one"}}
    )
    assert adjustment.object == "v2.billing.meter_event_adjustment"
    assert adjustment.id
    assert (adjustment.status, adjustment.created) == ("pending", "2026-01-01T00:00:00.000Z")
    assert fake.total("calls", CUSTOMER, 0, 2**40) == 0


async def test_stream_takes_batches_under_a_token(live: StripeClient, fake: FakeStripe) -> None:
    """A batch is taken under a session's token; repeats within it and after it count once."""
    await make_meter(live)
    session = await live.v2.billing.meter_event_session.create_async()
    assert session.expires_at == "2026-01-01T00:15:00.000Z"
    token: stripe.RequestOptions = {"api_key": session.authentication_token}
    events: list[MeterEventStreamCreateParamsEvent] = [
        {"event_name": "calls", "payload": PAYLOAD, "identifier": f"event-{number % 60}"}
        for number in range(100)
    ]
    stream = live.v2.billing.meter_event_stream
    for _ in range(2):
        await stream.create_async({"events": events}, token)
    assert fake.total("calls", CUSTOMER, 0, 2**40, livemode=True) == 3 * 60


async def test_stream_judges_later(live: StripeClient, fake: FakeStripe) -> None:
    """What is wrong with an event of a batch keeps nobody from the rest of it."""
    await make_meter(live)
    session = await live.v2.billing.meter_event_session.create_async()
    too_old = instant(fake, -36 * DAY_S)
    await live.v2.billing.meter_event_stream.create_async(
        {
            "events": [
                {"event_name": "none", "payload": PAYLOAD},
                {"event_name": "calls", "payload": PAYLOAD, "timestamp": too_old},
                {"event_name": "calls", "payload": PAYLOAD},
            ]
        },
        {"api_key": session.authentication_token, "idempotency_key": "batch-1"},
    )
    events = fake.meter_events(livemode=True)
    assert [event.error for event in events] == ["no_meter", "timestamp_too_far_in_past", None]
    assert {event.idempotency_key for event in events} == {"batch-1"}


@pytest.mark.parametrize("count", [0, 101])
async def test_batches_are_bounded(live: StripeClient, fake: FakeStripe, count: int) -> None:
    """An empty batch and one of more than 100 are refused whole."""
    await make_meter(live)
    session = await live.v2.billing.meter_event_session.create_async()
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await live.v2.billing.meter_event_stream.create_async(
            {"events": [{"event_name": "calls", "payload": PAYLOAD}] * count},
            {"api_key": session.authentication_token},
        )
    assert refused.value.param == "events"
    assert fake.meter_events(livemode=True) == []


async def test_sessions_end_after_15_minutes(live: StripeClient, fake: FakeStripe) -> None:
    """A token is good for 15 minutes less a second, then it is an error of its own class."""
    await make_meter(live)
    session = await live.v2.billing.meter_event_session.create_async()

    async def stream() -> None:
        await live.v2.billing.meter_event_stream.create_async(
            {"events": [{"event_name": "calls", "payload": PAYLOAD}]},
            {"api_key": session.authentication_token},
        )

    advance(fake, 15 * 60 - 1)
    await stream()
    advance(fake, 1)
    with pytest.raises(stripe.TemporarySessionExpiredError) as expired:
        await stream()
    assert expired.value.http_status == 401
    assert expired.value.code == "billing_meter_event_session_expired"


async def test_stream_takes_no_keys(live: StripeClient) -> None:
    """An API key is no token of the stream."""
    with pytest.raises(stripe.AuthenticationError):
        await live.v2.billing.meter_event_stream.create_async(
            {"events": [{"event_name": "calls", "payload": PAYLOAD}]}
        )


async def test_stream_is_live_only_by_a_switch(client: StripeClient, fake: FakeStripe) -> None:
    """In a sandbox no session begins, unless the switch says so."""
    with pytest.raises(stripe.InvalidRequestError, match="live mode"):
        await client.v2.billing.meter_event_session.create_async()
    fake.behaviour.stream_live_only = False
    assert (await client.v2.billing.meter_event_session.create_async()).authentication_token


async def test_v2_bodies_are_json(fake: FakeStripe) -> None:
    """A body that is no JSON object is refused with a code."""
    clock = VirtualClock()
    assert clock.now_us() == fake.clock.now_us()
    async with connected(fake.url, LIVE_KEY) as client:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await client.raw_request_async("post", RAW)
    assert refused.value.param == "event_name"
