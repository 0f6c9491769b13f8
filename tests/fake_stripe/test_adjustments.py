"""Adjustments: an event is cancelled within 24 hours, pending first, then complete."""

import pytest
import stripe
from stripe import StripeClient
from stripe.billing import MeterEventAdjustment

from tallygate_fake_stripe import FakeStripe

from .clients import DAY_S, advance, make_meter, now_s, send, summed


async def cancel(
    client: StripeClient, identifier: str, name: str = "calls"
) -> MeterEventAdjustment:
    """Cancel an event over v1."""
    return await client.v1.billing.meter_event_adjustments.create_async(
        {"event_name": name, "type": "cancel", "cancel": {"identifier": identifier}}
    )


async def test_cancelled_events_count_no_more(client: StripeClient, fake: FakeStripe) -> None:
    """An adjustment is pending while its lag lasts; after it the event does not count."""
    meter = await make_meter(client)
    fake.behaviour.lag_s = 60
    start_s = now_s(fake)
    await send(client, "5", identifier="one")
    await send(client, "7", identifier="two")
    adjustment = await cancel(client, "one")
    assert adjustment.to_dict() == {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": "one"},
        "event_name": "calls",
        "livemode": False,
        "status": "pending",
        "type": "cancel",
    }
    advance(fake, 60)
    assert await summed(client, meter, start_s, start_s + 60) == 7
    assert [each["status"] for each in fake.world().adjustments] == ["complete"]


async def test_cancelling_is_bound_to_a_day(client: StripeClient, fake: FakeStripe) -> None:
    """24 hours after its receipt an event can still be cancelled, a second later it cannot."""
    await make_meter(client)
    fake.behaviour.identifier_window_s = 2 * DAY_S
    await send(client, identifier="one")
    await send(client, identifier="two")
    advance(fake, DAY_S)
    await cancel(client, "one")
    advance(fake, 1)
    with pytest.raises(stripe.InvalidRequestError, match="24 hours") as refused:
        await cancel(client, "two")
    assert refused.value.param == "cancel[identifier]"


async def test_unknown_events_are_not_cancelled(client: StripeClient) -> None:
    """Neither is an identifier of another meter, nor an event twice."""
    await make_meter(client)
    await make_meter(client, "other")
    await send(client, identifier="one")
    for identifier, name in (("none", "calls"), ("one", "other")):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await cancel(client, identifier, name)
        assert refused.value.code == "resource_missing"
    await cancel(client, "one")
    with pytest.raises(stripe.InvalidRequestError, match="cancelled already"):
        await cancel(client, "one")


async def test_cancelled_identifiers_stay_taken(client: StripeClient) -> None:
    """A correction needs an identifier of its own."""
    await make_meter(client)
    await send(client, identifier="one")
    await cancel(client, "one")
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        await send(client, identifier="one")


async def test_what_was_overwritten_counts_again(client: StripeClient, fake: FakeStripe) -> None:
    """On a pre-aggregated meter, the event before the cancelled one is the last again."""
    meter = await make_meter(client, window="hour")
    start_s = now_s(fake)
    await send(client, "5", identifier="one")
    await send(client, "9", identifier="two")
    await cancel(client, "two")
    assert await summed(client, meter, start_s, start_s + 60) == 5
