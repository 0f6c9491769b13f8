"""Stripe fails, times out, refuses, throttles: each unit is billed once, or left with a reason."""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from tallygate.adapters.stripe.secrets import KeyMissing
from tallygate.domain.catalog import Tenant
from tallygate.domain.ids import PlanName, TenantId
from tallygate.domain.stripe_retry import RETRY_WITHIN_US
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from tallygate.flow.stripe_gate import KEY_PAUSE_MS, Gate
from tallygate_fake_stripe import Behaviour, Fault, FaultKind, RateLimitReason, UnknownCustomer
from tests.stripe_world import (
    CUSTOMER,
    EVENT,
    HOUR_S,
    START_US,
    SYNC,
    TENANT,
    NoPace,
    StripeWorld,
    stripe_world,
)

EVENTS = "/v1/billing/meter_events"
FAILURES = [
    FaultKind.ERROR_AFTER,
    FaultKind.ERROR_BEFORE,
    FaultKind.DROP_AFTER,
    FaultKind.DROP_BEFORE,
    FaultKind.UNAVAILABLE,
    FaultKind.GARBLED,
    FaultKind.CONFLICT,
    FaultKind.LOCK_TIMEOUT,
    FaultKind.RATE_LIMITED,
]


async def used(world: StripeWorld, amount: int = 12) -> None:
    """Have a settled window's usage planned."""
    await world.use(amount, START_US + MINUTE_US)
    world.pass_s(HOUR_S + 601)
    await world.plan()


async def resolved(world: StripeWorld, within_s: int = 3_600) -> None:
    """Send until nothing is open, some seconds apart."""
    for _ in range(within_s // 60):
        await world.send()
        if set(await world.states()) <= {"delivered", "settled", "rejected", "too_old"}:
            return
        world.pass_s(60)
    raise AssertionError(await world.rows("state, reason, code"))


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_failure_bills_once(postgres_dsn: str, kind: FaultKind) -> None:
    """Whether a failed call had its effect or not, its usage is there once within the hour."""
    async with stripe_world(postgres_dsn) as world:
        await used(world)
        world.stripe.faults.add(Fault(kind, path=EVENTS, count=1))
        await world.send()
        assert await world.states() != {"delivered": 1}
        await resolved(world)
        assert world.total() == Decimal(12)
        assert len(world.stripe.meter_events()) == 1


async def test_a_call_that_times_out_bills_once(postgres_dsn: str) -> None:
    """An answer that never comes leaves a send in doubt; the same goes out again, and is known."""
    async with stripe_world(postgres_dsn) as world:
        await used(world)
        world.stripe.faults.add(Fault(FaultKind.SLOW_AFTER, path=EVENTS, count=1, delay_s=30))
        world.sender = world.new_sender(send_timeout_ms=200)
        await world.send()
        assert await world.rows("state, doubtful, reason") == [("ambiguous", True, "timed out")]
        world.sender = world.new_sender()
        await resolved(world)
        assert await world.rows("state, attempts") == [("delivered", 2)]
        assert world.total() == Decimal(12)


async def test_a_remembered_error_does_not_stay(postgres_dsn: str) -> None:
    """Stripe repeats a 500 under its key for a day: the event goes out under another key."""
    async with stripe_world(postgres_dsn) as world:
        await used(world)
        world.stripe.faults.add(Fault(FaultKind.ERROR_AFTER, path=EVENTS, count=1))
        await resolved(world)
        keys = [each.idempotency_key for each in world.stripe.requests if each.path == EVENTS]
        identifiers = {each.identifier for each in world.stripe.meter_events()}
        assert (len(keys), len(set(keys)), len(identifiers)) == (3, 2, 1)


@pytest.mark.parametrize("reason", ["global-rate", "endpoint-rate", "global-concurrency"])
async def test_throttling_holds_the_account_back(postgres_dsn: str, reason: str) -> None:
    """After a 429 with its reason nothing goes out for a while; no send is blamed for it."""
    tenants = [
        Tenant(TenantId(f"t{n}"), PlanName("p"), stripe_customer_id=CUSTOMER + str(n))
        for n in range(40)
    ]
    behaviour = Behaviour(unknown_customer=UnknownCustomer.ACCEPT, rate_limited=False)
    async with stripe_world(postgres_dsn, behaviour) as world:
        await world.declare(tenants=tenants)
        for tenant in tenants:
            await world.use(1, START_US + MINUTE_US, tenant.tenant_id)
        world.pass_s(HOUR_S + 601)
        await world.plan()
        fault = Fault(FaultKind.RATE_LIMITED, path=EVENTS, reason=RateLimitReason(reason))
        rule = world.stripe.faults.add(fault)
        world.sender = world.new_sender(concurrency_max=1)
        await world.send(3)
        assert len([each for each in world.stripe.requests if each.path == EVENTS]) == 1
        assert world.told.reasons[-1] == "throttled"
        assert await world.states() == {"pending": 40}
        assert {row[0] for row in await world.rows("attempts")} == {0}
        world.stripe.faults.remove(rule.id)
        world.pass_s(61)
        # One is tried first; as it passes, the rest follow.
        await world.send(2)
        assert await world.states() == {"delivered": 40}
        assert world.told.reasons[-1] == ""


async def test_throttling_lasts_as_long_as_it_says(postgres_dsn: str) -> None:
    """A 429 with `Retry-After` is obeyed to the second, by all of the account's senders."""
    async with stripe_world(postgres_dsn) as world:
        await used(world)
        world.stripe.faults.add(
            Fault(FaultKind.RATE_LIMITED, path=EVENTS, count=1, retry_after_s=240)
        )
        await world.send()
        senders = [world.sender, world.new_sender(), world.new_sender()]
        for _ in range(3):
            world.pass_s(79)
            for each in senders:
                await each.run_once()
        assert await world.rows("state, attempts, doubtful") == [("pending", 0, False)]
        assert len([each for each in world.stripe.requests if each.path == EVENTS]) == 1
        world.pass_s(3)
        await world.send()
        assert await world.states() == {"delivered": 1}
        assert world.total() == Decimal(12)


async def test_one_bad_event_is_left_with_its_reason(postgres_dsn: str) -> None:
    """A 400 is kept for people with what Stripe said; the others of the round arrive."""
    behaviour = Behaviour(unknown_customer=UnknownCustomer.REFUSE)
    async with stripe_world(postgres_dsn, behaviour) as world:
        ghost = Tenant(TenantId("ghost"), PlanName("p"), stripe_customer_id="cus_gone")
        acme = Tenant(TENANT, PlanName("p"), stripe_customer_id=CUSTOMER)
        await world.declare(tenants=[ghost, acme])
        await world.use(3, START_US + MINUTE_US, ghost.tenant_id)
        await used(world)
        await world.send(2)
        assert await world.states() == {"delivered": 1, "rejected": 1}
        (left,) = [row for row in await world.rows("state, code, reason") if row[0] == "rejected"]
        assert "No such customer" in str(left[2])
        assert world.total() == Decimal(12)


async def test_a_refused_key_pauses_the_sink(postgres_dsn: str) -> None:
    """A revoked key stops sending, not planning; the new one is used as soon as it is there."""
    async with stripe_world(postgres_dsn) as world:
        await used(world)
        world.stripe.keys.revoke(world.key)
        await world.send(3)
        assert len([each for each in world.stripe.requests if each.path == EVENTS]) == 1
        assert world.told.reasons[-1] == "key_refused"
        await world.use(5, START_US + HOUR_US)
        world.pass_s(HOUR_S)
        assert await world.plan() == 1
        world.key = "sk_test_new"
        world.pass_s(KEY_PAUSE_MS / 1000)
        await world.send(2)
        assert world.total() == Decimal(17)
        assert {row[0] for row in await world.rows("attempts")} == {1}


async def test_a_key_that_cannot_be_read_pauses_the_sink(postgres_dsn: str) -> None:
    """A file that is gone is as a key that is refused."""

    def gone() -> str:
        raise KeyMissing("the secret's file cannot be read", field="destinations.stripe.secret")

    async with stripe_world(postgres_dsn) as world:
        await used(world)
        client = world.client()
        client._keys = gone
        world.sender._parts.api._client = client  # type: ignore[attr-defined]  # the adapter's own
        await world.send()
        assert world.told.reasons[-1] == "key_refused"
        assert world.stripe.requests[-1].path != EVENTS


async def test_a_clock_that_is_off_is_told(postgres_dsn: str) -> None:
    """Usage of a window that Stripe's clock has not reached is refused there, and kept."""
    async with stripe_world(postgres_dsn) as world:
        world.clock.ahead_us = 2 * HOUR_US + 11 * MINUTE_US
        await world.use(12, START_US + HOUR_US)
        await world.sync()
        ((state, reason),) = await world.rows("state, reason")
        assert state == "rejected"
        assert "timestamp" in str(reason).lower()


async def test_one_customers_meter_is_sent_in_turn(postgres_dsn: str) -> None:
    """Two relays with many windows of one customer never have two calls under way at once."""
    async with stripe_world(postgres_dsn, Behaviour(work_ms=5)) as world:
        for hour in range(20):
            await world.use(1, START_US + hour * HOUR_US)
        world.pass_s(21 * HOUR_S)
        await world.plan()
        other = world.new_sender(Gate(world.clock, NoPace()))
        await asyncio.gather(world.sender.run_once(), other.run_once())
        await asyncio.gather(world.sender.run_once(), other.run_once())
        assert await world.states() == {"delivered": 20}
        assert {each.status for each in world.stripe.requests} == {200}


async def test_a_relay_that_comes_back_changes_nothing(postgres_dsn: str) -> None:
    """One that slept beyond its lease finds its sends done by another, and its notes refused."""
    async with stripe_world(postgres_dsn) as world:
        await used(world)
        claim = await world.sends.claim(
            "stripe", world.clock.now_us(), lanes=9, per_lane=9, lease_ms=0
        )
        await world.send()
        assert await world.rows("state, attempts") == [("delivered", 2)]
        (claimed,) = claim.lanes[0]
        late = world.sender._judge.unsent(claimed, world.clock.now_us())
        assert await world.sends.finish(claim.token, [late]) == 0
        await world.sends.release(claim.token)
        assert await world.states() == {"delivered": 1}
        assert world.total() == Decimal(12)


async def test_two_planners_intend_once(postgres_dsn: str) -> None:
    """However many plan at once, each window's usage is intended once."""
    async with stripe_world(postgres_dsn) as world:
        for hour in range(10):
            await world.use(hour + 1, START_US + hour * HOUR_US)
        world.pass_s(11 * HOUR_S)
        planners = [world.new_planner() for _ in range(8)]
        counts = await asyncio.gather(*(each.run_once() for each in planners))
        assert sum(each.intended for each in counts) == 10
        await world.send(2)
        assert world.total() == Decimal(55)


async def test_a_refusal_in_doubt_is_settled(postgres_dsn: str) -> None:
    """What may have been taken and is refused then is told from the sum, not taken for refused."""
    async with stripe_world(postgres_dsn) as world:
        await used(world)
        world.stripe.faults.add(Fault(FaultKind.ERROR_AFTER, path=EVENTS, count=1))
        await world.send()
        meter = world.stripe.meter(EVENT)
        world.stripe.behaviour.identifier_window_s = 0
        client = world.client().stripe()
        await client.v1.billing.meters.deactivate_async(meter.id, options={"api_key": world.key})
        for _ in range(2):
            world.pass_s(60)
            await world.send()
        assert (await world.rows("state, doubtful, attempts")) == [("ambiguous", True, 3)]
        world.pass_s(RETRY_WITHIN_US / SECOND_US)
        await world.send()
        assert await world.states() == {"settled": 1}
        assert world.total() == Decimal(12)


async def test_less_than_was_told_is_taken_back(postgres_dsn: str) -> None:
    """A refund is cancelled within the day where it takes back one event whole, else negative."""
    async with stripe_world(postgres_dsn) as world:
        first = await world.use(5, START_US + MINUTE_US)
        world.pass_s(HOUR_S + 601)
        await world.sync()
        late = await world.use(3, START_US + 2 * MINUTE_US)
        await world.sync()
        assert world.total() == Decimal(8)
        await world.use(-3, START_US + 2 * MINUTE_US, refund_of=late)
        await world.sync()
        world.pass_s(60)
        assert world.total() == Decimal(5)
        await world.use(-2, START_US + MINUTE_US, refund_of=first)
        await world.sync()
        assert world.total() == Decimal(3)
        kinds = [row[0] for row in await world.rows("kind")]
        assert kinds == ["delta", "delta", "cancel", "negative"]
        world.pass_s(DAY_US / SECOND_US)
        await world.sync()
        assert len(kinds) == len(await world.rows("kind"))


async def test_totals_overwrite(postgres_dsn: str) -> None:
    """A meter that keeps the last of each hour is told whole hours, and told anew when late."""
    async with stripe_world(postgres_dsn, event_time_window="hour") as world:
        await world.declare(replace(SYNC, overwrite=True))
        await world.use(5, START_US + MINUTE_US)
        await world.use(1, START_US + HOUR_US)
        world.pass_s(2 * HOUR_S + 601)
        await world.sync()
        await world.use(2, START_US + MINUTE_US)
        world.stripe.faults.add(Fault(FaultKind.DROP_AFTER, path=EVENTS, count=1))
        await world.sync()
        await world.use(2, START_US + MINUTE_US)
        await world.plan()
        world.pass_s(60)
        await world.send(2)
        assert world.total() == Decimal(10)
        assert [row[0] for row in await world.rows("state, value")].count("settled") == 1
