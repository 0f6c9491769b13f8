"""Postgres ─▶ [ carry ] ─▶ publish: a tenant under another parent keeps its counters.

If we die here, the tenants concerned are refused as unavailable until the next run, by whichever
process, has gone on: sidecars are told of the new parent only when all has been carried.

A family shares the shard of its topmost tenant, so that one script can charge a tenant and all
above it. Moving within a family, or to one in the same shard, needs nothing carried.

Guarantees: what moves is worked out from what sidecars were last given, so that every run until
the version is published finds the same.
Refuses to know: how counters are kept, and how sidecars hear of it.
"""

from collections.abc import Iterable, Mapping

from tallygate.domain.catalog import LINEAGE_MAX, Catalog
from tallygate.domain.ids import TenantId, shard_of
from tallygate.ports import CatalogStore
from tallygate.ports.carry import CounterCarrier, Move, PublishedCatalog

_Parents = Mapping[TenantId, TenantId | None]


class Carry:
    """Carries what belongs to tenants into the shards of their new families."""

    def __init__(
        self,
        store: CatalogStore,
        published: PublishedCatalog,
        carrier: CounterCarrier,
        shards: int,
    ) -> None:
        self._store = store
        self._published = published
        self._carrier = carrier
        self._shards = shards

    async def run(self, after_version: int, catalog: Catalog) -> int:
        """Carry what the versions after one move, up to the catalog; return how many tenants.

        Raises what the catalog's store and Redis raise.
        """
        moved, parents = await self._reparented(after_version, catalog)
        if not moved:
            return 0
        concerned = sorted(moved | await self._below(moved))
        before = await self._parents(concerned, {})
        after = await self._parents(concerned, parents)
        moves = [
            Move(each, self._shard(each, before), self._shard(each, after)) for each in concerned
        ]
        moves = [each for each in moves if each.from_shard != each.to_shard]
        if moves:
            await self._carrier.carry(moves, catalog.version)
        return len(moves)

    async def _reparented(
        self, after_version: int, catalog: Catalog
    ) -> tuple[set[TenantId], dict[TenantId, TenantId | None]]:
        """Return the tenants that may have counters under another parent, and all new parents."""
        moved: set[TenantId] = set()
        parents: dict[TenantId, TenantId | None] = {}
        async for tenants in self._store.tenants_changed(after_version, catalog.version):
            known = await self._published.tenants_named([each.tenant_id for each in tenants])
            for tenant in tenants:
                before = known.get(tenant.tenant_id)
                if tenant.parent == (before.parent if before is not None else None):
                    continue
                parents[tenant.tenant_id] = tenant.parent
                # Who was never declared can have counted under a default plan, by itself.
                if before is not None or catalog.default_plan is not None:
                    moved.add(tenant.tenant_id)
        return moved, parents

    async def _below(self, moved: Iterable[TenantId]) -> set[TenantId]:
        found: set[TenantId] = set()
        above = set(moved)
        for _ in range(LINEAGE_MAX):
            if not above:
                break
            above = set(await self._store.tenants_below(sorted(above))) - found
            found |= above
        return found

    async def _parents(self, ids: Iterable[TenantId], new: _Parents) -> _Parents:
        """Return the parent of each of the tenants and of all above, `new` before published."""
        parents: dict[TenantId, TenantId | None] = {}
        wanted = set(ids)
        for _ in range(LINEAGE_MAX):
            if not wanted:
                break
            known = await self._published.tenants_named(sorted(wanted))
            for each in wanted:
                before = known[each].parent if each in known else None
                parents[each] = new.get(each, before)
            wanted = {each for each in parents.values() if each is not None} - parents.keys()
        return parents

    def _shard(self, tenant_id: TenantId, parents: _Parents) -> int:
        root = tenant_id
        # Bounded as the catalog bounds lineages: a circle would be a fault elsewhere.
        for _ in range(LINEAGE_MAX):
            above = parents.get(root)
            if above is None:
                break
            root = above
        return shard_of(root, self._shards)
