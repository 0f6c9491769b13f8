"""The ingester's role has the rights that rebuilding counters takes, and no more."""

import pytest

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.corrections import PostgresCorrections
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.rebuild_ledger import PostgresRebuildLedger
from tallygate.domain.errors import StorageFault
from tallygate.domain.ids import TenantId
from tallygate.ports import LedgerBatch
from tests.sql.test_append_only import as_role
from tests.usage_events import event


async def test_the_ingester_may_rebuild(postgres_dsn: str) -> None:
    """It closes epochs, reads usage, plans and resets, and finishes corrections."""
    await apply_roles(postgres_dsn)
    postgres = Postgres(as_role(postgres_dsn, "tallygate_ingest"))
    try:
        rebuild, corrections = PostgresRebuildLedger(postgres), PostgresCorrections(postgres)
        assert await rebuild.lead("one", 60_000)
        async with rebuild.close({0: "e2"}) as closing:
            assert await closing.usage.tenants("", 1) == []
            assert await closing.usage.resets([TenantId("acme")]) == []
        stored = await PostgresLedger(postgres).persist(LedgerBatch((event(1),)))
        assert stored.corrections == 1
        (due,) = await corrections.due(9)
        await corrections.trying([due.number])
        assert await corrections.finish({due.number: "applied"}) == 1
        assert not (await PostgresCatalogStore(postgres).effective(1)).version
        with pytest.raises(StorageFault):
            async with postgres.connection() as connection:
                await connection.execute("delete from tallygate.counter_correction")
    finally:
        await postgres.close()
