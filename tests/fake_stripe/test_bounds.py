"""Everything is bounded, and says so; what is sent at random is never a crash."""

import asyncio
from dataclasses import fields
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from tallygate_fake_stripe import Behaviour, Caps, FakeStripe, Fault, FaultKind, VirtualClock
from tallygate_fake_stripe import clock as clocks
from tallygate_fake_stripe.clock import Schedule
from tallygate_fake_stripe.errors import StripeFault
from tallygate_fake_stripe.forms import form

from .billing import make_price, subscribe
from .clients import CUSTOMER, DAY_S, TEST_KEY, TIMEOUT_S, connected, make_meter, send

SMALL = Caps(meter_events=2, objects=2, idempotency_keys=4, worlds=3, faults=1, requests=3)


@pytest.mark.parametrize("name", [each.name for each in fields(Caps)])
async def test_caps_are_held(name: str) -> None:
    """Past a cap a call is refused as `fake_full`; logs forget their oldest instead."""
    caps = Caps(**{name: getattr(SMALL, name)})
    behaviour = Behaviour(rate_limited=False)
    clock = VirtualClock()
    async with (
        FakeStripe(clock, behaviour=behaviour, caps=caps, customers=[CUSTOMER]) as fake,
        connected(fake.url) as client,
    ):
        await make_meter(client)
        full: list[str] = []
        for number in range(4):
            async with connected(fake.url, TEST_KEY, account=f"acct_{number}") as other:
                try:
                    await make_meter(client, f"meter_{number}")
                    await send(client)
                    await other.v1.billing.meters.list_async()
                    fake.faults.add(Fault(FaultKind.HOLD, path="/none"))
                except (stripe.InvalidRequestError, StripeFault) as error:
                    full.append(str(error.code))
        logs = {"requests", "deliveries", "body_bytes"}
        assert set(full) == (set() if name in logs else {"fake_full"})
        assert len(fake.requests) <= caps.requests


async def test_what_falls_due_without_room_is_told_for_ever() -> None:
    """What could not be kept at its time makes every later call a refusal, until a reset."""
    behaviour = Behaviour(rate_limited=False)
    clock = VirtualClock()
    async with (
        FakeStripe(clock, behaviour=behaviour, caps=Caps(objects=2), customers=[CUSTOMER]) as fake,
        connected(fake.url) as client,
    ):
        price = await make_price(client)
        await subscribe(client, {"price": price.id})
        clock.advance(32 * DAY_S)
        await client.v1.invoices.list_async()
        clock.advance(32 * DAY_S)
        for _ in range(2):
            with pytest.raises(stripe.InvalidRequestError, match="of the kind invoice") as refused:
                await client.v1.invoices.list_async()
            assert refused.value.code == "fake_full"
        fake.reset()
        assert (await client.v1.invoices.list_async()).data == []
        with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
            await subscribe(client, {"price": price.id})


async def test_held_calls_end_with_a_reset() -> None:
    """A reset lets go what is held; the call ends in what was, and nobody sees it after."""
    async with FakeStripe(VirtualClock()) as fake, connected(fake.url) as client:
        rule = fake.faults.add(Fault(FaultKind.HOLD))
        making = asyncio.create_task(make_meter(client))
        async with asyncio.timeout(TIMEOUT_S):
            await rule.reached()
            fake.reset()
            await making
        assert (await client.v1.billing.meters.list_async()).data == []


async def test_long_bodies_are_refused() -> None:
    """A body past its cap is a 413, unread."""
    async with FakeStripe(caps=Caps(body_bytes=1_000)) as fake, aiohttp.ClientSession() as session:
        async with session.post(f"{fake.url}/v1/billing/meters", data=b"x" * 1_001) as response:
            assert response.status == 413
        async with session.post(f"{fake.url}/v1/billing/meters", data=b"\xff") as response:
            assert response.status == 400


def test_schedules_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule that would grow without end says so."""
    monkeypatch.setattr(clocks, "PENDING_MAX", 2)
    schedule = Schedule()
    ran: list[int] = []
    for due_us in (20, 10):
        schedule.at(due_us, ran.append)
    with pytest.raises(StripeFault):
        schedule.at(30, ran.append)
    assert (schedule.next_us, schedule.run_due(15), ran) == (10, 1, [10])
    assert (schedule.run_due(99), ran, len(schedule), schedule.next_us) == (1, [10, 20], 0, None)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a=1&b[c]=2&b[d][e]=3", {"a": "1", "b": {"c": "2", "d": {"e": "3"}}}),
        ("a[0][x]=1&a[1][x]=2", {"a": [{"x": "1"}, {"x": "2"}]}),
        ("a[]=1&a[]=2", {"a": ["1", "2"]}),
        ("a%5Bb%5D=1+2", {"a": {"b": "1 2"}}),
        ("a[1]=x", {"a": {"1": "x"}}),
        ("", {}),
    ],
)
def test_forms_are_nested(text: str, found: object) -> None:
    """Brackets make hashes and lists."""
    assert form(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a=1&a[b]=2",
        "a[b]=1&a=2",
        "a[b]=1&a[b][c]=2",
        "[a]=1",
        "a[b=1",
        "a]b[=1",
        "a" + "[b]" * 9 + "=1",
    ],
)
def test_contradicting_forms_are_refused(text: str) -> None:
    """What is a value and a hash at once, or no name, is refused."""
    with pytest.raises(StripeFault):
        form(text)


NAMES = st.sampled_from(
    [
        *("event_name", "payload[value]", "payload", "identifier", "timestamp", "customer"),
        *("items[0][price]", "recurring", "amount", "type", "cancel[identifier]", "limit"),
        *("default_aggregation[formula]", "usage_threshold[gte]", "currency", "metadata[]"),
    ]
)
PATHS = st.sampled_from(
    [
        *(f"/v1/billing/{name}" for name in ("meters", "meter_events", "credit_grants", "alerts")),
        *("/v1/billing/meter_event_adjustments", "/v1/billing/credit_balance_summary"),
        *("/v1/prices", "/v1/products", "/v1/customers", "/v1/subscriptions", "/v1/invoices"),
        *("/v1/subscription_items", "/v1/invoiceitems", "/v1/invoices/create_preview"),
        *("/v1/webhook_endpoints", "/v1/billing/meters/mtr_x/event_summaries"),
        *("/v2/billing/meter_events", "/v2/core/event_destinations", "/_fake/faults"),
    ]
)
TEXTS = st.one_of(st.text(max_size=20), st.integers().map(str), st.just(CUSTOMER))


@given(
    calls=st.lists(
        st.tuples(st.sampled_from(["POST", "GET"]), PATHS, st.dictionaries(NAMES, TEXTS)),
        max_size=8,
    )
)
async def test_nothing_that_is_sent_is_a_crash(calls: list[tuple[str, str, Any]]) -> None:
    """Whatever is sent is answered, and never with the fake's own failure."""
    behaviour = Behaviour(rate_limited=False, work_ms=0)
    async with (
        FakeStripe(VirtualClock(), behaviour=behaviour) as fake,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TEST_KEY}"}) as session,
    ):
        for method, path, values in calls:
            text = urlencode(
                {name: value.encode(errors="replace") for name, value in values.items()}
            )
            body = text if method == "POST" else None
            url = f"{fake.url}{path}" + (f"?{text}" if method == "GET" and text else "")
            async with session.request(method, url, data=body) as response:
                assert response.status < 500, await response.text()
