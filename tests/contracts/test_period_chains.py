"""What every `PeriodChains` promises, asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tallygate.adapters.postgres.period_chain import PostgresPeriodChains
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.ids import TenantId
from tallygate.domain.window import DAY_US, Window
from tallygate.ports.period_chain import PeriodChains
from tallygate.testing.period_chain import FakePeriodChains
from tests.servers import connection
from tests.usage_events import NOON_US

ACME, OTHER, NOBODY = TenantId("acme"), TenantId("other"), TenantId("nobody")


@dataclass(frozen=True, slots=True)
class Subject:
    """Chains, and what keeps periods."""

    chains: PeriodChains
    dsn: str = ""

    async def keep(self, tenant: TenantId, count: int) -> list[Window]:
        """Keep so many periods of ten days from noon on."""
        starts = [NOON_US + number * 10 * DAY_US for number in range(count)]
        kept = [Window(start, start + 10 * DAY_US) for start in starts]
        if isinstance(self.chains, FakePeriodChains):
            self.chains.kept[tenant] = kept
            return kept
        async with connection(self.dsn) as admin:
            await admin.executemany(
                "insert into tallygate.billing_period (tenant_id, start_at, end_at, created_at)"
                " values ($1, tallygate.instant($2), tallygate.instant($3), now())",
                [(tenant, each.start_us, each.end_us) for each in kept],
            )
        return kept


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of chains, empty."""
    if dsn is None:
        yield Subject(FakePeriodChains())
        return
    postgres = Postgres(dsn)
    yield Subject(PostgresPeriodChains(postgres), dsn)
    await postgres.close()


async def test_a_period_comes_with_its_neighbours(subject: Subject) -> None:
    """Of an instant: the period that holds it, the one before and the one after."""
    kept = await subject.keep(ACME, 5)
    for inside_us in (kept[2].start_us, kept[2].start_us + DAY_US, kept[2].end_us - 1):
        found = await subject.chains.around([ACME], inside_us, inside_us)
        assert found == {ACME: kept[1:4]}
    assert (await subject.chains.around([ACME], NOON_US, NOON_US))[ACME] == kept[:2]


async def test_beside_the_chain_its_end_is_told(subject: Subject) -> None:
    """Before the first and after the last period, the nearest one bounds what the calendar says."""
    kept = await subject.keep(ACME, 3)
    before_us, after_us = NOON_US - 40 * DAY_US, kept[-1].end_us
    assert (await subject.chains.around([ACME], before_us, before_us))[ACME] == kept[:1]
    assert (await subject.chains.around([ACME], after_us, after_us))[ACME] == kept[-1:]


async def test_a_stretch_has_all_that_touch_it(subject: Subject) -> None:
    """Tenants are told apart; one without periods has no entry."""
    kept, other = await subject.keep(ACME, 6), await subject.keep(OTHER, 2)
    found = await subject.chains.around(
        [OTHER, NOBODY, ACME], kept[1].end_us, kept[3].start_us + DAY_US
    )
    assert found == {ACME: kept[1:5], OTHER: other[1:]}
    assert await subject.chains.around([], NOON_US, NOON_US) == {}
