"""What a sum of Stripe's says of sends in doubt, where it could be read in more than one way."""

from decimal import Decimal

import pytest

from tallygate.domain.catalog import Tenant
from tallygate.domain.ids import MeterName, PlanName
from tallygate.domain.stripe_intent import SendState
from tallygate.domain.window import HOUR_US, MINUTE_US
from tallygate_fake_stripe import Behaviour, Fault, FaultKind, UnknownCustomer
from tests.faults.test_stripe_outage import healed, hold, release
from tests.stripe_world import HOUR_S, METER, START_US, TENANT, StripeWorld, stripe_world

EVENTS = "/v1/billing/meter_events"


async def doubted(
    world: StripeWorld, amount: int, kind: FaultKind, meter: MeterName = METER
) -> None:
    """Have an hour's usage sent, with an answer that says nothing."""
    world.stripe.faults.add(Fault(kind, path=EVENTS, count=1))
    at_us = world.clock.now_us() - world.clock.now_us() % HOUR_US
    await world.use(amount, at_us + MINUTE_US, meter=meter)
    world.pass_s(HOUR_S + 601)
    world.sender = world.new_sender()
    await world.plan()
    await world.send()
    await hold(world)


@pytest.mark.parametrize(
    "kinds",
    [
        (FaultKind.DROP_AFTER, FaultKind.DROP_BEFORE),
        (FaultKind.DROP_BEFORE, FaultKind.DROP_AFTER),
    ],
)
async def test_alike_and_not_of_the_same_hour(
    postgres_dsn: str, kinds: tuple[FaultKind, ...]
) -> None:
    """Of two sends in doubt worth the same, one of them past its day, each counts once."""
    async with stripe_world(postgres_dsn) as world:
        for kind in kinds:
            await doubted(world, 5, kind)
        # The first is past its 23 hours, the second is not.
        world.pass_s(22 * HOUR_S)
        await release(world)
        # One call tries whether it is over.
        world.gate.reason = "silent"
        await world.send()
        await healed(world)
        assert world.total() == Decimal(10)


async def test_what_people_settled_is_in_no_sum(postgres_dsn: str) -> None:
    """Usage that was refused and billed by hand is not taken for what Stripe has summed up."""
    behaviour = Behaviour(unknown_customer=UnknownCustomer.REFUSE)
    async with stripe_world(postgres_dsn, behaviour) as world:
        await world.declare(tenants=[Tenant(TENANT, PlanName("p"), stripe_customer_id="cus_new")])
        await world.use(5, START_US + MINUTE_US)
        world.pass_s(HOUR_S + 601)
        await world.sync()
        (left,) = await world.sends.left("stripe", [SendState.REJECTED])
        await world.sends.decide("stripe", [left.intent_id], "by hand: on invoice in_1")
        world.stripe.add_customer("cus_new")
        await doubted(world, 5, FaultKind.DROP_AFTER)
        world.pass_s(24 * HOUR_S)
        await release(world)
        await healed(world)
        assert world.total("cus_new") == Decimal(5)


async def test_taken_back_of_another_customer(postgres_dsn: str) -> None:
    """What a tenant's earlier customer was told stays there: the new one's is taken back."""
    async with stripe_world(postgres_dsn) as world:
        world.stripe.add_customer("cus_new")
        used = await world.use(5, START_US + MINUTE_US)
        world.pass_s(HOUR_S + 601)
        await world.sync()
        await world.declare(tenants=[Tenant(TENANT, PlanName("p"), stripe_customer_id="cus_new")])
        await world.use(-5, START_US + MINUTE_US, refund_of=used)
        world.pass_s(60)
        await world.sync()
        assert (world.total(), world.total("cus_new")) == (Decimal(5), Decimal(-5))


async def test_a_meter_of_another_name(postgres_dsn: str) -> None:
    """What a meter's usage was told as before it was renamed is in the same sum of Stripe's."""
    async with stripe_world(postgres_dsn) as world:
        await world.use(5, START_US + MINUTE_US)
        world.pass_s(HOUR_S + 601)
        await world.sync()
        await world.declare(meter=MeterName("calls"))
        await doubted(world, 5, FaultKind.DROP_BEFORE, meter=MeterName("calls"))
        world.pass_s(24 * HOUR_S)
        await release(world)
        await healed(world)
        assert world.total() == Decimal(10)
