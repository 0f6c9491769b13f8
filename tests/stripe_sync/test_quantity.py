"""A subscription's quantity follows a meter, on a real item of a real subscription."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from tallygate.domain.catalog import Aggregation
from tallygate.domain.stripe_intent import SendState
from tallygate.domain.stripe_sync import Proration, StripeSync, SyncWindow, Way
from tallygate.domain.window import DAY_US, HOUR_US, SECOND_US
from tallygate.flow.stripe_mend import Mend
from tallygate_fake_stripe import Fault, FaultKind
from tests.stripe_world import CUSTOMER, MIDNIGHT_US, START_US, StripeWorld, stripe_world

SEATS: Final = "seats_monthly"
SYNC: Final = StripeSync(
    Way.QUANTITY,
    since_us=MIDNIGHT_US,
    window=SyncWindow.DAY,
    price=SEATS,
    proration=Proration.NONE,
)
ITEM: Final = "/v1/subscription_items/*"


@dataclass
class Subscribed:
    """A world whose customer has subscribed to seats, beside something else."""

    world: StripeWorld

    async def subscribe(self) -> str:
        """Subscribe the customer; return the subscription's id."""
        client = self.world.client().stripe()
        asked: Any = {
            "customer": CUSTOMER,
            "items": [{"price": each, "quantity": 1} for each in self.prices],
        }
        made = await client.v1.subscriptions.create_async(asked, {"api_key": self.world.key})
        return made.id

    async def make_prices(self) -> None:
        """Make the prices."""
        client = self.world.client().stripe()
        key: Any = {"api_key": self.world.key}
        self.prices = [
            (
                await client.v1.prices.create_async(
                    {
                        "currency": "usd",
                        "unit_amount": amount,
                        "product_data": {"name": lookup_key},
                        "recurring": {"interval": "month"},
                        "lookup_key": lookup_key,
                    },
                    key,
                )
            ).id
            for lookup_key, amount in (("base_monthly", 5_000), (SEATS, 900))
        ]

    async def quantities(self, subscription: str) -> list[int | None]:
        """Return the quantities of a subscription's items, of seats last."""
        client = self.world.client().stripe()
        found = await client.v1.subscription_items.list_async(
            {"subscription": subscription}, {"api_key": self.world.key}
        )
        seats = {each.price.lookup_key: each.quantity for each in found.data}
        return [seats.get("base_monthly"), seats.get(SEATS)]

    def changes(self, subscription: str) -> list[tuple[int, str]]:
        """Return how often seats changed, to how many, and how it was prorated."""
        kept = self.world.stripe.world().subscriptions.get(subscription).changes
        return [(each["quantity"], each["proration_behavior"]) for each in kept]

    async def day(self, *, send: int = 2) -> None:
        """Let a day pass, and all be planned and sent."""
        self.world.pass_s(DAY_US / SECOND_US)
        await self.world.plan()
        await self.world.send(send)


@pytest.fixture
async def subscribed(postgres_dsn: str) -> AsyncIterator[Subscribed]:
    """Lend it."""
    async with stripe_world(postgres_dsn) as world:
        await world.declare(SYNC, aggregation=Aggregation.MAX)
        made = Subscribed(world)
        await made.make_prices()
        yield made


async def test_a_quantity_is_set(subscribed: Subscribed) -> None:
    """Of the item with the price's lookup key, to the last whole day's, prorated as declared."""
    world = subscribed.world
    subscription = await subscribed.subscribe()
    for day, seats in enumerate((5, 7, 7, 3)):
        await world.use(seats, START_US + day * DAY_US)
        await world.use(2, START_US + day * DAY_US + HOUR_US)
        await subscribed.day()
        assert await subscribed.quantities(subscription) == [1, seats]
    # Each day tells its own, also where it is the same: what was set by hand meanwhile is mended.
    assert subscribed.changes(subscription) == [(5, "none"), (7, "none"), (7, "none"), (3, "none")]
    assert await world.states() == {"delivered": 4}


@pytest.mark.parametrize("proration", [Proration.CREATE, Proration.ALWAYS])
async def test_proration_is_said(subscribed: Subscribed, proration: Proration) -> None:
    """Stripe is told each time, whatever its default is."""
    world = subscribed.world
    await world.declare(replace(SYNC, proration=proration), aggregation=Aggregation.MAX)
    subscription = await subscribed.subscribe()
    await world.use(4, START_US)
    await subscribed.day()
    assert subscribed.changes(subscription) == [(4, proration.value)]


@pytest.mark.parametrize("kind", [FaultKind.DROP_AFTER, FaultKind.DROP_BEFORE])
async def test_an_answer_that_is_lost_changes_it_once(
    subscribed: Subscribed, kind: FaultKind
) -> None:
    """Repeated under the same key, so that nothing is prorated twice."""
    world = subscribed.world
    subscription = await subscribed.subscribe()
    await world.use(4, START_US)
    world.stripe.faults.add(Fault(kind, path=ITEM, count=1))
    await subscribed.day()
    world.pass_s(120)
    await world.send(2)
    assert subscribed.changes(subscription) == [(4, "none")]
    assert await world.states() == {"delivered": 1}


async def test_who_has_not_subscribed_is_left_to_people(subscribed: Subscribed) -> None:
    """Rejected with its reason; once there is a subscription, it can be sent again."""
    world = subscribed.world
    await world.use(4, START_US)
    await subscribed.day()
    (left,) = await world.sends.left("stripe", [SendState.REJECTED])
    assert (left.code, SEATS in left.reason) == ("not_found", True)
    subscription = await subscribed.subscribe()
    mended = await Mend(world.sends, world.catalogs, world.clock).retry("stripe")
    assert mended.again == 1
    await world.send()
    assert await subscribed.quantities(subscription) == [1, 4]


async def test_another_subscription_is_found(subscribed: Subscribed) -> None:
    """An item that was taken off is looked up anew: the next quantity is set on the new one."""
    world = subscribed.world
    first = await subscribed.subscribe()
    await world.use(4, START_US)
    await subscribed.day()
    assert await subscribed.quantities(first) == [1, 4]
    client = world.client().stripe()
    await client.v1.subscriptions.cancel_async(first, {}, {"api_key": world.key})
    second = await subscribed.subscribe()
    await world.use(6, START_US + DAY_US)
    await subscribed.day()
    mend = Mend(world.sends, world.catalogs, world.clock)
    await mend.retry("stripe")
    await world.send(2)
    assert await subscribed.quantities(second) == [1, 6]
