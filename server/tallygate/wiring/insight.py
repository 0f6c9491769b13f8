"""What looks at usage and reconciles it: the loops of control, and what commands are lent.

Guarantees: the loops can run in several processes at once; nothing that is lent outlives its
`async with`.
Refuses to know: what is unusual, and how findings are shown.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Final

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.anomalies import PostgresAnomalies
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.domain.anomaly import Options
from tallygate.flow.anomaly import AnomalyParts, FindAnomalies, SettledByStream
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.ports.anomaly import UsageHistory
from tallygate.settings import Settings
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
