"""Postgres ─▶ [ publish ] ─▶ Redis ─▶ sidecars: the catalog in effect, handed on.

If we die here after some tenants and before the snapshot, sidecars go on with the old version; the
next run writes the same tenants again, and then the snapshot. If we die before, while counters are
carried to another shard, the next run goes on with that, as sidecars have heard of nothing yet.

Guarantees: sidecars get each version when it takes effect, and all of it again when Redis lost it.
Refuses to know: how sidecars read it.
"""

from typing import Final

from tallygate.domain.ids import TenantId
from tallygate.flow.carry import Carry
from tallygate.ports import CatalogPublisher, CatalogStore, Clock

# More names than this are told as a change of all tenants.
NAMED_MAX: Final = 1_000


class Publish:
    """Brings the published catalog up to the one in effect."""

    def __init__(
        self,
        store: CatalogStore,
        publisher: CatalogPublisher,
        clock: Clock,
        carry: Carry | None = None,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._carry = carry

    async def run_once(self) -> int:
        """Publish what is in effect and not yet published; return 1 if anything was."""
        catalog = await self._store.effective(self._clock.now_us())
        published = await self._publisher.published_version()
        # Nothing in effect is no reason to take away what sidecars live on: Postgres may be new.
        if catalog.version in (0, published):
            return 0
        # A published version that Postgres does not have was of another database: all is new.
        after = published if published < catalog.version else 0
        if after and self._carry is not None:
            await self._carry.run(after, catalog)
        changed: list[TenantId] | None = [] if after else None
        async for tenants in self._store.tenants_changed(after, catalog.version):
            await self._publisher.publish_tenants(tenants)
            if changed is not None:
                changed += [tenant.tenant_id for tenant in tenants]
                changed = changed if len(changed) <= NAMED_MAX else None
        await self._publisher.publish(catalog, changed)
        return 1
