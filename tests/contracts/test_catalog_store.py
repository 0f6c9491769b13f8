"""The contract of `CatalogStore`, on the fake and on Postgres."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import pytest

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.errors import BackendUnavailable, CatalogConflict
from tallygate.domain.ids import PlanName, TenantId
from tallygate.ports import CatalogChange, CatalogStore
from tallygate.testing.catalog import FakeCatalogStore
from tests.contracts.catalogs import ACME, FREE, HOOKS, ORG, PRO, catalog, tenant
from tests.servers import connection

NOBODY = "postgresql://127.0.0.1:1/nobody"
NOW = 1_700_000_000_000_000


def change(*tenants: Tenant, at_us: int = NOW, of: Catalog | None = None) -> CatalogChange:
    """Return a change that writes these tenants."""
    return CatalogChange(of or catalog(), tenants, "version: 1\n", at_us)


async def changed(store: CatalogStore, after: int, up_to: int) -> dict[TenantId, PlanName]:
    """Return the plans of the tenants that a range of versions wrote."""
    found: dict[TenantId, PlanName] = {}
    async for tenants in store.tenants_changed(after, up_to):
        assert tenants
        for each in tenants:
            assert each.tenant_id not in found
            found[each.tenant_id] = each.plan
    return found


@dataclass
class Bench:
    """A store, and one that nobody answers."""

    store: CatalogStore
    down: CatalogStore


class Contract:
    """What a store does."""

    async def test_an_empty_store_has_version_0(self, bench: Bench) -> None:
        """Before the first version there is an empty catalog and nobody."""
        assert await bench.store.newest() == Catalog()
        assert await bench.store.effective(NOW) == Catalog()
        assert await bench.store.tenant(ACME) is None
        assert await bench.store.tenants_page(None, 10, None) == []
        assert await bench.store.plans_in_use() == set()
        assert await changed(bench.store, 0, 0) == {}

    async def test_a_version_comes_back_whole(self, bench: Bench) -> None:
        """What is written is read, numbered from 1."""
        of = catalog(default_plan=FREE, destinations=(HOOKS,))
        written = await bench.store.write(change(of=of), 0)
        assert written == replace(of, version=1)
        assert await bench.store.newest() == written
        assert await bench.store.effective(NOW) == written

    async def test_a_tenant_comes_back_whole(self, bench: Bench) -> None:
        """Calendar, money, parent and overrides are kept."""
        acme = tenant("acme", PRO, parent="org", override=0)
        await bench.store.write(change(acme, tenant("org")), 0)
        assert await bench.store.tenant(ACME) == acme
        found = await bench.store.tenants_named([ACME, TenantId("nobody")])
        assert found == {ACME: acme}

    async def test_children_are_found_by_their_parents(self, bench: Bench) -> None:
        """Only those directly below, as they were last written."""
        below = [tenant("a", parent="org"), tenant("b", parent="a"), tenant("c", parent="org")]
        await bench.store.write(change(tenant("org"), *below), 0)
        await bench.store.write(change(tenant("c")), 1)
        assert await bench.store.tenants_below([ORG]) == ["a"]
        assert await bench.store.tenants_below([ORG, TenantId("a")]) == ["a", "b"]
        assert await bench.store.tenants_below([]) == []

    async def test_one_of_two_writers_is_refused(self, bench: Bench) -> None:
        """A writer that has not seen the newest version writes nothing."""
        await bench.store.write(change(tenant("acme")), 0)
        with pytest.raises(CatalogConflict):
            await bench.store.write(change(tenant("acme", PRO)), 0)
        assert (await bench.store.newest()).version == 1
        found = await bench.store.tenant(ACME)
        assert found is not None
        assert found.plan == FREE

    async def test_of_many_writers_at_once_one_wins(self, bench: Bench) -> None:
        """Writers that race for one version leave one version."""
        results = await asyncio.gather(
            *(bench.store.write(change(tenant(f"t{n}")), 0) for n in range(8)),
            return_exceptions=True,
        )
        assert sum(isinstance(each, Catalog) for each in results) == 1
        assert sum(isinstance(each, CatalogConflict) for each in results) == 7
        assert len(await bench.store.tenants_page(None, 10, None)) == 1

    async def test_a_version_takes_effect_at_its_time(self, bench: Bench) -> None:
        """Before its time the one before is in effect, from its time on it is."""
        await bench.store.write(change(), 0)
        await bench.store.write(change(at_us=NOW + 10), 1)
        for at_us, version in ((NOW - 1, 0), (NOW, 1), (NOW + 9, 1), (NOW + 10, 2)):
            assert (await bench.store.effective(at_us)).version == version
        assert (await bench.store.newest()).version == 2

    async def test_no_version_overtakes_one_that_waits(self, bench: Bench) -> None:
        """A version cannot take effect before an earlier one that it is built on."""
        await bench.store.write(change(at_us=NOW + 10), 0)
        with pytest.raises(CatalogConflict):
            await bench.store.write(change(at_us=NOW + 9), 1)
        assert (await bench.store.write(change(at_us=NOW + 10), 1)).version == 2

    async def test_pages_of_tenants(self, bench: Bench) -> None:
        """Pages follow each other by id, byte by byte, over all tenants or those of a plan."""
        names = ["Z", "a", "b-1", "b.1", "b1", "c", "é"]
        tenants = [tenant(name, PRO if name in "ac" else FREE) for name in reversed(names)]
        await bench.store.write(change(*tenants), 0)

        async def pages(plan: PlanName | None) -> list[str]:
            found: list[str] = []
            after: TenantId | None = None
            while page := await bench.store.tenants_page(after, 2, plan):
                assert len(page) <= 2
                found += [each.tenant_id for each in page]
                after = page[-1].tenant_id
            return found

        assert await pages(None) == names
        assert await pages(PRO) == ["a", "c"]
        assert await pages(PlanName("none")) == []

    async def test_plans_in_use(self, bench: Bench) -> None:
        """A plan is in use while a tenant, as last written, is on it."""
        await bench.store.write(change(tenant("acme"), tenant("org", PRO)), 0)
        assert await bench.store.plans_in_use() == {FREE, PRO}
        await bench.store.write(change(tenant("acme", PRO)), 1)
        assert await bench.store.plans_in_use() == {PRO}

    async def test_what_a_range_of_versions_changed(self, bench: Bench) -> None:
        """A range gives each tenant it wrote once, as the last of its versions left it."""
        await bench.store.write(change(tenant("acme"), tenant("org")), 0)
        await bench.store.write(change(tenant("acme", PRO)), 1)
        await bench.store.write(change(), 2)
        assert await changed(bench.store, 0, 3) == {ACME: PRO, ORG: FREE}
        assert await changed(bench.store, 0, 1) == {ACME: FREE, ORG: FREE}
        assert await changed(bench.store, 1, 3) == {ACME: PRO}
        assert await changed(bench.store, 2, 3) == {}

    async def test_a_version_that_waits_hides_nobody(self, bench: Bench) -> None:
        """A tenant rewritten by a later version is still there as an earlier one left it."""
        await bench.store.write(change(tenant("acme")), 0)
        await bench.store.write(change(tenant("acme", PRO), at_us=NOW + 10), 1)
        assert await changed(bench.store, 0, 1) == {ACME: FREE}

    async def test_many_tenants_come_in_parts(self, bench: Bench) -> None:
        """Thousands of tenants are written at once and read in bounded lists."""
        tenants = [tenant(f"t{number:04}") for number in range(2_500)]
        await bench.store.write(change(*tenants), 0)
        parts = [part async for part in bench.store.tenants_changed(0, 1)]
        assert max(len(part) for part in parts) <= 1_000
        assert sorted(each.tenant_id for part in parts for each in part) == [
            each.tenant_id for each in tenants
        ]

    async def test_an_outage_is_told(self, bench: Bench) -> None:
        """When nobody answers, every call says so."""
        for call in (
            bench.down.newest(),
            bench.down.effective(NOW),
            bench.down.write(change(), 0),
            bench.down.tenant(ACME),
            bench.down.tenants_named([ACME]),
            bench.down.tenants_page(None, 1, None),
            bench.down.plans_in_use(),
            changed(bench.down, 0, 1),
        ):
            with pytest.raises(BackendUnavailable):
                await call


class TestFake(Contract):
    """The fake."""

    @pytest.fixture
    def bench(self) -> Bench:
        """A store in memory."""
        down = FakeCatalogStore()
        down.down = True
        return Bench(FakeCatalogStore(), down)


class TestPostgres(Contract):
    """The real one."""

    @pytest.fixture
    async def bench(self, postgres_dsn: str) -> AsyncIterator[Bench]:
        """A store in a database of its own."""
        pools = [
            Postgres(dsn, PoolOptions(connect_timeout_ms=500)) for dsn in (postgres_dsn, NOBODY)
        ]
        yield Bench(*(PostgresCatalogStore(pool) for pool in pools))
        for pool in pools:
            await pool.close()

    async def destinations(self, dsn: str) -> Sequence[tuple[str, bool, str]]:
        """Return the rows that say where messages go."""
        async with connection(dsn) as admin:
            rows = await admin.fetch(
                "select name, active, secret_env from tallygate.destination order by name"
            )
        return [tuple(row) for row in rows]

    async def test_destinations_are_kept_in_step(self, bench: Bench, postgres_dsn: str) -> None:
        """A destination that goes is no longer written for, and may come back."""
        other = replace(HOOKS, name="other", secret_env="OTHER")
        await bench.store.write(change(of=catalog(destinations=(HOOKS, other))), 0)
        await bench.store.write(change(of=catalog(destinations=(HOOKS,))), 1)
        assert await self.destinations(postgres_dsn) == [
            ("hooks", True, "SECRET"),
            ("other", False, "OTHER"),
        ]
        await bench.store.write(change(of=catalog(destinations=(other,))), 2)
        assert [row[1] for row in await self.destinations(postgres_dsn)] == [False, True]

    async def test_a_refused_write_leaves_nothing(self, bench: Bench, postgres_dsn: str) -> None:
        """Tenants, destinations and the version come together or not at all."""
        await bench.store.write(change(), 0)
        with pytest.raises(CatalogConflict):
            await bench.store.write(change(tenant("a"), of=catalog(destinations=(HOOKS,))), 0)
        assert await self.destinations(postgres_dsn) == []
        async with connection(postgres_dsn) as admin:
            assert await admin.fetchval("select count(*) from tallygate.tenant_history") == 0

    async def test_history_and_document_are_kept(self, bench: Bench, postgres_dsn: str) -> None:
        """Every version keeps its document, and what it made of tenants."""
        await bench.store.write(change(tenant("acme")), 0)
        await bench.store.write(change(tenant("acme", PRO), at_us=NOW + 5), 1)
        async with connection(postgres_dsn) as admin:
            rows = await admin.fetch(
                "select version, plan, tallygate.microseconds(effective_at) as at_us"
                " from tallygate.tenant_history order by version"
            )
            documents = await admin.fetch("select document from tallygate.catalog_version")
        assert [tuple(row) for row in rows] == [(1, FREE, NOW), (2, PRO, NOW + 5)]
        assert [row["document"] for row in documents] == ["version: 1\n"] * 2
