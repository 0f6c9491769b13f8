"""The contracts of `CatalogPublisher` and `CatalogView`, on the fakes and on Redis."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pytest

from tallygate.adapters.redis.catalog_publisher import RedisCatalogPublisher
from tallygate.adapters.redis.catalog_view import RedisCatalogView
from tallygate.adapters.redis.client import connect
from tallygate.domain.catalog import Catalog, Tenant, default_tenant
from tallygate.domain.errors import BackendUnavailable, CatalogNotLoaded, UnknownTenant
from tallygate.domain.ids import TenantId
from tallygate.ports import CatalogPublisher, CatalogView
from tallygate.testing.catalog import FakeCatalogPublisher, FakeCatalogView, Published
from tests.contracts.catalogs import ACME, FREE, HOOKS, ORG, PRO, catalog, tenant

NOWHERE = "redis://127.0.0.1:1/0"


class View(CatalogView, Protocol):
    """A view that can be brought up to date."""

    @property
    def version(self) -> int:
        """The version in use."""
        ...

    async def refresh(self) -> int:
        """Take over what is new."""
        ...


@dataclass
class Bench:
    """A publisher and a view of the same catalog, and a pair that nobody answers."""

    publisher: CatalogPublisher
    view: View
    publisher_down: CatalogPublisher
    view_down: View

    async def publish(
        self, found: Catalog, tenants: Sequence[Tenant], *, all_changed: bool = False
    ) -> None:
        """Publish a version and take it over."""
        await self.publisher.publish_tenants(tenants)
        changed = [each.tenant_id for each in tenants]
        await self.publisher.publish(found, None if all_changed else changed)
        await self.view.refresh()


class Contract:
    """What a publisher and a view do together."""

    async def test_nothing_is_published_at_first(self, bench: Bench) -> None:
        """Without a catalog there is a version 0, and a typed error."""
        assert await bench.publisher.published_version() == 0
        assert await bench.view.refresh() == 0
        assert bench.view.version == 0
        with pytest.raises(CatalogNotLoaded):
            bench.view.current()

    async def test_a_catalog_arrives_whole(self, bench: Bench) -> None:
        """What is published is what is seen."""
        found = catalog(3, default_plan=FREE, destinations=(HOOKS,))
        await bench.publish(found, [])
        assert bench.view.current() == found
        assert bench.view.version == 3
        assert await bench.publisher.published_version() == 3
        assert await bench.view.refresh() == 0

    async def test_a_tenant_arrives_whole(self, bench: Bench) -> None:
        """A tenant is held once it was asked for."""
        acme = tenant("acme", override=0)
        await bench.publish(catalog(1), [acme])
        assert bench.view.lineage_held(ACME) is None
        assert await bench.view.lineage(ACME) == (acme,)
        assert bench.view.lineage_held(ACME) == (acme,)

    async def test_a_lineage_goes_up_to_the_top(self, bench: Bench) -> None:
        """A tenant comes with its parent and its parent's parent."""
        found = [tenant("org"), tenant("team", parent="org"), tenant("acme", parent="team")]
        await bench.publish(catalog(1), found)
        assert await bench.view.lineage(ACME) == tuple(reversed(found))

    async def test_an_undeclared_tenant_is_refused(self, bench: Bench) -> None:
        """Without a default plan, who is not declared is unknown, also when asked again."""
        await bench.publish(catalog(1), [])
        for _ in range(2):
            with pytest.raises(UnknownTenant) as raised:
                await bench.view.lineage(ACME)
            assert raised.value.field == "tenant_id"
        assert bench.view.lineage_held(ACME) is None

    async def test_an_undeclared_tenant_lives_by_the_default_plan(self, bench: Bench) -> None:
        """With a default plan, anyone is welcome."""
        found = catalog(1, default_plan=FREE)
        await bench.publish(found, [])
        assert await bench.view.lineage(ACME) == (default_tenant(found, ACME),)

    async def test_a_default_plan_reaches_those_asked_for_in_vain(self, bench: Bench) -> None:
        """A default plan that comes later makes the unknown known, and its going the reverse."""
        await bench.publish(catalog(1), [])
        with pytest.raises(UnknownTenant):
            await bench.view.lineage(ACME)
        await bench.publish(catalog(2, default_plan=PRO), [])
        assert (await bench.view.lineage(ACME))[0].plan == PRO
        await bench.publish(catalog(3), [])
        with pytest.raises(UnknownTenant):
            await bench.view.lineage(ACME)

    async def test_a_tenant_that_is_declared_later_is_found(self, bench: Bench) -> None:
        """Having been unknown, or on the default plan, is forgotten with the change."""
        for version, default_plan in ((1, None), (3, PRO)):
            await bench.publish(catalog(version, default_plan=default_plan), [])
            name = TenantId(f"acme{version}")
            if default_plan is None:
                with pytest.raises(UnknownTenant):
                    await bench.view.lineage(name)
            else:
                assert (await bench.view.lineage(name))[0].plan == PRO
            await bench.publish(catalog(version + 1, default_plan=default_plan), [tenant(name)])
            assert (await bench.view.lineage(name))[0].plan == FREE

    async def test_a_changed_tenant_is_read_again(self, bench: Bench) -> None:
        """A change shows with the next refresh, not before, and others stay held."""
        acme, org = tenant("acme"), tenant("org")
        await bench.publish(catalog(1), [acme, org])
        await bench.view.lineage(ACME)
        await bench.view.lineage(ORG)
        moved = replace(acme, plan=PRO)
        await bench.publisher.publish_tenants([moved])
        await bench.publisher.publish(catalog(2), [ACME])
        assert await bench.view.lineage(ACME) == (acme,)
        assert await bench.view.refresh() == 1
        assert bench.view.lineage_held(ACME) is None
        assert bench.view.lineage_held(ORG) == (org,)
        assert await bench.view.lineage(ACME) == (moved,)

    async def test_a_changed_parent_reaches_those_below(self, bench: Bench) -> None:
        """A lineage is read again when anyone in it has changed."""
        acme, org = tenant("acme", parent="org"), tenant("org")
        await bench.publish(catalog(1), [acme, org])
        await bench.view.lineage(ACME)
        moved = replace(org, plan=PRO)
        await bench.publish(catalog(2), [moved])
        assert await bench.view.lineage(ACME) == (acme, moved)

    async def test_everyone_may_have_changed(self, bench: Bench) -> None:
        """A change of all makes the view forget all."""
        await bench.publish(catalog(1), [tenant("acme")])
        await bench.view.lineage(ACME)
        await bench.publish(catalog(2), [tenant("acme", PRO)], all_changed=True)
        assert bench.view.lineage_held(ACME) is None
        assert (await bench.view.lineage(ACME))[0].plan == PRO

    async def test_many_changes_are_taken_over(self, bench: Bench) -> None:
        """Many versions in a row end with the newest, no change lost."""
        await bench.publish(catalog(1), [tenant("acme"), tenant("org")])
        await bench.view.lineage(ACME)
        for version in range(2, 300):
            name = ORG if version % 2 else ACME
            await bench.publisher.publish_tenants([tenant(name, PRO)])
            await bench.publisher.publish(catalog(version), [name])
        while await bench.view.refresh():
            pass
        assert bench.view.version == 299
        assert (await bench.view.lineage(ACME))[0].plan == PRO

    async def test_thousands_of_tenants_are_published(self, bench: Bench) -> None:
        """A change of very many is told as a change of all."""
        await bench.publish(catalog(1), [tenant(f"t{n}") for n in range(1_500)])
        assert (await bench.view.lineage(TenantId("t1499")))[0].plan == FREE
        await bench.publish(catalog(2), [tenant(f"t{n}", PRO) for n in range(1_500)])
        assert (await bench.view.lineage(TenantId("t1499")))[0].plan == PRO

    async def test_an_older_version_can_be_published(self, bench: Bench) -> None:
        """A publisher that says so takes the views back: Postgres was restored from a copy."""
        await bench.publish(catalog(5), [])
        await bench.publish(catalog(4), [], all_changed=True)
        assert bench.view.version == 4

    async def test_an_outage_is_told(self, bench: Bench) -> None:
        """When nobody answers, every call that needs an answer says so."""
        for call in (
            bench.publisher_down.published_version(),
            bench.publisher_down.publish_tenants([tenant("acme")]),
            bench.publisher_down.publish(catalog(1), None),
            bench.view_down.refresh(),
        ):
            with pytest.raises(BackendUnavailable):
                await call


class TestFake(Contract):
    """The fakes."""

    @pytest.fixture
    def bench(self) -> Bench:
        """A pair in memory."""
        published, down = Published(), Published(down=True)
        return Bench(
            FakeCatalogPublisher(published),
            FakeCatalogView(published),
            FakeCatalogPublisher(down),
            FakeCatalogView(down),
        )


class TestRedis(Contract):
    """The real ones, on each Redis."""

    @pytest.fixture
    async def bench(self, redis_url: str) -> AsyncIterator[Bench]:
        """A pair over one Redis."""
        client, nobody = connect(redis_url, 5_000), connect(NOWHERE, 200)
        view, view_down = RedisCatalogView(client), RedisCatalogView(nobody)
        yield Bench(RedisCatalogPublisher(client), view, RedisCatalogPublisher(nobody), view_down)
        await view.close()
        await view_down.close()
        await client.aclose()
        await nobody.aclose()
