"""Stripe is away for longer than it remembers, or takes usage: nothing twice, nothing lost."""

from decimal import Decimal

from tallygate.domain.stripe_intent import SendState
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from tallygate_fake_stripe import Fault, FaultKind
from tests.servers import connection
from tests.stripe_world import HOUR_S, START_US, StripeWorld, stripe_world

EVENTS = "/v1/billing/meter_events"
DAY_S = DAY_US // SECOND_US


async def away(world: StripeWorld, hours: int, kind: FaultKind, count: int | None = None) -> None:
    """Have a unit used in each hour, planned, and sent in vain, for so many hours."""
    now_s = world.clock.now_us() / SECOND_US
    until_s = now_s + hours * HOUR_S
    world.stripe.faults.add(Fault(kind, until_s=until_s, count=count))
    for _ in range(hours):
        at_us = world.clock.now_us() - world.clock.now_us() % HOUR_US
        await world.use(1, at_us + MINUTE_US)
        world.pass_s(HOUR_S)
        await world.sync()


async def healed(world: StripeWorld, hours: int = 60) -> None:
    """Go on until nothing is open."""
    for _ in range(hours):
        world.pass_s(HOUR_S / 2)
        await world.plan()
        await world.send(3)
        if set(await world.states()) <= {"delivered", "settled", "rejected", "too_old"}:
            return
    raise AssertionError(await world.rows("state, reason, code, due_at"))


async def test_a_day_without_answers(postgres_dsn: str) -> None:
    """26 h of calls that had their effect and no answer: each unit is there once afterwards."""
    async with stripe_world(postgres_dsn) as world:
        await away(world, 26, FaultKind.DROP_AFTER)
        await healed(world)
        assert world.total() == Decimal(26)
        assert set(await world.states()) <= {"delivered", "settled"}


async def test_a_day_in_which_nothing_arrived(postgres_dsn: str) -> None:
    """26 h of calls without effect: what may not be repeated is read off the sum, and said anew."""
    async with stripe_world(postgres_dsn) as world:
        await away(world, 26, FaultKind.DROP_BEFORE)
        await healed(world)
        assert world.total() == Decimal(26)
        again = [row for row in await world.rows("replaces, state") if row[0] is not None]
        assert again
        assert {state for _, state in again} == {"delivered"}
        assert len(world.stripe.meter_events()) == 26


async def test_some_arrived_and_some_did_not(postgres_dsn: str) -> None:
    """Of sends in doubt for a day, those that arrived are told apart by what they are worth."""
    async with stripe_world(postgres_dsn) as world:
        for amount, kind in ((5, FaultKind.DROP_AFTER), (7, FaultKind.DROP_BEFORE)):
            world.stripe.faults.add(Fault(kind, path=EVENTS, count=1))
            at_us = world.clock.now_us() - world.clock.now_us() % HOUR_US
            await world.use(amount, at_us + MINUTE_US)
            world.pass_s(HOUR_S + 601)
            world.sender = world.new_sender()
            await world.plan()
            await world.send()
            await hold(world)
        world.pass_s(24 * HOUR_S)
        await release(world)
        await healed(world)
        assert world.total() == Decimal(12)
        found = await world.rows("quantity, state, replaces is not null")
        assert [(int(str(row[0])), *row[1:]) for row in found] == [
            (5, "settled", False),
            (7, "settled", False),
            (7, "delivered", True),
        ]


async def hold(world: StripeWorld) -> None:
    """Keep what is in doubt from being repeated within its day, as a stopped relay would."""
    await due(world, "'infinity'")


async def release(world: StripeWorld) -> None:
    """Let it be looked at again."""
    await due(world, "'-infinity'")


async def due(world: StripeWorld, when: str) -> None:
    """Set when open sends are due."""
    async with connection(world.dsn) as admin:
        await admin.execute(
            f"update tallygate.stripe_send set due_at = {when} where state = 'ambiguous'"
        )
        await admin.execute(f"update tallygate.stripe_lane set due_at = {when}")


async def test_what_nothing_explains_is_left_to_people(postgres_dsn: str) -> None:
    """Where the sum fits no choice, nothing is sent again, and the reason is kept."""
    async with stripe_world(postgres_dsn) as world:
        world.stripe.faults.add(Fault(FaultKind.DROP_BEFORE, path=EVENTS, count=1))
        await world.use(5, START_US + MINUTE_US)
        world.pass_s(HOUR_S + 601)
        await world.sync()
        await hold(world)
        client = world.client().stripe()
        await client.v1.billing.meter_events.create_async(
            {
                "event_name": "api_requests",
                "payload": {"stripe_customer_id": "cus_acme", "value": "3"},
                "timestamp": START_US // SECOND_US,
            },
            {"api_key": world.key},
        )
        world.pass_s(24 * HOUR_S)
        await release(world)
        await world.send(3)
        ((state, code, reason),) = await world.rows("state, code, reason")
        assert (state, code) == ("ambiguous", "undecided")
        assert "no choice explains it" in str(reason)
        assert world.total() == Decimal(3)
        (left,) = await world.sends.left("stripe", [SendState.AMBIGUOUS])
        await world.sends.decide("stripe", [left.intent_id], "by hand")
        assert await world.states() == {"settled": 1}


async def test_more_than_stripe_takes(postgres_dsn: str) -> None:
    """36 d without a connection: what is too old is left to people, the rest is billed once."""
    async with stripe_world(postgres_dsn) as world:
        await world.use(5, START_US + MINUTE_US)
        world.pass_s(HOUR_S + 601)
        await world.plan()
        world.pass_s(30 * DAY_S)
        recent_us = world.clock.now_us() - world.clock.now_us() % HOUR_US
        await world.use(7, recent_us + MINUTE_US)
        world.pass_s(6 * DAY_S)
        await world.plan()
        (depth,) = await world.sends.depths(world.clock.now_us() - 30 * DAY_US)
        assert (depth.sends, depth.late) == (2, 1)
        await world.send(2)
        assert sorted(await world.rows("state, quantity::int, attempts")) == [
            ("delivered", 7, 1),
            ("too_old", 5, 0),
        ]
        assert world.total() == Decimal(7)


async def test_in_doubt_and_too_old(postgres_dsn: str) -> None:
    """What may have been taken before Stripe was away for 36 d is read off the sum all the same."""
    async with stripe_world(postgres_dsn) as world:
        for kind in (FaultKind.DROP_AFTER, FaultKind.DROP_BEFORE):
            world.stripe.faults.add(Fault(kind, path=EVENTS, count=1))
            at_us = world.clock.now_us() - world.clock.now_us() % HOUR_US
            await world.use(5 if kind is FaultKind.DROP_AFTER else 7, at_us + MINUTE_US)
            world.pass_s(HOUR_S + 601)
            await world.sync()
            await hold(world)
        world.pass_s(36 * DAY_S)
        await release(world)
        await world.send(3)
        assert sorted(await world.rows("quantity::int, state")) == [(5, "settled"), (7, "too_old")]
        assert world.total() == Decimal(5)
