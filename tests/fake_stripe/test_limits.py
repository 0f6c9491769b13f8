"""Rates by token bucket, and one call at a time for each customer and meter."""

import asyncio
from typing import Any

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st
from stripe import StripeClient

from tallygate_fake_stripe import FakeStripe, Fault, FaultKind
from tallygate_fake_stripe.limits import TokenBucket

from .clients import LIVE_KEY, TIMEOUT_S, advance, connected, make_meter, send


async def burst(client: StripeClient, calls: int, **said: Any) -> tuple[int, set[str]]:
    """Send events one after another; return how many were taken, and why the others were not."""
    taken, reasons = 0, set()
    for _ in range(calls):
        try:
            await send(client, **said)
            taken += 1
        except stripe.RateLimitError as error:
            reasons.add((error.headers or {})["stripe-rate-limited-reason"])
    return taken, reasons


async def test_sandbox_takes_25_a_second(client: StripeClient, fake: FakeStripe) -> None:
    """In a sandbox every call counts: 25 at once, then 25 for each second, to the microsecond."""
    await make_meter(client)
    advance(fake, 1)
    fake.behaviour.rate_limited = True
    assert await burst(client, 27) == (25, {"global-rate"})
    advance(fake, 0.039_999)
    assert (await burst(client, 1))[0] == 0
    advance(fake, 0.000_001)
    assert (await burst(client, 2))[0] == 1
    advance(fake, 3_600)
    assert await burst(client, 26) == (25, {"global-rate"})


async def test_live_meter_events_have_a_bucket_of_their_own(
    live: StripeClient, fake: FakeStripe
) -> None:
    """Live, 1000 meter events a second are taken, whatever became of the 100 of all else."""
    await make_meter(live)
    fake.behaviour.rate_limited = True
    limits, now_us = fake.world(livemode=True).limits, fake.clock.now_us()
    for _ in range(100):
        limits.take("basic", now_us)
    with pytest.raises(stripe.RateLimitError) as refused:
        await live.v1.billing.meters.list_async()
    assert (refused.value.headers or {})["stripe-rate-limited-reason"] == "global-rate"
    for _ in range(995):
        limits.take("meter_events", now_us)
    assert await burst(live, 7) == (5, {"endpoint-rate"})


async def test_live_streams_are_counted_by_event(live: StripeClient, fake: FakeStripe) -> None:
    """Live, 10 000 events a second are streamed: a batch counts as what it holds."""
    await make_meter(live)
    session = await live.v2.billing.meter_event_session.create_async()
    fake.behaviour.rate_limited = True
    fake.world(livemode=True).limits.take("stream", fake.clock.now_us(), 9_950)
    stream = live.v2.billing.meter_event_stream
    for count in (50, 1):
        event = {"event_name": "calls", "payload": {"stripe_customer_id": "cus_1", "value": "1"}}
        sending = stream.create_async(
            {"events": [event] * count},  # type: ignore[list-item]
            {"api_key": session.authentication_token},
        )
        if count == 50:
            await sending
            continue
        with pytest.raises(stripe.RateLimitError):
            await sending


@given(
    per_s=st.integers(1, 2_000),
    waits=st.lists(st.tuples(st.integers(0, 2_000_000), st.integers(1, 50)), max_size=60),
)
def test_buckets_never_let_more_through(per_s: int, waits: list[tuple[int, int]]) -> None:
    """In any span of time no more is let through than one second's worth and what it lasted."""
    bucket, now_us, taken = TokenBucket(per_s), 0, []
    for wait_us, count in waits:
        now_us += wait_us
        if bucket.take(now_us, count):
            taken.append((now_us, count))
    for first, (start_us, _) in enumerate(taken):
        for last in range(first, len(taken)):
            let_through = sum(count for _, count in taken[first : last + 1])
            assert let_through <= per_s + per_s * (taken[last][0] - start_us) / 1_000_000


async def test_connected_accounts_take_100_a_second(live: StripeClient, fake: FakeStripe) -> None:
    """On behalf of a connected account meter events have 100 a second, and share nothing."""
    await make_meter(live)
    async with connected(fake.url, LIVE_KEY, account="acct_other") as other:
        await make_meter(other)
        fake.behaviour.rate_limited = True
        assert await burst(other, 101) == (100, {"global-rate"})
        assert (await burst(live, 1))[0] == 1
        assert len(fake.meter_events("acct_other", livemode=True)) == 100


async def test_calls_that_overlap_are_refused(client: StripeClient, fake: FakeStripe) -> None:
    """A second call for one customer and meter while the first is under way is a 409."""
    fake.add_customer("cus_2")
    await make_meter(client)
    await make_meter(client, "other")
    rule = fake.faults.add(Fault(FaultKind.HOLD, identifier="first"))
    async with asyncio.timeout(TIMEOUT_S):
        first = asyncio.create_task(send(client, identifier="first"))
        await rule.reached()
        with pytest.raises(stripe.APIError) as refused:
            await send(client, key="key-2")
        assert refused.value.http_status == 409
        await send(client, customer="cus_2")
        await send(client, event_name="other")
        rule.release()
        await first
    await send(client, key="key-2")


async def test_overlap_is_found_without_faults(client: StripeClient, fake: FakeStripe) -> None:
    """A sender that does not serialize is found out: every call is worked on for a while."""
    await make_meter(client)
    fake.behaviour.work_ms = 50
    sent = await asyncio.gather(*(send(client) for _ in range(8)), return_exceptions=True)
    refused = [each for each in sent if isinstance(each, stripe.APIError)]
    assert 0 < len(refused) < 8
    assert {error.http_status for error in refused} == {409}
    assert len(fake.meter_events()) == 8 - len(refused)


async def test_overlap_may_be_let_pass(client: StripeClient, fake: FakeStripe) -> None:
    """By a switch, calls may overlap."""
    await make_meter(client)
    fake.behaviour.work_ms = 50
    fake.behaviour.concurrency_checked = False
    await asyncio.gather(*(send(client) for _ in range(8)))
    assert len(fake.meter_events()) == 8


async def test_key_of_a_call_under_way_is_in_use(client: StripeClient, fake: FakeStripe) -> None:
    """A retry that overtakes its first attempt is a 409 that says so."""
    await make_meter(client)
    rule = fake.faults.add(Fault(FaultKind.HOLD, count=1))
    async with asyncio.timeout(TIMEOUT_S):
        first = asyncio.create_task(send(client, key="key-1"))
        await rule.reached()
        with pytest.raises(stripe.APIError) as refused:
            await send(client, key="key-1")
        body: Any = refused.value.json_body
        assert refused.value.http_status == 409
        assert body["error"]["code"] == "idempotency_key_in_use"
        rule.release()
        await first
    again = await send(client, key="key-1")
    assert again.last_response is not None
    assert again.last_response.headers["idempotent-replayed"] == "true"
