"""A world of billing periods per test."""

from collections.abc import AsyncIterator

import pytest

from tests.periods.world import PeriodWorld, period_world


@pytest.fixture
async def world(postgres_dsn: str) -> AsyncIterator[PeriodWorld]:
    """A ledger of its own, and what closes its periods."""
    async with period_world(postgres_dsn) as lent:
        yield lent
