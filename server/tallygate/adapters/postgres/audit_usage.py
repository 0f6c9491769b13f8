"""One snapshot of the ledger to hold counters against, with what it has yet to be told.

Guarantees: sums, numbers and balances of one snapshot are of one instant, and reading changes
nothing.
Refuses to know: counters.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tallygate.adapters.catalog_codec import catalog_from_json, tenant_from_json
from tallygate.adapters.postgres.counted_usage import PATIENCE_S, PostgresCountedUsage
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.drift import BalanceBook, BookedGrant
from tallygate.domain.event import BalanceBurn, UsageEvent
from tallygate.domain.ids import AMOUNT_MAX, LimitId, TenantId
from tallygate.ports.audit import AuditUsage


class PostgresAuditUsage(PostgresCountedUsage):
    """The `AuditUsage` port, over a transaction that has one snapshot."""

    async def unseen(self, events: Sequence[UsageEvent]) -> list[UsageEvent]:
        """Return the events whose numbers the snapshot has not."""
        rows = await self._fetch(
            "verify_unseen",
            list(range(len(events))),
            [each.source_id for each in events],
            [each.source_lane for each in events],
            [each.source_seq for each in events],
        )
        return [events[row["place"]] for row in rows]

    async def unposted(self, burns: Sequence[BalanceBurn]) -> list[BalanceBurn]:
        """Return the burns that the snapshot has not posted."""
        rows = await self._fetch(
            "verify_unposted",
            list(range(len(burns))),
            [each.source_id for each in burns],
            [each.source_lane for each in burns],
            [each.entry_id for each in burns],
            [each.number for each in burns],
        )
        return [burns[row["place"]] for row in rows]

    async def books(self, tenants: Sequence[TenantId], until_us: int) -> list[BalanceBook]:
        """Return the balances of these tenants, with what was used of them up to a time."""
        found: dict[tuple[str, str], BalanceBook] = {}
        for row in await self._fetch("verify_books", list(tenants), until_us):
            key = (row["tenant_id"], row["limit_id"])
            before = found.get(key)
            grants = before.grants if before is not None else ()
            if row["seq"] is not None:
                expires_us = AMOUNT_MAX if row["expires_us"] is None else row["expires_us"]
                grants = (*grants, BookedGrant(row["seq"], row["units"], expires_us))
            found[key] = BalanceBook(
                TenantId(row["tenant_id"]),
                LimitId(row["limit_id"]),
                row["published_seq"],
                row["published_epoch"],
                # The account stands below nothing by what was taken from it.
                -row["overdraft"],
                grants,
            )
        return list(found.values())

    async def tenant_since(self, tenant_id: TenantId, at_us: int) -> Sequence[Tenant]:
        """Return what a tenant was declared as since an instant, and last before it."""
        rows = await self._fetch("verify_tenants_since", [tenant_id], at_us)
        return [tenant_from_json(row["definition"].encode()) for row in rows]

    async def catalogs_since(self, at_us: int) -> Sequence[Catalog]:
        """Return the catalogs that were in effect since an instant."""
        rows = await self._fetch("verify_catalogs_since", at_us)
        return [catalog_from_json(row["snapshot"].encode()) for row in rows]


class PostgresAuditSnapshots:
    """The `AuditSnapshots` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AuditUsage]:
        """Hold one snapshot of now."""
        async with self._held() as connection:
            yield PostgresAuditUsage(connection)

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Lent]:
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            yield connection
