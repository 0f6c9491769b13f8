"""The tenants that a sidecar has in memory: those asked for lately, and who was asked for in vain.

Guarantees: at most so many of each; forgetting a tenant forgets every lineage that it is in.
Refuses to know: where tenants are read.
"""

from collections import OrderedDict
from collections.abc import Container
from typing import Final, TypeAlias

from tallygate.domain.catalog import Tenant
from tallygate.domain.ids import PlanName, TenantId

# About 1 KB each: what is asked for more seldom is read again.
TENANTS_HELD_MAX: Final = 50_000
# A caller that makes up names must not drive out the tenants that exist.
UNKNOWN_HELD_MAX: Final = 10_000

Lineage: TypeAlias = tuple[Tenant, ...]


class HeldTenants:
    """Lineages by tenant, the least lately used given up first."""

    def __init__(
        self, held_max: int = TENANTS_HELD_MAX, unknown_max: int = UNKNOWN_HELD_MAX
    ) -> None:
        self._held_max = held_max
        self._unknown_max = unknown_max
        self._held: OrderedDict[TenantId, Lineage] = OrderedDict()
        self._unknown: OrderedDict[TenantId, None] = OrderedDict()
        # Of each tenant, the held tenants below it.
        self._below: dict[TenantId, set[TenantId]] = {}

    def __len__(self) -> int:
        return len(self._held) + len(self._unknown)

    def get(self, tenant_id: TenantId) -> Lineage | None:
        """Return the lineage if it is held."""
        found = self._held.get(tenant_id)
        if found is not None:
            self._held.move_to_end(tenant_id)
        return found

    def is_unknown(self, tenant_id: TenantId) -> bool:
        """Say whether it is known that there is no such tenant."""
        return tenant_id in self._unknown

    def hold(self, tenant_id: TenantId, lineage: Lineage | None) -> None:
        """Hold a lineage, or that there is none."""
        self._drop(tenant_id)
        if lineage is None:
            self._unknown[tenant_id] = None
            if len(self._unknown) > self._unknown_max:
                self._unknown.popitem(last=False)
            return
        self._held[tenant_id] = lineage
        for above in lineage[1:]:
            self._below.setdefault(above.tenant_id, set()).add(tenant_id)
        if len(self._held) > self._held_max:
            self._drop(next(iter(self._held)))

    def forget(self, tenant_id: TenantId) -> None:
        """Forget a tenant and all below it."""
        for below in [*self._below.get(tenant_id, ())]:
            self._drop(below)
        self._drop(tenant_id)

    def keep_plans(self, plans: Container[PlanName]) -> None:
        """Forget lineages with a plan that is not among `plans`."""
        for tenant_id, lineage in [*self._held.items()]:
            if any(tenant.plan not in plans for tenant in lineage):
                self._drop(tenant_id)

    def clear(self) -> None:
        """Forget everyone."""
        self._held.clear()
        self._unknown.clear()
        self._below.clear()

    def _drop(self, tenant_id: TenantId) -> None:
        self._unknown.pop(tenant_id, None)
        for above in self._held.pop(tenant_id, ())[1:]:
            below = self._below.get(above.tenant_id)
            if below is not None:
                below.discard(tenant_id)
                if not below:
                    del self._below[above.tenant_id]
