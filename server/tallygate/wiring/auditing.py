"""What verification and explanation are put together with.

Guarantees: nothing here outlives its `async with`; without Redis, what needs it is left out.
Refuses to know: how findings are shown.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from redis.asyncio import Redis

from tallygate.adapters.catalog.file_view import FileCatalogView
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.audit import PostgresLedgerAudit
from tallygate.adapters.postgres.audit_usage import PostgresAuditSnapshots
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.event_records import PostgresEventRecords
from tallygate.adapters.postgres.group_audit import PostgresGroupAudit
from tallygate.adapters.postgres.lineage_reads import PostgresLineageReads
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.postgres.stored_numbers import PostgresStoredNumbers
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.counter_reads import RedisCounterReads
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.stream_numbers import RedisStreamNumbers
from tallygate.adapters.redis.stream_search import RedisStreamSearch
from tallygate.flow.completeness import (
    CompletenessObserver,
    CompletenessParts,
    CompletenessWatch,
    SilentCompleteness,
)
from tallygate.flow.explain import Explain, ExplainParts
from tallygate.flow.verify import Progress, Verify, VerifyParts
from tallygate.flow.verify_counters import CounterAudit, CounterParts
from tallygate.ports.lineage import LineageReads
from tallygate.settings import Settings
from tallygate.wiring.declared import Declarations

# An operator waits for this, no caller does.
REDIS_TIMEOUT_MS: Final = 10_000


@asynccontextmanager
async def verifying(settings: Settings, progress: Progress) -> AsyncIterator[Verify]:
    """Lend what compares an installation with its ledger."""
    async with AsyncExitStack() as stack:
        postgres = postgres_of(settings)
        stack.push_async_callback(postgres.close)
        client = _redis(settings)
        if client is not None:
            stack.push_async_callback(client.aclose)
        parts = VerifyParts(PostgresLedgerAudit(postgres), PostgresGroupAudit(postgres))
        if client is not None:
            parts = VerifyParts(
                parts.ledger,
                parts.groups,
                counter_audit(settings, postgres, client),
                completeness_of(postgres, client, settings.shards, SilentCompleteness()),
            )
        yield Verify(parts, progress)


def counter_audit(settings: Settings, postgres: Postgres, client: Redis) -> CounterAudit:
    """Return what compares the counters of a Redis with a ledger."""
    file = FileCatalogView(settings.catalog) if settings.catalog else None
    return CounterAudit(
        CounterParts(
            reads=RedisCounterReads(client, settings.shards),
            stages=RedisCounterStages(client, settings.shards),
            snapshots=PostgresAuditSnapshots(postgres),
            declared=Declarations(PostgresCatalogStore(postgres), file),
            clock=SystemClock(),
            shards=settings.shards,
        )
    )


def completeness_of(
    postgres: Postgres, client: Redis, shards: int, observer: CompletenessObserver
) -> CompletenessWatch:
    """Return what compares the numbers of a Redis' sources with those of a ledger."""
    return CompletenessWatch(
        CompletenessParts(
            streams=RedisStreamNumbers(client, shards),
            ledger=PostgresStoredNumbers(postgres),
            stages=RedisCounterStages(client, shards),
            clock=SystemClock(),
            observer=observer,
        )
    )


@asynccontextmanager
async def explaining(settings: Settings) -> AsyncIterator[Explain]:
    """Lend what tells an event's story."""
    async with AsyncExitStack() as stack:
        postgres = postgres_of(settings)
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


@asynccontextmanager
async def tracing(settings: Settings) -> AsyncIterator[LineageReads]:
    """Lend what looks back from buckets and messages to events."""
    postgres = postgres_of(settings)
    try:
        yield PostgresLineageReads(postgres)
    finally:
        await postgres.close()


def _redis(settings: Settings) -> Redis | None:
    if settings.redis_url is None:
        return None
    return connect(settings.redis_url.get_secret_value(), REDIS_TIMEOUT_MS)


def postgres_of(settings: Settings) -> Postgres:
    """Return a small pool for one command. The address has to be set."""
    assert settings.postgres_dsn is not None
    return Postgres(
        settings.postgres_dsn.get_secret_value(),
        PoolOptions(
            connections_max=2,
            connect_timeout_ms=settings.postgres_connect_timeout_ms,
            statement_timeout_ms=settings.postgres_statement_timeout_ms,
        ),
    )
