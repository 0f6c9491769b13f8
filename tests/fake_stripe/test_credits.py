"""Credit grants, and alerts."""

import pytest
import stripe
from stripe import StripeClient
from stripe.billing import CreditGrant

from tallygate_fake_stripe import FakeStripe

from .billing import end_january, grace_over, invoices, make_price, subscribe
from .clients import CUSTOMER, DAY_S, advance, make_meter, now_s, send


async def grant(client: StripeClient, value: int, **said: object) -> CreditGrant:
    """Give the customer credits."""
    params = {
        "customer": CUSTOMER,
        "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": value}},
        "applicability_config": {"scope": {"price_type": "metered"}},
        "category": "paid",
        **said,
    }
    return await client.v1.billing.credit_grants.create_async(params)  # type: ignore[arg-type]


async def available(client: StripeClient) -> int:
    """Return what the customer has."""
    summary = await client.v1.billing.credit_balance_summary.retrieve_async(
        {
            "customer": CUSTOMER,
            "filter": {
                "type": "applicability_scope",
                "applicability_scope": {"price_type": "metered"},
            },
        }
    )
    monetary = [balance.available_balance.monetary for balance in summary.balances]
    return sum(each.value for each in monetary if each is not None)


async def test_credits_pay_for_usage_in_order(client: StripeClient, fake: FakeStripe) -> None:
    """Priority first, then what expires first; seats are not paid for; what is left stays."""
    meter = await make_meter(client)
    usage = await make_price(client, meter=meter.id, unit_amount=1)
    seats = await make_price(client, unit_amount=1_000)
    end_s = now_s(fake) + 90 * DAY_S
    last = await grant(client, 500)
    soon = await grant(client, 30, expires_at=end_s)
    first = await grant(client, 20, priority=10)
    expired = await grant(client, 99, expires_at=now_s(fake) + 1)
    subscription = await subscribe(client, {"price": usage.id}, {"price": seats.id})
    assert await available(client) == 649
    await send(client, "100")
    end_january(fake)
    grace_over(fake)
    invoice = (await invoices(client, subscription))[-1]
    assert (invoice.subtotal, invoice.total, invoice.amount_due) == (1_100, 1_000, 1_000)
    entries = await client.v1.billing.credit_balance_transactions.list_async({"customer": CUSTOMER})
    paid = [each for each in entries.data[::-1] if each.type == "debit"]
    assert [each.credit_grant for each in paid] == [first.id, soon.id, last.id]
    assert await available(client) == 450
    assert (await client.v1.billing.credit_grants.retrieve_async(expired.id)).voided_at is None


async def test_grants_end(client: StripeClient, fake: FakeStripe) -> None:
    """A grant can be expired, voided while unused, and given another end."""
    one, two = await grant(client, 10), await grant(client, 20)
    grants = client.v1.billing.credit_grants
    await grants.update_async(one.id, {"expires_at": now_s(fake) + 60, "metadata": {"k": "v"}})
    advance(fake, 60)
    assert await available(client) == 20
    assert (await grants.void_grant_async(two.id)).voided_at == now_s(fake)
    assert await available(client) == 0
    with pytest.raises(stripe.InvalidRequestError):
        await grants.expire_async(two.id)
    assert len((await grants.list_async({"customer": CUSTOMER})).data) == 2


async def test_grants_may_be_for_some_prices(client: StripeClient, fake: FakeStripe) -> None:
    """A grant for certain prices pays for no other."""
    meter = await make_meter(client)
    other = await make_meter(client, "other")
    price = await make_price(client, meter=meter.id, unit_amount=1)
    second = await make_price(client, meter=other.id, unit_amount=1)
    scope = {"scope": {"prices": [{"id": second.id}]}}
    await grant(client, 1_000, applicability_config=scope)
    subscription = await subscribe(client, {"price": price.id}, {"price": second.id})
    await send(client, "5")
    await send(client, "7", event_name="other")
    end_january(fake)
    grace_over(fake)
    assert (await invoices(client, subscription))[-1].amount_due == 5
    seats = await make_price(client)
    with pytest.raises(stripe.InvalidRequestError, match="metered"):
        await grant(client, 1, applicability_config={"scope": {"prices": [{"id": seats.id}]}})


async def test_alerts_tell_once(client: StripeClient, fake: FakeStripe) -> None:
    """An alert is told of when a customer's usage reaches it, once, and only while active."""
    fake.add_customer("cus_2")
    meter = await make_meter(client)
    alerts = client.v1.billing.alerts
    alert = await alerts.create_async(
        {
            "alert_type": "usage_threshold",
            "title": "Ten calls",
            "usage_threshold": {
                "gte": 10,
                "meter": meter.id,
                "recurrence": "one_time",
                "filters": [{"type": "customer", "customer": CUSTOMER}],
            },
        }
    )

    async def told() -> int:
        page = await client.v1.events.list_async({"type": "billing.alert.triggered"})
        return len(page.data)

    await send(client, "9")
    await send(client, "100", customer="cus_2")
    await alerts.deactivate_async(alert.id)
    await send(client, "1")
    assert await told() == 0
    await alerts.activate_async(alert.id)
    await send(client, "1")
    await send(client, "1")
    assert await told() == 1
    assert (await alerts.archive_async(alert.id)).status == "archived"
    with pytest.raises(stripe.InvalidRequestError):
        await alerts.activate_async(alert.id)
    assert [each.id for each in (await alerts.list_async({"meter": meter.id})).data] == [alert.id]
