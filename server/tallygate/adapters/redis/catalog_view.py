"""The catalog as a sidecar holds it: the newest good snapshot, and the tenants it was asked for.

Guarantees: a new version is taken over at the next `refresh`, and the tenants it changed forgotten;
while Redis is away, emptied, older than what is held, or holds rubbish, the last good catalog and
the tenants held stay in use. No tenant is given out whose plan the catalog held does not have.
Memory is bounded, however many tenants there are.
Refuses to know: who refreshes, and how often.

A refresh without news is one round trip: the stream of changes, from the change seen last, which
tells by its presence that none was missed.
"""

from collections.abc import Mapping
from typing import Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.catalog_codec import catalog_from_json
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import translate
from tallygate.adapters.redis.held_tenants import TENANTS_HELD_MAX, HeldTenants, Lineage
from tallygate.adapters.redis.tenant_reads import TenantReads
from tallygate.domain.catalog import LINEAGE_MAX, Catalog, Tenant, default_tenant
from tallygate.domain.errors import (
    BackendUnavailable,
    CatalogNotLoaded,
    StorageFault,
    UnknownTenant,
)
from tallygate.domain.ids import TenantId

# A sidecar that was away for longer takes everything over anew, which is no loss.
CHANGES_READ_MAX: Final = 100
# A tenant's plan can come a moment after the tenant; more often than this it has not come.
PLAN_READS_MAX: Final = 2

_Change = tuple[bytes, Mapping[bytes, bytes]]


class RedisCatalogView:
    """The `CatalogView` port. Call `refresh` a few times a second; it costs one round trip."""

    def __init__(self, client: Redis, held_max: int = TENANTS_HELD_MAX) -> None:
        self._client = client
        self._held = HeldTenants(held_max)
        self._reads = TenantReads(client)
        self._catalog: Catalog | None = None
        self._last_change = b""
        self._generation = 0

    @property
    def version(self) -> int:
        """The version in use, 0 for none."""
        return self._catalog.version if self._catalog else 0

    @property
    def tenants_held(self) -> int:
        """How many tenants are in memory."""
        return len(self._held)

    @property
    def reads_waiting(self) -> int:
        """How many tenants are being read."""
        return self._reads.waiting

    def current(self) -> Catalog:
        """Return the newest good catalog. Raises `CatalogNotLoaded`."""
        if self._catalog is None:
            raise CatalogNotLoaded
        return self._catalog

    def lineage_held(self, tenant_id: TenantId) -> Lineage | None:
        """Return the lineage if it is in memory."""
        return self._held.get(tenant_id)

    async def lineage(self, tenant_id: TenantId) -> Lineage:
        """Return the tenant and those above it. Raises `UnknownTenant`."""
        found = self._held.get(tenant_id)
        if found is None and not self._held.is_unknown(tenant_id):
            found = await self._read_known(tenant_id)
        if found is None:
            raise UnknownTenant(
                f"the catalog has no tenant {tenant_id!r} and no default plan", field="tenant_id"
            )
        return found

    async def refresh(self) -> int:
        """Take over what has been published since; return how many changes that was.

        Raises `BackendUnavailable`, and `StorageFault` for a snapshot that cannot be read.
        """
        try:
            if self._catalog is None:
                return await self._take_all()
            changes = await self._changes_since()
            if changes is None:
                return await self._take_all()
            if not changes:
                return 0
            snapshot = cast(bytes | None, await self._client.get(keys.catalog_snapshot()))
        except (RedisError, OSError) as error:
            raise translate(error) from error
        if snapshot is None:
            return 0
        self._use(_decoded(snapshot))
        for _, fields in changes:
            self._forget(fields.get(b"tenants", b"*").decode())
        self._last_change = changes[-1][0]
        return len(changes)

    async def close(self) -> None:
        """End the reads that are under way."""
        await self._reads.close()

    async def _changes_since(self) -> list[_Change] | None:
        """Return the changes after the last seen, None when that one is gone and some may be."""
        found = cast(
            list[_Change],
            await self._client.xrange(
                keys.catalog_changes(), min=self._last_change, count=CHANGES_READ_MAX + 1
            ),
        )
        if not found or found[0][0] != self._last_change:
            return None
        return found[1:]

    async def _take_all(self) -> int:
        """Take the snapshot over without knowing what changed."""
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.xrevrange(keys.catalog_changes(), count=1)
            pipeline.get(keys.catalog_snapshot())
            newest, snapshot = await pipeline.execute()
        if not newest or snapshot is None:
            # An emptied Redis has nothing to offer: what we hold is better until it is filled.
            return 0
        catalog = _decoded(snapshot)
        if catalog.version < self.version:
            # A replica that lags or an old dump: it will be published anew.
            return 0
        self._use(catalog)
        self._forget("*")
        self._last_change = newest[0][0]
        return 1

    def _use(self, catalog: Catalog) -> None:
        old, self._catalog = self._catalog, catalog
        self._generation += 1
        if old is None or old.default_plan != catalog.default_plan:
            # Undeclared tenants live by the default plan.
            self._held.clear()
        elif old.plans.keys() - catalog.plans.keys():
            self._held.keep_plans(catalog.plans)

    def _forget(self, names: str) -> None:
        if names == "*":
            self._held.clear()
            return
        for name in names.split("\n"):
            self._held.forget(TenantId(name))

    async def _read_known(self, tenant_id: TenantId) -> Lineage | None:
        """Read a lineage, and hold it; a plan that the catalog lacks is waited for, briefly."""
        for _ in range(PLAN_READS_MAX):
            generation = self._generation
            found = await self._read_lineage(tenant_id)
            # Without its plan, a tenant would be without limits.
            if all(tenant.plan in self.current().plans for tenant in found or ()):
                # What was read while a change came in may be older than the change.
                if generation == self._generation:
                    self._held.hold(tenant_id, found)
                return found
            await self.refresh()
        raise BackendUnavailable("the tenant's plan has not been published yet")

    async def _read_lineage(self, tenant_id: TenantId) -> Lineage | None:
        lineage: list[Tenant] = []
        following: TenantId | None = tenant_id
        while following is not None:
            if len(lineage) == LINEAGE_MAX:
                raise StorageFault(f"a published tenant has more than {LINEAGE_MAX - 1} above it")
            tenant = await self._reads.read(following)
            if tenant is None:
                tenant = default_tenant(self.current(), following)
            if tenant is None:
                return None
            lineage.append(tenant)
            following = tenant.parent
        return tuple(lineage)


def _decoded(snapshot: bytes) -> Catalog:
    try:
        return catalog_from_json(snapshot)
    except (ValueError, KeyError, TypeError) as error:
        raise StorageFault("the published catalog cannot be read") from error
