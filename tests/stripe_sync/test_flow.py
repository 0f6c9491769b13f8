"""Usage becomes intents, and intents become Stripe's totals, exactly and once."""

from decimal import Decimal

from tallygate.domain.window import HOUR_US, MINUTE_US
from tests.stripe_world import HOUR_S, START_US, stripe_world


async def test_usage_arrives(postgres_dsn: str) -> None:
    """A window's usage is one event there, once the window is settled."""
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
        assert world.total() == Decimal(12)
        assert await world.rows("kind, value, attempts") == [("delta", "12", 1)]
        await world.use(3, START_US + HOUR_US - 1)
        await world.sync()
        assert world.total() == Decimal(15)
        assert [each.identifier for each in world.stripe.meter_events()] == [
            row[0] for row in await world.rows("identifier")
        ]
