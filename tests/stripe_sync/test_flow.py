"""Usage becomes intents, and intents become Stripe's totals, exactly and once."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from tallygate.domain.catalog import Aggregation, Tenant
from tallygate.domain.ids import PlanName, TenantId
from tallygate.domain.stripe_sync import Mode, StripeAccount, StripeSync, SyncWindow, Way
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Calendar, from_datetime
from tallygate_fake_stripe import Behaviour, Fault, FaultKind
from tests.stripe_world import (
    CUSTOMER,
    EVENT,
    HOUR_S,
    METER,
    MIDNIGHT_US,
    START_US,
    SYNC,
    TENANT,
    stripe_world,
)


async def test_usage_arrives(postgres_dsn: str) -> None:
    """A window's usage is one event there once the window is settled; late usage is another."""
    async with stripe_world(postgres_dsn) as world:
        await world.use(5, START_US + MINUTE_US)
        await world.use(7, START_US + 2 * MINUTE_US)
        await world.sync()
        assert await world.states() == {}
        world.pass_s(HOUR_S + 601)
        await world.sync()
        assert await world.states() == {"delivered": 1}
        assert world.total() == Decimal(12)
        await world.sync()
        assert await world.rows("kind, value, attempts") == [("delta", "12", 1)]
        await world.use(3, START_US + HOUR_US - 1)
        await world.sync()
        assert world.total() == Decimal(15)
        assert [each.identifier for each in world.stripe.meter_events()] == [
            row[0] for row in await world.rows("identifier")
        ]


async def test_usage_that_is_very_late_arrives(postgres_dsn: str) -> None:
    """What comes days late is found by the hourly look at everything, in its own window."""
    async with stripe_world(postgres_dsn) as world:
        await world.plan()
        world.pass_s(20 * DAY_US // SECOND_US)
        await world.use(4, START_US)
        await world.sync()
        assert world.total() == Decimal(4)
        assert world.stripe.meter_events()[0].timestamp == START_US // SECOND_US


async def test_nothing_from_before_since(postgres_dsn: str) -> None:
    """Usage of before the sync began is never sent."""
    async with stripe_world(postgres_dsn) as world:
        await world.use(9, MIDNIGHT_US - 1)
        await world.use(2, MIDNIGHT_US)
        world.pass_s(HOUR_S)
        await world.sync()
        assert world.total() == Decimal(2)


async def test_windows_end_with_billing_periods(postgres_dsn: str) -> None:
    """An hour in which a period turns is two intents, each within its own period."""
    anchor_us = from_datetime(datetime(2025, 12, 1, 12, 30, tzinfo=UTC))
    tenant = Tenant(
        TENANT, PlanName("p"), calendar=Calendar("UTC", anchor_us), stripe_customer_id=CUSTOMER
    )
    async with stripe_world(postgres_dsn) as world:
        await world.declare(tenants=[tenant])
        await world.use(5, START_US + 29 * MINUTE_US)
        await world.use(7, START_US + 30 * MINUTE_US)
        world.pass_s(HOUR_S + 601)
        await world.sync()
        turn_us = START_US + 30 * MINUTE_US
        rows = await world.rows(
            "value, tallygate.microseconds(window_start), tallygate.microseconds(window_end),"
            " tallygate.microseconds(period_start)"
        )
        assert sorted(rows) == [
            ("5", START_US, turn_us, anchor_us),
            ("7", turn_us, START_US + HOUR_US, turn_us),
        ]
        assert world.stripe.total(EVENT, CUSTOMER, 0, turn_us // SECOND_US) == Decimal(5)
        assert world.total() == Decimal(12)


async def test_a_calendar_that_changes_moves_usage(postgres_dsn: str) -> None:
    """Windows that another calendar divides otherwise are told anew, and the old taken back."""
    async with stripe_world(postgres_dsn) as world:
        await world.use(5, START_US + 29 * MINUTE_US)
        await world.use(7, START_US + 30 * MINUTE_US)
        world.pass_s(HOUR_S + 601)
        await world.sync()
        anchor_us = from_datetime(datetime(2025, 12, 1, 12, 30, tzinfo=UTC))
        tenant = Tenant(
            TENANT, PlanName("p"), calendar=Calendar("UTC", anchor_us), stripe_customer_id=CUSTOMER
        )
        await world.declare(tenants=[tenant])
        await world.plan()
        await world.send(3)
        assert world.total() == Decimal(12)
        turn_s = (START_US + 30 * MINUTE_US) // SECOND_US
        assert world.stripe.total(EVENT, CUSTOMER, 0, turn_s) == Decimal(5)


async def test_dimensions_are_sent(postgres_dsn: str) -> None:
    """Usage is told apart by the dimensions named, in the payload's own keys."""
    async with stripe_world(postgres_dsn) as world:
        await world.declare(replace(SYNC, dimensions=(("area", "region"),)))
        await world.use(5, START_US, dimensions={"region": "eu"})
        await world.use(6, START_US, dimensions={"region": "us", "path": "/"})
        await world.use(1, START_US + 1, dimensions={"region": "eu"})
        await world.use(2, START_US, dimensions={})
        world.pass_s(HOUR_S + 601)
        await world.plan()
        await world.send(3)
        told = {
            (each.payload.get("area"), each.payload["value"])
            for each in world.stripe.meter_events()
        }
        assert told == {("eu", "6"), ("us", "6"), ("none", "2")}


async def test_what_is_counted_is_sent(postgres_dsn: str) -> None:
    """A meter that counts sends how many, by the scale."""
    async with stripe_world(postgres_dsn) as world:
        await world.declare(replace(SYNC, scale="0.001"), aggregation=Aggregation.COUNT)
        for _ in range(3):
            await world.use(50, START_US)
        world.pass_s(HOUR_S + 601)
        await world.sync()
        assert await world.rows("quantity::int, value") == [(3, "0.003")]
        assert world.total() == Decimal("0.003")


async def test_more_than_a_value_holds_is_divided(postgres_dsn: str) -> None:
    """Usage of more than 15 digits goes in several exact values."""
    async with stripe_world(postgres_dsn) as world:
        most = 2**53 - 1
        await world.use(most, START_US)
        await world.use(most, START_US)
        world.pass_s(HOUR_S + 601)
        assert await world.plan() == 1
        for _ in range(20):
            await world.plan()
        await world.send(5)
        assert world.total() == Decimal(2 * most)
        assert all(len(str(row[0])) <= 15 for row in await world.rows("value"))


async def test_shadow_sends_nothing(postgres_dsn: str) -> None:
    """In shadow all is recorded and nothing sent, until it is asked for."""
    async with stripe_world(postgres_dsn) as world:
        await world.declare(account=StripeAccount(shadow=True))
        await world.use(5, START_US)
        world.pass_s(HOUR_S + 601)
        await world.sync()
        assert await world.states() == {"shadow": 1}
        assert world.stripe.meter_events() == []
        await world.declare()
        await world.sync()
        assert await world.states() == {"shadow": 1}
        now_us = world.clock.now_us()
        assert await world.sends.leave_shadow("stripe", START_US + DAY_US, now_us) == 0
        assert await world.sends.leave_shadow("stripe", START_US, now_us) == 1
        await world.send()
        assert world.total() == Decimal(5)


async def test_early_windows_are_told_as_they_fill(postgres_dsn: str) -> None:
    """With `early` nobody waits for a window's end, and each look adds what is new."""
    async with stripe_world(postgres_dsn) as world:
        await world.declare(replace(SYNC, early=True, window=SyncWindow.DAY))
        for amount in (5, 7):
            await world.use(amount, world.clock.now_us())
            world.pass_s(60)
            await world.sync()
        assert world.total() == Decimal(12)
        assert [row[0] for row in await world.rows("value")] == ["5", "7"]


async def test_a_stream_carries_many(postgres_dsn: str) -> None:
    """Events of many customers go in one call; one whose answer is lost leaves none twice."""
    tenants = [
        Tenant(TenantId(f"t{n}"), PlanName("p"), stripe_customer_id=f"cus_{n}") for n in range(120)
    ]
    async with stripe_world(postgres_dsn, Behaviour(rate_limited=False)) as world:
        await world.live([each.stripe_customer_id for each in tenants])
        account = StripeAccount(mode=Mode.LIVE)
        await world.declare(replace(SYNC, v2_stream=True), tenants, account)
        for tenant in tenants:
            await world.use(2, START_US, tenant.tenant_id)
        world.pass_s(HOUR_S + 601)
        await world.plan()
        world.sender = world.new_sender(streamed=frozenset({METER}))
        path = "/v2/billing/meter_event_stream"
        world.stripe.faults.add(Fault(FaultKind.DROP_AFTER, path=path, count=1))
        await world.send()
        assert len([each for each in world.stripe.requests if each.path == path]) == 2
        assert {"ambiguous", "delivered"} == set(await world.states())
        for _ in range(10):
            world.pass_s(60)
            await world.send()
        assert await world.states() == {"delivered": 120}
        events = world.stripe.meter_events(livemode=True)
        assert sorted(each.payload["value"] for each in events) == ["2"] * 120


async def test_a_quantity_follows_the_last_window(postgres_dsn: str) -> None:
    """A subscription's item has the quantity of the last whole day."""
    sync = StripeSync(Way.QUANTITY, since_us=MIDNIGHT_US, window=SyncWindow.DAY, price="seats")
    async with stripe_world(postgres_dsn) as world:
        await world.declare(sync, aggregation=Aggregation.MAX)
        await world.use(5, START_US)
        await world.use(3, START_US + HOUR_US)
        world.pass_s(DAY_US // SECOND_US)
        await world.plan()
        assert await world.rows("kind, value, details->>'price'") == [("quantity", "5", "seats")]
        await world.use(4, START_US + DAY_US)
        world.pass_s(DAY_US // SECOND_US)
        await world.plan()
        await world.send(2)
        states = await world.rows("value, state")
        assert states[0] == ("5", "settled")
