"""Idempotency keys: what is repeated, what is refused, what is forgotten."""

import pytest
import stripe
from stripe import StripeClient
from stripe.params.v2.billing._meter_event_create_params import MeterEventCreateParams

from tallygate_fake_stripe import FakeStripe, Fault, FaultKind

from .clients import CUSTOMER, DAY_S, advance, make_meter, now_s, send

PAYLOAD = {"stripe_customer_id": CUSTOMER, "value": "1"}
EVENTS = "/v?/billing/meter_events"
HELD_OFF = (
    FaultKind.RATE_LIMITED,
    FaultKind.LOCK_TIMEOUT,
    FaultKind.CONFLICT,
    FaultKind.UNAVAILABLE,
    FaultKind.DROP_BEFORE,
)


async def test_same_request_is_answered_the_same(client: StripeClient, fake: FakeStripe) -> None:
    """A repeat of key and body has the first answer, marked as such, and no effect."""
    await make_meter(client)
    first = await send(client, key="key-1")
    advance(fake, 60)
    again = await send(client, key="key-1")
    assert again.to_dict() == first.to_dict()
    assert first.last_response is not None
    assert again.last_response is not None
    headers = again.last_response.headers
    assert headers["idempotent-replayed"] == "true"
    assert headers["original-request"] == first.last_response.request_id
    assert headers["idempotency-key"] == "key-1"
    assert "idempotent-replayed" not in first.last_response.headers
    assert len(fake.meter_events()) == 1


async def test_other_body_is_refused(client: StripeClient) -> None:
    """The same key with another body, or for another endpoint, is an error of its own class."""
    meter = await make_meter(client)
    await send(client, key="key-1")
    with pytest.raises(stripe.IdempotencyError, match="same parameters") as refused:
        await send(client, "2", key="key-1")
    assert refused.value.http_status == 400
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        await client.v1.billing.meters.deactivate_async(
            meter.id, None, {"idempotency_key": "key-1"}
        )


async def test_keys_are_forgotten_after_a_day(client: StripeClient, fake: FakeStripe) -> None:
    """After 24 hours a key is new: without an identifier the usage counts twice."""
    await make_meter(client)
    await send(client, key="key-1", timestamp=now_s(fake))
    advance(fake, DAY_S - 1)
    await send(client, key="key-1", timestamp=now_s(fake) - DAY_S + 1)
    assert len(fake.meter_events()) == 1
    advance(fake, 1)
    await send(client, key="key-1", timestamp=now_s(fake) - DAY_S)
    assert len(fake.meter_events()) == 2


async def test_keys_and_identifiers_are_two_layers(client: StripeClient) -> None:
    """Another key with the same identifier is a repeat; the same key hides it."""
    await make_meter(client)
    await send(client, identifier="one", key="key-1")
    await send(client, identifier="one", key="key-1")
    replays = []
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError, match="already exists") as refused:
            await send(client, identifier="one", key="key-2")
        headers = refused.value.headers or {}
        assert headers["stripe-should-retry"] == "false"
        replays.append(headers.get("idempotent-replayed"))
    assert replays == [None, "true"]


async def test_v1_remembers_a_500(client: StripeClient, fake: FakeStripe) -> None:
    """A 500 after the effect is repeated for as long as the key lives, under v1."""
    await make_meter(client)
    fake.faults.add(Fault(FaultKind.ERROR_AFTER, path=EVENTS, count=1))
    for _ in range(3):
        with pytest.raises(stripe.APIError) as refused:
            await send(client, identifier="one", key="key-1")
        assert refused.value.http_status == 500
    assert len(fake.meter_events()) == 1
    assert [each.replayed for each in fake.requests[1:]] == [False, True, True]


async def test_v1_remembers_a_500_without_effect(client: StripeClient, fake: FakeStripe) -> None:
    """The same, although nothing had happened: only another key gets through."""
    await make_meter(client)
    fake.faults.add(Fault(FaultKind.ERROR_BEFORE, path=EVENTS, count=1))
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            await send(client, identifier="one", key="key-1")
    assert fake.meter_events() == []
    await send(client, identifier="one", key="key-2")


async def test_v2_finishes_what_failed(client: StripeClient, fake: FakeStripe) -> None:
    """Under v2 a retry of a 500 tells that it had succeeded, or makes it succeed."""
    await make_meter(client)
    events = client.v2.billing.meter_events
    for number, kind in enumerate((FaultKind.ERROR_AFTER, FaultKind.ERROR_BEFORE)):
        fake.faults.add(Fault(kind, path=EVENTS, count=1))
        options: stripe.RequestOptions = {"idempotency_key": kind}
        params: MeterEventCreateParams = {
            "event_name": "calls",
            "payload": PAYLOAD,
            "identifier": kind,
        }
        with pytest.raises(stripe.APIError):
            await events.create_async(params, options)
        assert (await events.create_async(params, options)).identifier == kind
        assert len(fake.meter_events()) == number + 1


async def test_what_did_not_begin_is_not_remembered(client: StripeClient, fake: FakeStripe) -> None:
    """Neither a wrong request nor one that was held off keeps its key from a later success."""
    with pytest.raises(stripe.InvalidRequestError):
        await send(client, key="key-1")
    await make_meter(client)
    for kind in HELD_OFF:
        fake.faults.add(Fault(kind, path=EVENTS, count=1))
        with pytest.raises(stripe.StripeError):
            await send(client, key="key-1")
    await send(client, key="key-1")
    assert len(fake.meter_events()) == 1


async def test_long_keys_are_refused(client: StripeClient) -> None:
    """A key has at most 255 characters."""
    await make_meter(client)
    await send(client, key="x" * 255)
    with pytest.raises(stripe.InvalidRequestError):
        await send(client, key="x" * 256)


async def test_accounts_have_keys_of_their_own(client: StripeClient, live: StripeClient) -> None:
    """The same key in the other mode is another key."""
    await make_meter(client)
    await make_meter(live)
    first, second = await send(client, key="key-1"), await send(live, key="key-1")
    assert (first.livemode, second.livemode) == (False, True)
