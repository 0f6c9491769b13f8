"""API keys: wrong, revoked, restricted."""

import pytest
import stripe
from stripe import StripeClient

from tallygate_fake_stripe import FakeStripe

from .clients import connected, make_meter, send

RESTRICTED = "rk_test_sender"


@pytest.mark.parametrize("key", ["pk_test_x", "sk_prod_x", "nonsense-of-some-length"])
async def test_wrong_keys_are_refused(fake: FakeStripe, key: str) -> None:
    """What is no secret key is a 401 that shows the key's ends alone."""
    async with connected(fake.url, key) as client:
        with pytest.raises(stripe.AuthenticationError) as refused:
            await client.v1.billing.meters.list_async()
    assert refused.value.http_status == 401
    if len(key) > 12:
        assert key not in str(refused.value)


async def test_revoked_keys_are_refused(client: StripeClient, fake: FakeStripe) -> None:
    """A key that was taken back is a 401 with its code, until it is given again."""
    await make_meter(client)
    fake.keys.revoke("sk_test_tests")
    with pytest.raises(stripe.AuthenticationError) as refused:
        await send(client)
    assert refused.value.http_status == 401
    assert refused.value.error is not None
    assert refused.value.error.code == "api_key_expired"
    assert fake.meter_events() == []
    fake.keys.restore("sk_test_tests")
    await send(client)


async def test_restricted_keys_do_what_they_may(client: StripeClient, fake: FakeStripe) -> None:
    """A restricted key is refused what it was not given, with the permission it lacks."""
    await make_meter(client)
    fake.keys.restrict(RESTRICTED, frozenset({"billing_meter_event_write"}))
    async with connected(fake.url, RESTRICTED) as sender:
        await send(sender)
        with pytest.raises(stripe.PermissionError, match="rak_billing_meter_write") as refused:
            await make_meter(sender, "other")
        assert refused.value.http_status == 403


async def test_unknown_addresses_are_not_found(client: StripeClient) -> None:
    """An address that is none of Stripe's that the fake has is a 404 that names it."""
    with pytest.raises(stripe.InvalidRequestError, match="GET: /v1/charges") as refused:
        await client.v1.charges.list_async()
    assert refused.value.http_status == 404
