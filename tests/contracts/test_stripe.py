"""The contracts of the ports to Stripe, on the fake and on Stripe's client over a fake Stripe."""

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, Protocol

import pytest

from tallygate.adapters.stripe.api import StripeUsage
from tallygate.adapters.stripe.client import Client, ClientOptions
from tallygate.adapters.stripe.meters import StripeAccountMeters
from tallygate.adapters.stripe.prices import StripeAccountPrices
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.stripe_intent import Intent, IntentId, IntentKind, IntentPlace
from tallygate.domain.stripe_meters import AccountMeter
from tallygate.domain.stripe_prices import AccountPrice, AccountTier
from tallygate.domain.stripe_retry import KEY_BURNT
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from tallygate.ports.stripe import (
    Outcome,
    StripeApi,
    StripeMeters,
    StripePrices,
    StripeRefused,
    StripeSilent,
)
from tallygate.ports.stripe_store import Claimed
from tallygate.testing.stripe import FakeStripeAccount
from tallygate_fake_stripe import Behaviour, FakeStripe, VirtualClock
from tests.stripe_world import START_US, WorldClock

CUSTOMER = "cus_1"
METER = AccountMeter("", "calls", "Calls", "sum", "", "stripe_customer_id", "value", True)


class Bench(Protocol):
    """An account under test, and what its contract needs beside it."""

    api: StripeApi
    meters: StripeMeters
    prices: StripePrices

    async def down(self) -> None:
        """Have nobody there."""
        ...

    def pass_us(self, passed_us: int) -> None:
        """Let time pass."""
        ...


class FakeBench:
    """The fake, on a clock of its own."""

    def __init__(self) -> None:
        self.now_us = START_US
        self.fake = FakeStripeAccount(lambda: self.now_us)
        self.api: StripeApi = self.fake
        self.meters: StripeMeters = self.fake
        self.prices: StripePrices = self.fake

    async def down(self) -> None:
        """Have nobody there."""
        self.fake.down = True

    def pass_us(self, passed_us: int) -> None:
        """Let time pass."""
        self.now_us += passed_us


class ClientBench:
    """Stripe's client, in live mode as streams need it."""

    def __init__(self, stripe: FakeStripe, virtual: VirtualClock, client: Client) -> None:
        self.stripe, self.virtual, self.client = stripe, virtual, client
        self.api: StripeApi = StripeUsage(client, WorldClock(virtual))
        self.meters: StripeMeters = StripeAccountMeters(client)
        self.prices: StripePrices = StripeAccountPrices(client)

    async def down(self) -> None:
        """Have nobody there."""
        # A connection that is kept would break, which is not the same.
        await self.client.close()
        await self.stripe.stop()

    def pass_us(self, passed_us: int) -> None:
        """Let time pass."""
        self.virtual.advance(passed_us / SECOND_US)


@pytest.fixture(params=["fake", "client"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Each account in turn, with a meter and a customer."""
    if request.param == "fake":
        fake = FakeBench()
        await fake.meters.create_meter(METER)
        yield fake
        return
    virtual = VirtualClock(START_US / SECOND_US)
    stripe = FakeStripe(virtual, behaviour=Behaviour(), customers=[CUSTOMER])
    await stripe.start()
    client = Client(lambda: "sk_live_x", ClientOptions(url=stripe.url))
    found = ClientBench(stripe, virtual, client)
    await found.meters.create_meter(METER)
    yield found
    await client.close()
    await stripe.stop()


def claimed(number: int = 1, kind: IntentKind = IntentKind.DELTA, **fields: object) -> Claimed:
    """Return a claimed intent whose ids bear the number, with other fields of either replaced."""
    place = IntentPlace(
        *(TenantId("acme"), CUSTOMER, MeterName("calls"), "{}", START_US, START_US + HOUR_US),
        *(START_US - DAY_US, START_US + DAY_US),
    )
    values = {"quantity": 5, "value": "5", "event_name": "calls", "timestamp_us": START_US}
    values |= {name: value for name, value in fields.items() if name in values}
    details = {"currency": "usd", "description": "Calls"}
    intent = Intent(
        *("stripe", place, 1, kind),
        **values,  # type: ignore[arg-type]  # by name
        identifier=f"id-{number}",
        idempotency_key=f"key-{number}",
        details=details,
    )
    own = {name: value for name, value in fields.items() if name not in values}
    one = Claimed(IntentId(number), intent, 1, doubtful=False, alone=False, first_us=START_US)
    return replace(one, **own)  # type: ignore[arg-type]  # by name


async def total(bench: Bench, hours: int = 24) -> Decimal:
    """Return what the account has summed up, around the test's hour."""
    return await bench.api.summed("calls", CUSTOMER, START_US - DAY_US, START_US + hours * HOUR_US)


async def test_an_event_is_taken_once(bench: Bench) -> None:
    """The same goes out twice to one effect, under its own key and under another."""
    first = await bench.api.tell(claimed())
    assert first.outcome is Outcome.TAKEN
    assert (await bench.api.tell(claimed())).outcome is Outcome.TAKEN
    again = claimed(code=KEY_BURNT, attempt=2)
    assert (await bench.api.tell(again)).outcome is Outcome.REPEATED
    assert await total(bench) == Decimal(5)


@pytest.mark.parametrize("checked", [False, True])
async def test_values_are_exact_decimals(bench: Bench, checked: bool) -> None:
    """Fractions and negative values add up to the digit, by either interface."""
    for number, value in enumerate(("0.1", "0.2", "-0.05", "12345")):
        answer = await bench.api.tell(claimed(number, value=value), checked=checked)
        assert answer.outcome is Outcome.TAKEN
    assert await total(bench) == Decimal("12345.25")


@pytest.mark.parametrize("checked", [False, True])
async def test_a_repeat_is_told_by_either_interface(bench: Bench, checked: bool) -> None:
    """A known identifier is no refusal."""
    await bench.api.tell(claimed())
    answer = await bench.api.tell(claimed(code=KEY_BURNT, attempt=3), checked=checked)
    assert answer.outcome is Outcome.REPEATED


async def test_sums_are_of_whole_minutes(bench: Bench) -> None:
    """A sum holds its first minute and not its last, of one customer."""
    await bench.api.tell(claimed(1))
    await bench.api.tell(claimed(2, value="7", timestamp_us=START_US + MINUTE_US))
    bench.pass_us(HOUR_US)
    read = bench.api.summed
    assert await read("calls", CUSTOMER, START_US, START_US + MINUTE_US) == Decimal(5)
    assert await read("calls", CUSTOMER, START_US + MINUTE_US, START_US + HOUR_US) == Decimal(7)


async def test_what_can_never_be_taken_is_refused(bench: Bench) -> None:
    """An unknown meter and times out of bounds are refused, with a reason."""
    bad: list[dict[str, Any]] = [
        {"event_name": "nothing"},
        {"timestamp_us": START_US - 36 * DAY_US},
        {"timestamp_us": START_US + HOUR_US},
    ]
    for number, fields in enumerate(bad):
        answer = await bench.api.tell(claimed(number, **fields))
        assert answer.outcome is Outcome.REFUSED
        assert answer.reason
    with pytest.raises(StripeRefused):
        await bench.api.summed("nothing", CUSTOMER, START_US, START_US + MINUTE_US)


async def test_an_event_is_cancelled_within_a_day(bench: Bench) -> None:
    """A cancel takes one event back whole; what is not there, or too old, is refused."""
    await bench.api.tell(claimed(1))
    await bench.api.tell(claimed(2, value="7"))
    cancel = claimed(3, IntentKind.CANCEL, cancelled="id-1")
    assert (await bench.api.tell(cancel)).outcome is Outcome.TAKEN
    bench.pass_us(MINUTE_US)
    assert await total(bench) == Decimal(7)
    missing = claimed(4, IntentKind.CANCEL, cancelled="id-9")
    assert (await bench.api.tell(missing)).outcome is Outcome.REFUSED
    bench.pass_us(2 * DAY_US)
    late = claimed(5, IntentKind.CANCEL, cancelled="id-2")
    assert (await bench.api.tell(late)).outcome is Outcome.REFUSED


async def test_an_item_is_found_again(bench: Bench) -> None:
    """An invoice item is known by its identifier once it was taken, and taken once."""
    item = claimed(1, IntentKind.ITEM)
    assert not await bench.api.item_known(item)
    assert (await bench.api.tell(item)).outcome is Outcome.TAKEN
    assert (await bench.api.tell(item)).outcome is Outcome.TAKEN
    assert await bench.api.item_known(item)
    assert not await bench.api.item_known(claimed(2, IntentKind.ITEM))


async def test_a_quantity_needs_a_subscription(bench: Bench) -> None:
    """Where the customer has none to the price, that is the reason."""
    answer = await bench.api.tell(claimed(1, IntentKind.QUANTITY))
    assert answer.outcome is Outcome.REFUSED
    assert "subscription" in answer.reason


async def test_a_stream_carries_events(bench: Bench) -> None:
    """Many go in one call, and each is known afterwards."""
    batch = [claimed(number, value=str(number)) for number in range(1, 51)]
    assert (await bench.api.stream("batch-1", batch)).outcome is Outcome.TAKEN
    bench.pass_us(MINUTE_US)
    assert await total(bench) == Decimal(50 * 51 // 2)
    again = await bench.api.tell(batch[7], checked=True)
    assert again.outcome is Outcome.REPEATED
    bench.pass_us(HOUR_US)
    more = claimed(99, timestamp_us=START_US + HOUR_US)
    assert (await bench.api.stream("batch-2", [more])).outcome is Outcome.TAKEN


async def test_nobody_there_is_surely_not_sent(bench: Bench) -> None:
    """Where no connection comes about, nothing was taken; what is asked raises."""
    await bench.down()
    assert (await bench.api.tell(claimed())).outcome is Outcome.NOT_SENT
    assert (await bench.api.stream("batch-1", [claimed()])).outcome is Outcome.NOT_SENT
    with pytest.raises(StripeSilent):
        await total(bench)
    with pytest.raises(StripeSilent):
        await bench.api.item_known(claimed(1, IntentKind.ITEM))
    with pytest.raises(StripeSilent):
        await bench.meters.meters()


async def test_prices_are_made_once(bench: Bench) -> None:
    """A price asked for twice is one; another takes its lookup key over, and it may come back."""
    tiers = (AccountTier(10, Decimal("0.25"), Decimal(300)), AccountTier(None, Decimal("1E-12")))
    first = AccountPrice("p/calls", "Calls", "eur", "calls", mode="graduated", tiers=tiers)
    assert await bench.prices.prices(["p/calls"]) == []
    made = await bench.prices.create_price(first)
    assert await bench.prices.create_price(first) == made
    (found,) = await bench.prices.prices(["p/calls", "p/other"])
    assert found == replace(first, price_id=made, name="")
    second = AccountPrice(
        *("p/calls", "Calls", "eur", "calls", Decimal("12.5")), divide_by=1_000, price_id=made
    )
    other = await bench.prices.create_price(second)
    (found,) = await bench.prices.prices(["p/calls"])
    assert found == replace(second, price_id=other, name="")
    again = await bench.prices.create_price(replace(first, price_id=other))
    assert again not in (made, other)
    fee = AccountPrice("p/base", "Base", "usd", "", Decimal(900))
    await bench.prices.create_price(fee)
    keys = ["p/calls", "p/base"]
    assert {(each.lookup_key, each.unit) for each in await bench.prices.prices(keys)} == {
        ("p/calls", None),
        ("p/base", Decimal(900)),
    }
    with pytest.raises(StripeRefused):
        await bench.prices.create_price(replace(first, lookup_key="p/x", event_name="none"))


async def test_meters_are_made_once(bench: Bench) -> None:
    """A meter asked for twice is one; it is renamed, and another of its kind stands beside it."""
    other = replace(METER, event_name="bytes", window="hour")
    made = await bench.meters.create_meter(other)
    assert await bench.meters.create_meter(other) == made
    await bench.meters.rename_meter(made, "Bytes sent")
    found = {each.event_name: each for each in await bench.meters.meters()}
    assert found["bytes"] == replace(other, meter_id=made, display_name="Bytes sent")
    assert found["calls"].active
    with pytest.raises(StripeRefused):
        await bench.meters.rename_meter("mtr_none", "x")
