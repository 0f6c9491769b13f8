"""The contract of Stripe's sums, on the fake and on accounts of a catalog over a fake Stripe."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Protocol

import pytest

from tallygate.adapters.stripe.api import StripeUsage
from tallygate.adapters.stripe.client import Client, ClientOptions
from tallygate.adapters.stripe.meters import StripeAccountMeters
from tallygate.domain.catalog import Catalog, Destination
from tallygate.domain.errors import NotFound, TallygateError
from tallygate.domain.stripe_sync import StripeAccount
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Window
from tallygate.flow.stripe_ration import RationedSums
from tallygate.ports import CatalogChange
from tallygate.ports.reconcile import StripeSums
from tallygate.ports.stripe import StripeApi, StripeRefused, StripeSilent
from tallygate.settings_sources import load_settings
from tallygate.testing.catalog import FakeCatalogStore
from tallygate.testing.stripe import FakeStripeAccount
from tallygate.testing.stripe_sums import FakeStripeSums
from tallygate.wiring.stripe_desk import AccountSums
from tallygate_fake_stripe import FakeStripe, VirtualClock
from tests.contracts.test_stripe import CUSTOMER, METER, claimed
from tests.stripe_world import START_US, WorldClock

HOUR = Window(START_US, START_US + HOUR_US)


class Bench(Protocol):
    """Sums under test, and what fills the account that they are of."""

    sums: StripeSums
    api: StripeApi

    async def down(self) -> None:
        """Have nobody there."""
        ...

    def forget_key(self) -> None:
        """Have the account's key be gone."""
        ...


class FakeBench:
    """The fake."""

    def __init__(self) -> None:
        self.account = FakeStripeAccount(lambda: START_US)
        self.api: StripeApi = self.account
        self.fake = FakeStripeSums({"stripe": self.account})
        self.sums: StripeSums = self.fake

    async def down(self) -> None:
        """Have nobody there."""
        self.account.down = True

    def forget_key(self) -> None:
        """Have the account's key be gone."""
        self.fake.keyless.add("stripe")


class AccountBench:
    """Accounts of a catalog."""

    def __init__(self, stripe: FakeStripe, api: StripeApi, sums: StripeSums, key: Path) -> None:
        self.stripe, self.api, self.sums, self.key = stripe, api, sums, key

    async def down(self) -> None:
        """Have nobody there."""
        await self.stripe.stop()

    def forget_key(self) -> None:
        """Have the account's key be gone."""
        self.key.unlink()


@pytest.fixture(params=["fake", "accounts"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Each in turn, with a meter and a customer."""
    if request.param == "fake":
        fake = FakeBench()
        await fake.account.create_meter(METER)
        yield fake
        return
    key = tmp_path / "key"
    key.write_text("sk_test_x")
    virtual = VirtualClock(START_US / SECOND_US)
    stripe = FakeStripe(virtual, customers=[CUSTOMER])
    await stripe.start()
    catalogs = FakeCatalogStore()
    account = Destination(
        "stripe", "stripe", stripe.url, (), secret_file=str(key), stripe=StripeAccount()
    )
    await catalogs.write(CatalogChange(Catalog(destinations=(account,)), (), "", 0), 0)
    client = Client(lambda: "sk_test_x", ClientOptions(url=stripe.url))
    await StripeAccountMeters(client).create_meter(METER)
    sums = AccountSums(load_settings({}, environ={}), catalogs)
    yield AccountBench(stripe, StripeUsage(client, WorldClock(virtual)), sums, key)
    await sums.close()
    await client.close()
    await stripe.stop()


async def test_a_sum_is_of_an_accounts_customer(bench: Bench) -> None:
    """Of whole minutes, first ones included and last ones not, as an exact decimal."""
    await bench.api.tell(claimed(1, value="12345.25"))
    await bench.api.tell(claimed(2, value="7", timestamp_us=START_US + MINUTE_US))
    assert await bench.sums.asks("stripe")
    assert await bench.sums.summed("stripe", "calls", CUSTOMER, HOUR) == Decimal("12352.25")
    minute = Window(START_US, START_US + MINUTE_US)
    assert await bench.sums.summed("stripe", "calls", CUSTOMER, minute) == Decimal("12345.25")


async def test_what_cannot_be_asked_is_said(bench: Bench) -> None:
    """An account that is none, a meter that it has not, nobody there: each is its own error."""
    assert not await bench.sums.asks("other")
    with pytest.raises(NotFound):
        await bench.sums.summed("other", "calls", CUSTOMER, HOUR)
    with pytest.raises(StripeRefused):
        await bench.sums.summed("stripe", "nothing", CUSTOMER, HOUR)
    await bench.down()
    with pytest.raises(StripeSilent):
        await bench.sums.summed("stripe", "calls", CUSTOMER, HOUR)


async def test_without_its_key_an_account_is_not_asked(bench: Bench) -> None:
    """Whoever asks all the same is told, as of any other fault."""
    bench.forget_key()
    assert not await bench.sums.asks("stripe")


@dataclass
class Day:
    """A clock."""

    us: int = START_US

    def now_us(self) -> int:
        """Return the time."""
        return self.us

    def monotonic(self) -> float:
        """Return it in seconds."""
        return self.us / 1e6


async def test_sums_are_rationed() -> None:
    """So many a day, over all accounts; the next day as many again."""
    accounts = {name: FakeStripeAccount(lambda: START_US) for name in ("a", "b")}
    for account in accounts.values():
        await account.create_meter(METER)
    clock, fake = Day(), FakeStripeSums(accounts)
    sums = RationedSums(fake, clock, 3)
    for name in ("a", "b", "a"):
        assert await sums.asks(name)
        assert await sums.summed(name, "calls", CUSTOMER, HOUR) == 0
    assert not await sums.asks("b")
    clock.us += DAY_US
    assert await sums.asks("b")
    assert not await sums.asks("none")
    with pytest.raises(TallygateError):
        await sums.summed("none", "calls", CUSTOMER, HOUR)
    assert fake.reads == 3
