"""Faults on demand: each is what its error class says, and strikes as often as it is told."""

import asyncio
from typing import Any

import pytest
import stripe
from stripe import StripeClient

from tallygate_fake_stripe import FakeStripe, Fault, FaultKind, RateLimitReason

from .clients import CUSTOMER, TIMEOUT_S, advance, make_meter, now_s, send

EVENTS = "/v1/billing/meter_events"


def code_of(error: stripe.StripeError) -> object:
    """Return the code within the body, where the client leaves it for some classes."""
    body: Any = error.json_body
    return body["error"].get("code")


@pytest.mark.parametrize("reason", list(RateLimitReason))
async def test_rate_limits_say_their_reason(
    client: StripeClient, fake: FakeStripe, reason: RateLimitReason
) -> None:
    """A 429 carries its reason as a header; its code is in the body alone."""
    await make_meter(client)
    fake.faults.add(Fault(FaultKind.RATE_LIMITED, reason=reason, path=EVENTS, count=1))
    with pytest.raises(stripe.RateLimitError) as refused:
        await send(client)
    error = refused.value
    assert (error.http_status, error.code, code_of(error)) == (429, None, "rate_limit")
    assert (error.headers or {})["stripe-rate-limited-reason"] == reason.value
    assert not {"stripe-should-retry", "retry-after"} & (error.headers or {}).keys()
    await send(client)


async def test_rate_limits_say_for_how_long(client: StripeClient, fake: FakeStripe) -> None:
    """Where they are told to."""
    await make_meter(client)
    fake.faults.add(Fault(FaultKind.RATE_LIMITED, path=EVENTS, retry_after_s=120))
    with pytest.raises(stripe.RateLimitError) as refused:
        await send(client)
    assert (refused.value.headers or {})["retry-after"] == "120"


async def test_locks_time_out(client: StripeClient, fake: FakeStripe) -> None:
    """The 429 of a locked object has no reason, and says to try again."""
    await make_meter(client)
    fake.faults.add(Fault(FaultKind.LOCK_TIMEOUT, path=EVENTS))
    with pytest.raises(stripe.RateLimitError) as refused:
        await send(client)
    headers = refused.value.headers or {}
    assert (refused.value.code, code_of(refused.value)) == (None, "lock_timeout")
    assert headers["stripe-should-retry"] == "true"
    assert "stripe-rate-limited-reason" not in headers


async def test_conflicts(client: StripeClient, fake: FakeStripe) -> None:
    """A 409 is an `APIError` whose code is in the body alone."""
    await make_meter(client)
    fake.faults.add(Fault(FaultKind.CONFLICT, path=EVENTS))
    with pytest.raises(stripe.APIError) as refused:
        await send(client)
    assert (refused.value.http_status, refused.value.code) == (409, None)
    assert code_of(refused.value) == "too_many_concurrent_requests"


@pytest.mark.parametrize(
    ("kind", "effect"), [(FaultKind.ERROR_BEFORE, 0), (FaultKind.ERROR_AFTER, 1)]
)
async def test_errors_of_the_server(
    client: StripeClient, fake: FakeStripe, kind: FaultKind, effect: int
) -> None:
    """A 500 looks the same whether the event was taken or not."""
    await make_meter(client)
    fake.faults.add(Fault(kind, path=EVENTS))
    with pytest.raises(stripe.APIError) as refused:
        await send(client)
    assert (refused.value.http_status, refused.value.code) == (500, None)
    assert len(fake.meter_events()) == effect


@pytest.mark.parametrize(
    ("kind", "effect"), [(FaultKind.DROP_BEFORE, 0), (FaultKind.DROP_AFTER, 1)]
)
async def test_dropped_connections(
    client: StripeClient, fake: FakeStripe, kind: FaultKind, effect: int
) -> None:
    """A connection that is cut looks the same whether the event was taken or not."""
    await make_meter(client)
    fake.faults.add(Fault(kind, path=EVENTS, count=1))
    with pytest.raises(stripe.APIConnectionError) as refused:
        await send(client, identifier="one", key="key-1")
    assert refused.value.should_retry
    assert len(fake.meter_events()) == effect
    again = await send(client, identifier="one", key="key-1")
    assert again.last_response is not None
    assert ("idempotent-replayed" in again.last_response.headers) == bool(effect)
    assert len(fake.meter_events()) == 1


async def test_unavailable_and_garbled(client: StripeClient, fake: FakeStripe) -> None:
    """A 503, and a page of a proxy that is no JSON, are `APIError`s without a code."""
    await make_meter(client)
    fake.faults.add(Fault(FaultKind.UNAVAILABLE, path=EVENTS, count=1))
    with pytest.raises(stripe.APIError) as refused:
        await send(client)
    assert refused.value.http_status == 503
    fake.faults.add(Fault(FaultKind.GARBLED, path=EVENTS, count=1))
    with pytest.raises(stripe.APIError, match="Invalid response body") as refused:
        await send(client)
    assert refused.value.http_status == 502
    # The client leaves the headers here, so that whoever looks for an error finds none.
    assert "error" not in dict(refused.value.json_body)  # type: ignore[call-overload]
    assert fake.meter_events() == []


async def test_outages_are_windows_of_the_clock(client: StripeClient, fake: FakeStripe) -> None:
    """An outage begins and ends with the fake's clock, however long the test takes."""
    await make_meter(client)
    start_s = now_s(fake)
    fake.faults.add(Fault(FaultKind.UNAVAILABLE, from_s=start_s + 60, until_s=start_s + 26 * 3_600))
    await send(client)
    advance(fake, 60)
    for _ in range(3):
        with pytest.raises(stripe.APIError):
            await send(client)
    advance(fake, 26 * 3_600 - 60)
    await send(client)
    assert len(fake.meter_events()) == 2


@pytest.mark.parametrize(
    ("wanted", "struck"),
    [
        ({"count": 2}, [0, 1]),
        ({"after": 3}, [3, 4, 5]),
        ({"every": 3}, [2, 5]),
        ({"after": 1, "every": 2, "count": 1}, [2]),
        ({"identifier": "event-[45]"}, [4, 5]),
        ({"customer": "cus_2"}, [1, 3, 5]),
        ({"event_name": "other"}, []),
        ({"path": "/v2/*"}, []),
        ({"method": "get"}, []),
        ({"method": "post", "probability": 0.5, "seed": 1}, [0, 3, 4, 5]),
        ({"probability": 0}, []),
    ],
)
async def test_faults_strike_what_they_match(
    client: StripeClient, fake: FakeStripe, wanted: dict[str, Any], struck: list[int]
) -> None:
    """Method, path, what the event says, count, every n-th and a seeded chance select calls."""
    fake.add_customer("cus_2")
    await make_meter(client)
    rule = fake.faults.add(Fault(FaultKind.RATE_LIMITED, **{"path": EVENTS, **wanted}))
    refused = []
    for number in range(6):
        customer = ("cus_1", "cus_2")[number % 2]
        try:
            await send(client, customer=customer, identifier=f"event-{number}")
        except stripe.RateLimitError:
            refused.append(number)
    assert refused == struck
    assert rule.struck == len(struck)


async def test_first_fault_that_matches_strikes(client: StripeClient, fake: FakeStripe) -> None:
    """One fault strikes a call: the one that was added first; removing it lets the next do so."""
    await make_meter(client)
    first = fake.faults.add(Fault(FaultKind.CONFLICT, path=EVENTS))
    fake.faults.add(Fault(FaultKind.UNAVAILABLE, path=EVENTS))
    for status in (409, 503):
        with pytest.raises(stripe.APIError) as refused:
            await send(client)
        assert refused.value.http_status == status
        fake.faults.remove(first.id)
    fake.faults.clear()
    await send(client)


async def test_held_calls_wait_to_be_let_go(client: StripeClient, fake: FakeStripe) -> None:
    """A call that is held has no effect until it is released, at the time it then is."""
    await make_meter(client)
    rule = fake.faults.add(Fault(FaultKind.HOLD, path=EVENTS, count=1))
    async with asyncio.timeout(TIMEOUT_S):
        sending = asyncio.create_task(send(client))
        await rule.reached()
        assert fake.meter_events() == []
        advance(fake, 10)
        rule.release()
        assert (await sending).created == now_s(fake)


@pytest.mark.parametrize(
    ("kind", "effect"), [(FaultKind.SLOW_BEFORE, 0), (FaultKind.SLOW_AFTER, 1)]
)
async def test_slow_answers_outlast_a_caller(
    fake: FakeStripe, kind: FaultKind, effect: int
) -> None:
    """A caller that gives up knows nothing of whether its call has happened, or will."""
    http = stripe.AIOHTTPClient(timeout=0.2)
    client = StripeClient(
        "sk_test_x", base_addresses={"api": fake.url}, max_network_retries=0, http_client=http
    )
    await make_meter(client)
    fake.faults.add(Fault(kind, path=EVENTS, delay_s=30))
    with pytest.raises(stripe.APIConnectionError):
        await send(client)
    assert len(fake.meter_events()) == effect
    await http.close_async()  # type: ignore[no-untyped-call]


async def test_planted_errors_are_in_the_totals(client: StripeClient, fake: FakeStripe) -> None:
    """What is swallowed or counted twice was answered as if nothing were wrong."""
    await make_meter(client)
    fake.faults.add(Fault(FaultKind.SWALLOW, identifier="lost"))
    fake.faults.add(Fault(FaultKind.DOUBLE, identifier="twice"))
    await send(client, "1", identifier="lost")
    await send(client, "10", identifier="twice")
    await send(client, "100", identifier="fine")
    assert fake.total("calls", CUSTOMER, 0, 2**40) == 120
    assert len(fake.meter_events()) == 3


async def test_requests_are_noted_with_their_faults(client: StripeClient, fake: FakeStripe) -> None:
    """The log says what came, what was answered, and which fault struck."""
    await make_meter(client)
    fake.faults.add(Fault(FaultKind.DROP_AFTER, path=EVENTS, count=1))
    with pytest.raises(stripe.APIConnectionError):
        await send(client, key="key-1")
    noted = fake.requests[-1]
    assert (noted.method, noted.path, noted.status) == ("POST", EVENTS, 0)
    assert (noted.fault, noted.idempotency_key) == ("drop_after", "key-1")


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "none"}, {"every": 0}, {"after": -1}, {"probability": 2}, {"reason": "mood"}],
)
def test_wrong_faults_are_refused(wrong: dict[str, Any]) -> None:
    """A fault that says nothing sensible cannot be made."""
    with pytest.raises(ValueError):
        Fault(**{"kind": "conflict", **wrong})
