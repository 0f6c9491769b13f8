"""The catalog's versions and the tenants, in Postgres: the authority.

Guarantees: versions rise by one; of two writers that saw the same version, one is refused; tenants
and destinations change in the transaction that writes their version.
Refuses to know: documents and sidecars.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import asyncpg

from tallygate.adapters.catalog_codec import (
    catalog_from_json,
    catalog_to_json,
    tenant_from_json,
    tenant_to_json,
)
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.errors import CatalogConflict
from tallygate.domain.ids import PlanName, TenantId
from tallygate.ports import CatalogChange

PAGE: Final = 1_000


class PostgresCatalogStore:
    """The `CatalogStore` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def newest(self) -> Catalog:
        """Return the newest version, effective or not; version 0 when there is none."""
        async with self._postgres.connection() as connection:
            return _catalog(await connection.fetchrow(query("catalog_newest")))

    async def effective(self, at_us: int) -> Catalog:
        """Return the version in effect at an instant; version 0 when there is none."""
        async with self._postgres.connection() as connection:
            return _catalog(await connection.fetchrow(query("catalog_effective"), at_us))

    async def write(self, change: CatalogChange, expected_version: int) -> Catalog:
        """Write the next version. Raises `CatalogConflict`."""
        async with self._postgres.connection() as connection, connection.transaction():
            await connection.execute(query("catalog_lock"))
            row = await connection.fetchrow(query("catalog_newest"))
            newest = _catalog(row)
            if newest.version != expected_version:
                raise CatalogConflict(
                    f"version {newest.version} was applied meanwhile, after {expected_version}"
                )
            if row is not None and row["effective_at_us"] > change.effective_at_us:
                # It would bring the waiting version's changes into effect with its own.
                raise CatalogConflict(f"version {newest.version} takes effect later than this one")
            catalog = replace(change.catalog, version=newest.version + 1)
            await connection.execute(
                query("catalog_insert"),
                catalog.version,
                change.document,
                catalog_to_json(catalog).decode(),
                change.effective_at_us,
            )
            await connection.execute(
                query("catalog_upsert_tenants"),
                [tenant.tenant_id for tenant in change.tenants],
                [tenant.plan for tenant in change.tenants],
                [tenant_to_json(tenant).decode() for tenant in change.tenants],
                catalog.version,
                change.effective_at_us,
            )
            await _write_destinations(connection, catalog)
        return catalog

    async def tenant(self, tenant_id: TenantId) -> Tenant | None:
        """Return one tenant, None when it is not declared."""
        return (await self.tenants_named([tenant_id])).get(tenant_id)

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are declared."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("catalog_tenants_named"), list(ids))
        return {tenant.tenant_id: tenant for tenant in _tenants(rows)}

    async def tenants_page(
        self, after: TenantId | None, count: int, plan: PlanName | None
    ) -> list[Tenant]:
        """Return up to `count` tenants by id, those after `after`."""
        async with self._postgres.connection() as connection:
            if plan is None:
                rows = await connection.fetch(query("catalog_tenants_page"), after, count)
            else:
                of_plan = query("catalog_tenants_page_of_plan")
                rows = await connection.fetch(of_plan, after, count, plan)
        return list(_tenants(rows))

    async def plans_in_use(self) -> set[PlanName]:
        """Return the plans that some tenant is on."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("catalog_plans_in_use"))
        return {PlanName(row["plan"]) for row in rows}

    async def tenants_below(self, ids: Sequence[TenantId]) -> list[TenantId]:
        """Return the tenants whose parent is one of these, as last written."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("catalog_tenants_below"), list(ids))
        return [TenantId(row["tenant_id"]) for row in rows]

    async def tenants_changed(
        self, after_version: int, up_to_version: int
    ) -> AsyncIterator[Sequence[Tenant]]:
        """Iterate, in bounded lists, over the tenants that those versions wrote, as they left them.

        What a later version, which may not be in effect yet, made of them does not show.
        """
        version, tenant_id = after_version, ""
        while True:
            async with self._postgres.connection() as connection:
                rows = await connection.fetch(
                    query("catalog_tenants_changed"),
                    after_version,
                    up_to_version,
                    version,
                    tenant_id,
                    PAGE,
                )
            if not rows:
                return
            yield list(_tenants(rows))
            version, tenant_id = rows[-1]["version"], rows[-1]["tenant_id"]


async def _write_destinations(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", catalog: Catalog
) -> None:
    names = [destination.name for destination in catalog.destinations]
    await connection.execute(query("catalog_deactivate_destinations"), names)
    await connection.executemany(
        query("catalog_upsert_destination"),
        [
            (each.name, each.kind, each.url, list(each.types), each.secret_env, each.secret_file)
            for each in catalog.destinations
        ],
    )


def _catalog(row: asyncpg.Record | None) -> Catalog:
    return catalog_from_json(row["snapshot"]) if row is not None else Catalog()


def _tenants(rows: Iterable[asyncpg.Record]) -> Iterable[Tenant]:
    return (tenant_from_json(row["definition"]) for row in rows)
