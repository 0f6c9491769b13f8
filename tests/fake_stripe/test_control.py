"""The control surface: what other processes and languages say to the fake, over HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import stripe
from stripe import StripeClient

from tallygate_fake_stripe import FakeStripe, SystemClock

from .billing import make_price, subscribe
from .clients import CUSTOMER, DAY_S, advance, connected, make_meter, now_s, send
from .receiver import Receiver

Ask = Callable[..., Awaitable[Any]]
EVENTS = "/v1/billing/meter_events"


@pytest.fixture
async def ask(fake: FakeStripe) -> AsyncIterator[Ask]:
    """Ask the fake something: method, path, body; a refusal is its message."""
    async with aiohttp.ClientSession() as session:

        async def asked(method: str, path: str, body: object = None) -> Any:
            async with session.request(method, f"{fake.url}/_fake/{path}", json=body) as response:
                answer = await response.json()
                if response.status == 200:
                    return answer
                return (response.status, answer["error"].get("param"))

        yield asked


async def test_clock_is_moved(ask: Ask, fake: FakeStripe) -> None:
    """The clock goes on by so much, or to an instant, and never back."""
    start_s = now_s(fake)
    assert (await ask("GET", "clock"))["virtual"]
    assert (await ask("POST", "clock", {"advance_s": 90}))["now_s"] == start_s + 90
    moved = await ask("POST", "clock", {"now_s": start_s + DAY_S})
    assert moved["now_us"] == (start_s + DAY_S) * 1_000_000
    for wrong in ({"advance_s": -1}, {"now_s": start_s}, {"advance_s": "x"}, {}, {"back_s": 1}):
        status, _ = await ask("POST", "clock", wrong)
        assert status == 400
    assert now_s(fake) == start_s + DAY_S


async def test_clock_of_the_system_is_not_moved() -> None:
    """A fake on the machine's clock says that it cannot be moved."""
    async with (
        FakeStripe(SystemClock()) as fake,
        aiohttp.ClientSession() as session,
        session.post(f"{fake.url}/_fake/clock", json={"advance_s": 1}) as response,
    ):
        assert response.status == 400


async def test_faults_are_added_and_ended(ask: Ask, client: StripeClient, fake: FakeStripe) -> None:
    """A fault is put to work, read with what it did, let go and ended, by its number."""
    await make_meter(client)
    added = await ask("POST", "faults", {"kind": "drop_after", "path": EVENTS, "count": 1})
    with pytest.raises(stripe.APIConnectionError):
        await send(client)
    (shown,) = (await ask("GET", "faults"))["data"]
    assert (shown["id"], shown["struck"], shown["kind"]) == (added["id"], 1, "drop_after")
    held = await ask("POST", "faults", {"kind": "hold"})
    assert (await ask("POST", f"release/{held['id']}"))["holding"] == 0
    await ask("DELETE", f"faults/{added['id']}")
    assert len(list(fake.faults)) == 1
    await ask("DELETE", "faults")
    assert list(fake.faults) == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "kind"),
        ({"kind": "none"}, None),
        ({"kind": "hold", "speed": 1}, "speed"),
        ({"kind": "hold", "path": ["x"]}, "path"),
        ({"kind": "hold", "every": 0}, None),
        ({"kind": "rate_limited", "reason": "mood"}, None),
        ({"kind": "hold", "count": "often"}, "count"),
        ({"kind": "hold", "delay_s": True}, "delay_s"),
        ({"kind": "hold", "every": None}, None),
    ],
)
async def test_wrong_faults_are_refused(
    ask: Ask, fake: FakeStripe, body: object, param: str | None
) -> None:
    """A fault that says nothing sensible is a 400, and none is put to work."""
    assert await ask("POST", "faults", body) == (400, param)
    assert list(fake.faults) == []


async def test_switches_are_read_and_set(ask: Ask, fake: FakeStripe) -> None:
    """Switches are set by name, all that were sent or none."""
    assert (await ask("GET", "switches"))["lag_s"] == 0
    answer = await ask("POST", "switches", {"lag_s": 120, "unknown_customer": "accept"})
    assert (answer["lag_s"], answer["unknown_customer"]) == (120, "accept")
    assert (fake.behaviour.lag_s, fake.behaviour.unknown_customer) == (120, "accept")
    for wrong in (
        {"lag_s": 1, "speed": 2},
        {"lag_s": 1, "rate_limited": 1},
        {"lag_s": -1},
        {"lag_s": True},
        {"lag_s": 1, "unknown_customer": "shrug"},
    ):
        status, _ = await ask("POST", "switches", wrong)
        assert status == 400
    assert fake.behaviour.lag_s == 120


async def test_usage_is_dumped_exactly(ask: Ask, client: StripeClient, fake: FakeStripe) -> None:
    """Every event with what became of it, and totals as decimals, are read in pages."""
    await make_meter(client)
    for value in ("0.1", "0.2", "many"):
        await send(client, value)
    dumped = await ask("GET", "meter_events?limit=2&offset=1")
    assert dumped["total"] == 3
    assert [event["value"] for event in dumped["data"]] == ["0.2", "0"]
    assert [event["error"] for event in dumped["data"]] == [None, "meter_event_invalid_value"]
    (total,) = (await ask("GET", "totals"))["data"]
    assert (total["event_name"], total["customer"], total["total"]) == ("calls", CUSTOMER, "0.3")
    assert (await ask("GET", "totals?livemode=true"))["data"] == []
    for wrong in ("limit=x", "limit=10001", "offset=-1"):
        assert (await ask("GET", f"meter_events?{wrong}"))[0] == 400


async def test_requests_are_dumped(ask: Ask, client: StripeClient) -> None:
    """Calls are noted; what is said to the fake itself is not."""
    await make_meter(client)
    noted = await ask("GET", "requests")
    assert [(each["method"], each["status"]) for each in noted["data"]] == [("POST", 200)]
    state = await ask("GET", "state")
    assert state["requests"] == {"200": 1}
    accounts = {(each["account"], each["livemode"]): each for each in state["accounts"]}
    assert accounts["acct_fake", False]["meters"] == 1


async def test_customers_keys_and_webhooks_are_set_up(
    ask: Ask, client: StripeClient, fake: FakeStripe
) -> None:
    """What Python says by methods, others say over HTTP."""
    await make_meter(client)
    assert (await ask("POST", "customers", {"ids": ["cus_7", "cus_8"]}))["customers"] == 3
    await send(client, "5", customer="cus_7")
    assert fake.total("calls", "cus_7", 0, 2**40) == 5
    async with Receiver() as receiver:
        made = await ask("POST", "webhooks", {"url": receiver.url})
        assert made["secret"].startswith("whsec_")
        await make_meter(client, "other")
        await ask("POST", "settle")
        await receiver.wait_for(1)
        (delivery,) = (await ask("GET", "deliveries"))["data"]
        assert (delivery["state"], delivery["attempts"]) == ("delivered", 1)
    await ask("POST", "keys", {"key": "sk_test_tests", "revoked": True})
    with pytest.raises(stripe.AuthenticationError):
        await send(client)
    await ask("POST", "keys", {"key": "sk_test_tests"})
    await send(client)
    await ask("POST", "keys", {"key": "rk_test_x", "permissions": ["billing_meter_read"]})
    async with connected(fake.url, "rk_test_x") as reader:
        await reader.v1.billing.meters.list_async()
        with pytest.raises(stripe.PermissionError):
            await send(reader)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("none", {}, 404),
        ("customers", {"ids": "cus_1"}, 400),
        ("customers", {"ids": [""]}, 400),
        ("webhooks", {"url": "ftp://x"}, 400),
        ("webhooks", {"url": "http://x", "events": [1]}, 400),
        ("keys", {}, 400),
        ("release/77", {}, 404),
        ("release/x", {}, 400),
        ("clock", [1], 400),
    ],
)
async def test_wrong_requests_are_refused(ask: Ask, path: str, body: object, status: int) -> None:
    """What the control surface does not understand is refused with a sentence."""
    assert (await ask("POST", path, body))[0] == status


async def test_advancing_delivers_what_fell_due(
    ask: Ask, client: StripeClient, fake: FakeStripe
) -> None:
    """The answer to a leap of the clock comes once its webhooks were attempted."""
    async with Receiver() as receiver:
        receiver.statuses.append(500)
        await ask("POST", "webhooks", {"url": receiver.url})
        await make_meter(client)
        await fake.settle()
        await ask("POST", "clock", {"advance_s": 60})
        assert len(receiver.received) == 2
    advance(fake, 1)


async def test_changes_and_resets(ask: Ask, client: StripeClient, fake: FakeStripe) -> None:
    """Changes of quantities are read with their flags; a reset leaves the time and the switches."""
    price = await make_price(client)
    subscription = await subscribe(client, {"price": price.id})
    item = subscription["items"].data[0].id
    await client.v1.subscription_items.update_async(
        item, {"quantity": 4, "proration_behavior": "none"}
    )
    (change,) = (await ask("GET", "changes"))["data"]
    assert change == {
        "subscription": subscription.id,
        "subscription_item": item,
        "what": "changed",
        "at": now_s(fake),
        "price": price.id,
        "quantity": 4,
        "proration_behavior": "none",
    }
    await ask("POST", "switches", {"lag_s": 7})
    await ask("POST", "reset")
    assert (await ask("GET", "changes"))["data"] == []
    assert (await ask("GET", "state"))["accounts"] == [
        {
            "account": "acct_fake",
            "livemode": False,
            "meters": 0,
            "customers": 0,
            "meter_events": 0,
        }
    ]
    assert fake.behaviour.lag_s == 7
