"""What verification and explanation are put together with.

Guarantees: nothing here outlives its `async with`; without Redis, what needs it is left out.
Refuses to know: how findings are shown.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tallygate.adapters.postgres.audit import PostgresLedgerAudit
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.flow.verify import Progress, Verify, VerifyParts
from tallygate.settings import Settings


@asynccontextmanager
async def verifying(settings: Settings, progress: Progress) -> AsyncIterator[Verify]:
    """Lend what compares an installation with its ledger."""
    postgres = _postgres(settings)
    try:
        yield Verify(VerifyParts(PostgresLedgerAudit(postgres)), progress)
    finally:
        await postgres.close()


def _postgres(settings: Settings) -> Postgres:
    assert settings.postgres_dsn is not None
    return Postgres(
        settings.postgres_dsn.get_secret_value(),
        PoolOptions(
            connections_max=2,
            connect_timeout_ms=settings.postgres_connect_timeout_ms,
            statement_timeout_ms=settings.postgres_statement_timeout_ms,
        ),
    )
