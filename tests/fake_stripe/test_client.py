"""What Stripe's client does of itself: its requests, its retries, its classes of errors."""

from collections.abc import AsyncIterator

import pytest
import stripe
from stripe import StripeClient

from tallygate_fake_stripe import FakeStripe, Fault, FaultKind

from .clients import CUSTOMER, TEST_KEY, TIMEOUT_S, make_meter, now_s, send

EVENTS = "/v1/billing/meter_events"


@pytest.fixture
async def retrying(
    fake: FakeStripe, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StripeClient]:
    """A client that tries twice again, without waiting."""
    for name in ("INITIAL_DELAY", "MAX_DELAY"):
        monkeypatch.setattr(stripe.HTTPClient, name, 0)
    http = stripe.AIOHTTPClient(timeout=TIMEOUT_S)
    yield StripeClient(
        TEST_KEY, base_addresses={"api": fake.url}, max_network_retries=2, http_client=http
    )
    await http.close_async()  # type: ignore[no-untyped-call]


async def test_v1_is_a_form_with_brackets(client: StripeClient, fake: FakeStripe) -> None:
    """A meter event goes as a form whose hash has literal brackets, with a key and a version."""
    await make_meter(client)
    await send(client, "25", identifier="id-1", timestamp=now_s(fake), key="key-1")
    noted = fake.requests[-1]
    assert noted.said == (
        "event_name=calls&payload[stripe_customer_id]=cus_1&payload[value]=25"
        f"&identifier=id-1&timestamp={now_s(fake)}"
    )
    assert noted.idempotency_key == "key-1"
    assert noted.api_version == "2026-10-28.endive"


async def test_v2_is_json(client: StripeClient, fake: FakeStripe) -> None:
    """Over v2 the same goes as a JSON object."""
    await make_meter(client)
    await client.v2.billing.meter_events.create_async(
        {"event_name": "calls", "payload": {"stripe_customer_id": CUSTOMER, "value": "1"}}
    )
    assert fake.requests[-1].said == (
        '{"event_name": "calls", "payload": {"stripe_customer_id": "cus_1", "value": "1"}}'
    )


async def test_keys_are_made_for_each_call(client: StripeClient, fake: FakeStripe) -> None:
    """Without a key of ours each call has one of its own: a repeat is no retry."""
    await make_meter(client)
    for _ in range(2):
        await send(client)
    keys = [each.idempotency_key for each in fake.requests[-2:]]
    assert None not in keys
    assert len(set(keys)) == 2


@pytest.mark.parametrize(
    ("kind", "attempts"),
    [
        (FaultKind.RATE_LIMITED, 1),
        (FaultKind.LOCK_TIMEOUT, 3),
        (FaultKind.CONFLICT, 3),
        (FaultKind.ERROR_BEFORE, 3),
        (FaultKind.UNAVAILABLE, 3),
        (FaultKind.DROP_BEFORE, 3),
    ],
)
async def test_what_is_tried_again(
    retrying: StripeClient, fake: FakeStripe, kind: FaultKind, attempts: int
) -> None:
    """A 429 is not tried again unless it says so; the rest is, under one key."""
    await make_meter(retrying)
    fake.faults.add(Fault(kind, path=EVENTS))
    with pytest.raises(stripe.StripeError):
        await send(retrying)
    noted = [each for each in fake.requests if each.path == EVENTS]
    assert len(noted) == attempts
    assert len({each.idempotency_key for each in noted}) == 1


async def test_retries_get_through_what_was_cut(retrying: StripeClient, fake: FakeStripe) -> None:
    """An answer that was lost is found again by the client's own retry, under the same key."""
    await make_meter(retrying)
    fake.faults.add(Fault(FaultKind.DROP_AFTER, path=EVENTS, count=2))
    event = await send(retrying, identifier="one")
    assert event.last_response is not None
    assert event.last_response.headers["idempotent-replayed"] == "true"
    assert len(fake.meter_events()) == 1


async def test_without_a_number_nothing_is_tried_again(fake: FakeStripe) -> None:
    """`max_network_retries` left out of a `StripeClient` means none."""
    http = stripe.AIOHTTPClient(timeout=TIMEOUT_S)
    client = StripeClient(TEST_KEY, base_addresses={"api": fake.url}, http_client=http)
    fake.faults.add(Fault(FaultKind.UNAVAILABLE))
    with pytest.raises(stripe.APIError):
        await client.v1.billing.meters.list_async()
    assert len(fake.requests) == 1
    await http.close_async()  # type: ignore[no-untyped-call]
