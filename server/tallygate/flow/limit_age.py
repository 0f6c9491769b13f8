"""declarations ─▶ [ limit age ] ─▶ verify, reconcile: was a limit the same when its window began.

If we die here, nothing has happened: declarations are read, and not changed.

Guarantees: a limit passes for older than a window only where every catalog and every declaration of
its tenant since then counted the same usage in the same place.
Refuses to know: counters, and what becomes of a limit that is too young.
"""

from tallygate.domain.catalog import Catalog, Limit, Tenant, default_tenant, limits_of
from tallygate.ports.audit import AuditUsage


async def younger(
    usage: AuditUsage, catalog: Catalog, tenant: Tenant, limit: Limit, since_us: int
) -> bool:
    """Say whether a limit of a catalog has been another one, or none, since an instant."""
    declared = await usage.tenant_since(tenant.tenant_id, since_us)
    if any(each.parent != tenant.parent for each in declared):
        return True
    for before in await usage.catalogs_since(since_us):
        if before.meters.get(limit.meter) != catalog.meters.get(limit.meter):
            return True
        undeclared = default_tenant(before, tenant.tenant_id)
        for then in declared or ([undeclared] if undeclared is not None else [tenant]):
            if _measure(limit) not in map(_measure, limits_of(before, then)):
                return True
    return False


def _measure(limit: Limit) -> tuple[object, ...]:
    """Return what decides which usage a limit counts, and where."""
    return (
        *(limit.limit_id, limit.meter, limit.kind, limit.period),
        *(limit.duration_us, limit.per, limit.where),
    )
