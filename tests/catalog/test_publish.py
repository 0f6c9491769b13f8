"""Publishing: each version when it takes effect, and all of it again when it was lost."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import TenantId
from tallygate.flow.publish import NAMED_MAX, Publish
from tallygate.ports import CatalogChange
from tallygate.testing.catalog import FakeCatalogPublisher, FakeCatalogStore, Published
from tests.contracts.catalogs import ACME, FREE, ORG, PRO, catalog, tenant

NOW = 1_700_000_000_000_000


class Crash(Exception):
    """The process dies here."""


class DyingPublisher(FakeCatalogPublisher):
    """A publisher whose process dies between the tenants and the snapshot."""

    async def publish(self, catalog: Catalog, changed: Sequence[TenantId] | None) -> None:
        """Die."""
        raise Crash


@dataclass
class Control:
    """What a control process has, at a time that can be set."""

    now: int = NOW
    store: FakeCatalogStore = field(default_factory=FakeCatalogStore)
    published: Published = field(default_factory=Published)

    def now_us(self) -> int:
        """Return the time."""
        return self.now

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.now / 1e6

    async def write(self, *tenants: Tenant, at_us: int = NOW, of: Catalog | None = None) -> None:
        """Write the next version."""
        newest = await self.store.newest()
        change = CatalogChange(of or catalog(), tenants, "", at_us)
        await self.store.write(change, newest.version)

    async def run_once(self) -> int:
        """Publish once."""
        return await Publish(self.store, FakeCatalogPublisher(self.published), self).run_once()


async def test_nothing_is_published_of_nothing() -> None:
    """An empty store publishes nothing, and takes nothing from sidecars that have a catalog."""
    control = Control()
    assert await control.run_once() == 0
    assert control.published.catalog is None
    control.published.catalog = catalog(7)
    assert await control.run_once() == 0
    assert control.published.catalog == catalog(7)


async def test_a_version_is_published_once() -> None:
    """The first run publishes, the next has nothing to do."""
    control = Control()
    await control.write(tenant("acme"))
    assert [await control.run_once(), await control.run_once()] == [1, 0]
    assert control.published.catalog == catalog(1)
    assert control.published.tenants == {ACME: tenant("acme")}
    assert control.published.changes == [None]


async def test_only_what_changed_is_named() -> None:
    """A later version names the tenants that it wrote."""
    control = Control()
    await control.write(tenant("acme"), tenant("org"))
    await control.run_once()
    await control.write(tenant("acme", PRO))
    await control.write()
    await control.run_once()
    assert control.published.changes == [None, frozenset({ACME})]
    assert control.published.tenants[ACME].plan == PRO
    assert control.published.catalog is not None
    assert control.published.catalog.version == 3


async def test_many_changes_are_told_as_all() -> None:
    """More names than a sidecar would read are told as a change of everyone."""
    control = Control()
    await control.write()
    await control.run_once()
    await control.write(*(tenant(f"t{number}") for number in range(NAMED_MAX + 1)))
    await control.run_once()
    assert control.published.changes == [None, None]
    assert len(control.published.tenants) == NAMED_MAX + 1


async def test_a_version_is_published_when_its_time_comes() -> None:
    """A version that waits stays unseen, its tenants too."""
    control = Control()
    await control.write(tenant("acme"))
    await control.write(tenant("acme", PRO), at_us=NOW + 10)
    await control.run_once()
    assert control.published.tenants[ACME].plan == FREE
    control.now = NOW + 10
    assert await control.run_once() == 1
    assert control.published.tenants[ACME].plan == PRO
    assert control.published.changes == [None, frozenset({ACME})]


async def test_what_redis_lost_is_published_again() -> None:
    """An emptied Redis gets everything, as it is in effect."""
    control = Control()
    await control.write(tenant("acme"), tenant("org"))
    await control.write(tenant("acme", PRO))
    await control.write(tenant("org", PRO), at_us=NOW + 10)
    await control.run_once()
    control.published = Published()
    assert await control.run_once() == 1
    plans = {each.tenant_id: each.plan for each in control.published.tenants.values()}
    assert plans == {ACME: PRO, ORG: FREE}
    assert control.published.changes == [None]


async def test_another_postgres_is_published_whole() -> None:
    """When what is published is newer than what is known, Postgres was restored: all is told."""
    control = Control()
    await control.write(tenant("acme", PRO))
    control.published = Published(catalog(9), {ACME: tenant("acme"), ORG: tenant("org")})
    assert await control.run_once() == 1
    assert control.published.catalog == catalog(1)
    assert control.published.tenants[ACME].plan == PRO
    assert control.published.changes == [None]


async def test_dying_between_tenants_and_snapshot_loses_nothing() -> None:
    """The next run publishes the same tenants again, and then the snapshot."""
    control = Control()
    await control.write(tenant("acme"))
    dying = Publish(control.store, DyingPublisher(control.published), control)
    with pytest.raises(Crash):
        await dying.run_once()
    assert control.published == Published(None, {ACME: tenant("acme")})
    assert await control.run_once() == 1
    assert control.published == Published(catalog(1), {ACME: tenant("acme")}, [None])


async def test_outages_are_told() -> None:
    """When Postgres or Redis does not answer, the run says so."""
    control = Control()
    control.store.down = True
    with pytest.raises(BackendUnavailable):
        await control.run_once()
    control.store.down = False
    await control.write()
    control.published.down = True
    with pytest.raises(BackendUnavailable):
        await control.run_once()
