"""The catalog's ports in memory: a store, a publisher, and views of what is published.

Guarantees: each passes the contract tests of its port.
Refuses to know: documents; catalogs are given as they are.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tallygate.domain.catalog import Catalog, Tenant, default_tenant
from tallygate.domain.errors import (
    BackendUnavailable,
    CatalogConflict,
    CatalogNotLoaded,
    UnknownTenant,
)
from tallygate.domain.ids import PlanName, TenantId
from tallygate.ports import CatalogChange

PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class _Written:
    """One version, and what it made of tenants."""

    catalog: Catalog
    change: CatalogChange


class FakeCatalogStore:
    """The `CatalogStore` port. Set `down` to have it not answer."""

    def __init__(self) -> None:
        self._versions: list[_Written] = []
        self.down = False

    async def newest(self) -> Catalog:
        """Return the newest version, effective or not; version 0 when there is none."""
        self._answer()
        return self._versions[-1].catalog if self._versions else Catalog()

    async def effective(self, at_us: int) -> Catalog:
        """Return the version in effect at an instant; version 0 when there is none."""
        self._answer()
        found = [each for each in self._versions if each.change.effective_at_us <= at_us]
        return found[-1].catalog if found else Catalog()

    async def write(self, change: CatalogChange, expected_version: int) -> Catalog:
        """Write the next version. Raises `CatalogConflict`."""
        self._answer()
        newest = len(self._versions)
        if newest != expected_version:
            raise CatalogConflict(
                f"version {newest} was applied meanwhile, after {expected_version}"
            )
        if newest and self._versions[-1].change.effective_at_us > change.effective_at_us:
            raise CatalogConflict(f"version {newest} takes effect later than this one")
        catalog = replace(change.catalog, version=newest + 1)
        self._versions.append(_Written(catalog, change))
        return catalog

    async def tenant(self, tenant_id: TenantId) -> Tenant | None:
        """Return one tenant, None when it is not declared."""
        self._answer()
        return self._tenants().get(tenant_id)

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are declared."""
        self._answer()
        tenants = self._tenants()
        return {tenant_id: tenants[tenant_id] for tenant_id in ids if tenant_id in tenants}

    async def tenants_below(self, ids: Sequence[TenantId]) -> list[TenantId]:
        """Return the tenants whose parent is one of these, as last written."""
        self._answer()
        wanted = set(ids)
        return sorted(each.tenant_id for each in self._tenants().values() if each.parent in wanted)

    async def tenants_page(
        self, after: TenantId | None, count: int, plan: PlanName | None
    ) -> list[Tenant]:
        """Return up to `count` tenants by id, those after `after`."""
        self._answer()
        tenants = self._tenants()
        found = [
            tenants[tenant_id]
            for tenant_id in sorted(tenants)
            if (after is None or tenant_id > after) and plan in (None, tenants[tenant_id].plan)
        ]
        return found[:count]

    async def plans_in_use(self) -> set[PlanName]:
        """Return the plans that some tenant is on."""
        self._answer()
        return {tenant.plan for tenant in self._tenants().values()}

    async def tenants_changed(
        self, after_version: int, up_to_version: int
    ) -> AsyncIterator[Sequence[Tenant]]:
        """Iterate, in bounded lists, over the tenants that those versions wrote."""
        self._answer()
        found = list(self._tenants(self._versions[after_version:up_to_version]).values())
        for start in range(0, len(found), PAGE):
            yield found[start : start + PAGE]

    def _tenants(self, versions: Iterable[_Written] | None = None) -> dict[TenantId, Tenant]:
        found: dict[TenantId, Tenant] = {}
        for each in self._versions if versions is None else versions:
            found |= {tenant.tenant_id: tenant for tenant in each.change.tenants}
        return found

    def _answer(self) -> None:
        if self.down:
            raise BackendUnavailable


@dataclass(slots=True)
class Published:
    """What a publisher has handed to the views."""

    catalog: Catalog | None = None
    tenants: dict[TenantId, Tenant] = field(default_factory=dict)
    changes: list[frozenset[TenantId] | None] = field(default_factory=list)
    down: bool = False

    def answer(self) -> None:
        """Raise `BackendUnavailable` while it is `down`."""
        if self.down:
            raise BackendUnavailable


class FakeCatalogPublisher:
    """The `CatalogPublisher` port."""

    def __init__(self, published: Published) -> None:
        self._published = published

    async def published_version(self) -> int:
        """Return the version that views are given, 0 for none."""
        self._published.answer()
        return self._published.catalog.version if self._published.catalog else 0

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are published."""
        self._published.answer()
        tenants = self._published.tenants
        return {each: tenants[each] for each in ids if each in tenants}

    async def publish_tenants(self, tenants: Sequence[Tenant]) -> None:
        """Write tenants where views look them up."""
        self._published.answer()
        self._published.tenants |= {tenant.tenant_id: tenant for tenant in tenants}

    async def publish(self, catalog: Catalog, changed: Sequence[TenantId] | None) -> None:
        """Make `catalog` the one that views use; they forget `changed`, or all for None."""
        self._published.answer()
        self._published.catalog = catalog
        self._published.changes.append(None if changed is None else frozenset(changed))


class FakeCatalogView:
    """The `CatalogView` port over what is published; `refresh` takes it over."""

    def __init__(self, published: Published) -> None:
        self._published = published
        self._catalog: Catalog | None = None
        self._held: dict[TenantId, tuple[Tenant, ...] | None] = {}
        self._seen = 0

    @property
    def version(self) -> int:
        """The version in use, 0 for none."""
        return self._catalog.version if self._catalog else 0

    def current(self) -> Catalog:
        """Return the newest good catalog. Raises `CatalogNotLoaded`."""
        if self._catalog is None:
            raise CatalogNotLoaded
        return self._catalog

    def lineage_held(self, tenant_id: TenantId) -> tuple[Tenant, ...] | None:
        """Return the lineage if it has been asked for."""
        return self._held.get(tenant_id)

    async def lineage(self, tenant_id: TenantId) -> tuple[Tenant, ...]:
        """Return the tenant and those above it. Raises `UnknownTenant`."""
        if tenant_id not in self._held:
            self._published.answer()
            self._held[tenant_id] = self._lineage(tenant_id)
        found = self._held[tenant_id]
        if found is None:
            raise UnknownTenant(field="tenant_id")
        return found

    async def refresh(self) -> int:
        """Take over what has been published since; return how many changes that was."""
        self._published.answer()
        changes = self._published.changes[self._seen :]
        self._seen += len(changes)
        if changes:
            self._catalog = self._published.catalog
            self._forget(changes)
        return len(changes)

    def _forget(self, changes: list[frozenset[TenantId] | None]) -> None:
        self._held = {
            tenant_id: lineage
            for tenant_id, lineage in self._held.items()
            # Whoever is unknown may live by a default plan now.
            if lineage is not None
            and all(
                changed is not None and changed.isdisjoint(each.tenant_id for each in lineage)
                for changed in changes
            )
            and all(self._published.tenants.get(each.tenant_id) for each in lineage)
        }

    def _lineage(self, tenant_id: TenantId) -> tuple[Tenant, ...] | None:
        lineage: list[Tenant] = []
        following: TenantId | None = tenant_id
        while following is not None:
            tenant = self._published.tenants.get(following)
            tenant = tenant or default_tenant(self.current(), following)
            if tenant is None:
                return None
            lineage.append(tenant)
            following = tenant.parent
        return tuple(lineage)
