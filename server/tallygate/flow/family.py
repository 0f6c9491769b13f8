"""catalog ─▶ [ family ] ─▶ grant, credit, reset, recount: whose tenant it is, and its shard.

If we die here, nothing has happened yet.

Guarantees: a tenant's shard is that of its topmost ancestor, as sidecars compute it; a tenant that
is not declared is on the default plan, where there is one.
Refuses to know: counters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.catalog import (
    LINEAGE_MAX,
    Catalog,
    Limit,
    Tenant,
    default_tenant,
    limits_of,
)
from tallygate.domain.ids import LimitId, PlanName, TenantId


@dataclass(frozen=True, slots=True)
class Member:
    """A tenant and the topmost of its ancestors, which may be itself."""

    tenant: Tenant
    root: TenantId


class Tenants(Protocol):
    """Whoever knows tenants by their names."""

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that there are."""
        ...


async def members(
    store: Tenants, catalog: Catalog, ids: Sequence[TenantId]
) -> Mapping[TenantId, Member]:
    """Return those of the tenants that there are, each with its root."""
    known = await _known(store, ids)
    tenants = {each: known.get(each) or default_tenant(catalog, each) for each in ids}
    return {
        tenant_id: Member(tenant, _root(known, tenant))
        for tenant_id, tenant in tenants.items()
        if tenant is not None
    }


async def lineages(
    store: Tenants, catalog: Catalog, ids: Sequence[TenantId]
) -> dict[TenantId, tuple[Tenant, ...]]:
    """Return those of the tenants that there are, each with its parents up to its root.

    A parent that is not declared is on the default plan; where there is none, it has no limits.
    """
    known = await _known(store, ids)
    tenants = {each: known.get(each) or default_tenant(catalog, each) for each in ids}
    return {
        tenant_id: _lineage(known, catalog, tenant)
        for tenant_id, tenant in tenants.items()
        if tenant is not None
    }


async def _known(store: Tenants, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
    """Return the declared ones of the tenants and of all above them."""
    known: dict[TenantId, Tenant] = {}
    wanted = set(ids)
    for _ in range(LINEAGE_MAX):
        if not wanted:
            break
        found = await store.tenants_named(sorted(wanted))
        known |= found
        parents = {tenant.parent for tenant in found.values() if tenant.parent is not None}
        wanted = parents - known.keys()
    return known


def _lineage(
    known: Mapping[TenantId, Tenant], catalog: Catalog, tenant: Tenant
) -> tuple[Tenant, ...]:
    found = [tenant]
    # Bounded as in `_root`.
    for _ in range(LINEAGE_MAX):
        parent = found[-1].parent
        if parent is None:
            break
        above = known.get(parent) or default_tenant(catalog, parent)
        if above is None:
            found.append(Tenant(parent, PlanName("")))
            break
        found.append(above)
    return tuple(found)


def limit_named(catalog: Catalog, tenant: Tenant, limit_id: LimitId, now_us: int) -> Limit | None:
    """Return a limit of the tenant's own plan, None when it has none of that name."""
    limits = limits_of(catalog, tenant, now_us)
    return next((limit for limit in limits if limit.limit_id == limit_id), None)


def _root(known: Mapping[TenantId, Tenant], tenant: Tenant) -> TenantId:
    # Bounded as the catalog bounds lineages: a circle would be a fault elsewhere, not a hang here.
    for _ in range(LINEAGE_MAX):
        if tenant.parent is None:
            break
        above = known.get(tenant.parent)
        if above is None:
            return tenant.parent
        tenant = above
    return tenant.tenant_id
