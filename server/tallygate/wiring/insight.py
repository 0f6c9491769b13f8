"""What looks at usage and reconciles it: the loops of control, and what commands are lent.

Guarantees: the loops can run in several processes at once; nothing that is lent outlives its
`async with`.
Refuses to know: what is unusual, and how findings are shown.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Final

from tallygate.adapters.catalog.file_view import FileCatalogView
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.entry_sort import entry_sort
from tallygate.adapters.postgres.anomalies import PostgresAnomalies
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.compared_usage import PostgresComparedUsage
from tallygate.adapters.postgres.period_chain import PostgresPeriodChains
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.domain.anomaly import Options
from tallygate.domain.compare import Compared
from tallygate.flow.anomaly import AnomalyParts, FindAnomalies, SettledByStream
from tallygate.flow.compare import By, Compare, CompareOptions, CompareParts
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.ports.anomaly import UsageHistory
from tallygate.settings import Settings
from tallygate.wiring.declared import Declarations
from tallygate.wiring.host import Host

# An hour is looked at some minutes after its end, and a minute more is nothing.
ANOMALIES_MS: Final = 60_000


def start_insight(host: Host) -> None:
    """Start what looks at usage, beside the other loops of control."""
    settings = host.settings
    if settings.anomalies == "on":
        # It only asks how much of the streams is left, and consumes nothing.
        stream = RedisUsageStream(
            host.redis(settings.redis_timeout_ms),
            StreamOptions(settings.shards, consumer="insight"),
        )
        parts = AnomalyParts(
            PostgresAnomalies(host.postgres()), SettledByStream(stream), host.metrics.insight
        )
        options = Options(Fraction(settings.anomaly_sensitivity), settings.anomaly_events_min)
        step = FindAnomalies(parts, options)
        pace = LoopOptions(idle_ms=ANOMALIES_MS)
        host.spawn(Loop("anomalies", step, host.clock, host.observer, pace))


@asynccontextmanager
async def looking_back(settings: Settings) -> AsyncIterator[UsageHistory]:
    """Lend what reads usage by hour."""
    postgres = lent_postgres(settings)
    try:
        yield PostgresAnomalies(postgres)
    finally:
        await postgres.close()


@asynccontextmanager
async def comparing(
    settings: Settings, options: CompareOptions, told: Callable[[Compared], None]
) -> AsyncIterator[Compare]:
    """Lend what compares another system's export with our usage."""
    postgres = lent_postgres(settings)
    try:
        with entry_sort() as sort:
            declared = declarations(settings, postgres)
            if options.by is By.PERIOD:
                # Only then does it matter whether tenants are declared in a file.
                await declared.effective(now_us())
            chains = PostgresPeriodChains(postgres)
            parts = CompareParts(PostgresComparedUsage(postgres), declared, sort, chains)
            yield Compare(parts, options, told)
    finally:
        await postgres.close()


def declarations(settings: Settings, postgres: Postgres) -> Declarations:
    """Return what was declared of tenants: as the ledger has it, or the catalog's file."""
    file = FileCatalogView(settings.catalog) if settings.catalog else None
    return Declarations(PostgresCatalogStore(postgres), file)


def lent_postgres(settings: Settings) -> Postgres:
    """Return a command's own connections."""
    assert settings.postgres_dsn is not None
    return Postgres(
        settings.postgres_dsn.get_secret_value(),
        PoolOptions(
            connections_max=2,
            connect_timeout_ms=settings.postgres_connect_timeout_ms,
            statement_timeout_ms=settings.postgres_statement_timeout_ms,
        ),
    )


def now_us() -> int:
    """Return the machine's time."""
    return SystemClock().now_us()
