"""A fake whose clock stands still, with one customer, and Stripe's own client of it."""

from collections.abc import AsyncIterator

import pytest
from stripe import StripeClient

from tallygate_fake_stripe import Behaviour, FakeStripe, VirtualClock

from .clients import CUSTOMER, LIVE_KEY, TEST_KEY, connected


@pytest.fixture
async def fake() -> AsyncIterator[FakeStripe]:
    """A fake at the start of 2026; its rates would be used up, as its clock stands still."""
    behaviour = Behaviour(rate_limited=False)
    async with FakeStripe(VirtualClock(), behaviour=behaviour, customers=[CUSTOMER]) as running:
        yield running


@pytest.fixture
async def client(fake: FakeStripe) -> AsyncIterator[StripeClient]:
    """A client of its sandbox."""
    async with connected(fake.url, TEST_KEY) as found:
        yield found


@pytest.fixture
async def live(fake: FakeStripe) -> AsyncIterator[StripeClient]:
    """A client of its live mode."""
    async with connected(fake.url, LIVE_KEY) as found:
        yield found
