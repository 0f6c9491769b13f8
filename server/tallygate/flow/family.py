"""catalog ─▶ [ family ] ─▶ grant, credit, reset: whose tenant it is, and in which shard it counts.

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
from tallygate.domain.ids import LimitId, TenantId


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
    known: dict[TenantId, Tenant] = {}
    wanted = set(ids)
    for _ in range(LINEAGE_MAX):
        if not wanted:
            break
        found = await store.tenants_named(sorted(wanted))
        known |= found
        parents = {tenant.parent for tenant in found.values() if tenant.parent is not None}
        wanted = parents - known.keys()
    tenants = {each: known.get(each) or default_tenant(catalog, each) for each in ids}
    return {
        tenant_id: Member(tenant, _root(known, tenant))
        for tenant_id, tenant in tenants.items()
        if tenant is not None
    }


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
