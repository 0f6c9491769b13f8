"""What verification and explanation are put together with.

Guarantees: nothing here outlives its `async with`; without Redis, what needs it is left out.
Refuses to know: how findings are shown.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from redis.asyncio import Redis

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.audit import PostgresLedgerAudit
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.event_records import PostgresEventRecords
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.stream_search import RedisStreamSearch
from tallygate.flow.explain import Explain, ExplainParts
from tallygate.flow.verify import Progress, Verify, VerifyParts
from tallygate.settings import Settings

# An operator waits for this, no caller does.
REDIS_TIMEOUT_MS: Final = 10_000


@asynccontextmanager
async def verifying(settings: Settings, progress: Progress) -> AsyncIterator[Verify]:
    """Lend what compares an installation with its ledger."""
    async with AsyncExitStack() as stack:
        postgres = _postgres(settings)
        stack.push_async_callback(postgres.close)
        yield Verify(VerifyParts(PostgresLedgerAudit(postgres)), progress)


@asynccontextmanager
async def explaining(settings: Settings) -> AsyncIterator[Explain]:
    """Lend what tells an event's story."""
    async with AsyncExitStack() as stack:
        postgres = _postgres(settings)
        stack.push_async_callback(postgres.close)
        client = _redis(settings)
        if client is not None:
            stack.push_async_callback(client.aclose)
        yield Explain(
            ExplainParts(
                records=PostgresEventRecords(postgres),
                catalogs=PostgresCatalogStore(postgres),
                clock=SystemClock(),
                streams=RedisStreamSearch(client, settings.shards) if client else None,
            )
        )


def _redis(settings: Settings) -> Redis | None:
    if settings.redis_url is None:
        return None
    return connect(settings.redis_url.get_secret_value(), REDIS_TIMEOUT_MS)


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
