"""What billing periods are closed, ordered and verified with.

Guarantees: each process that closes has a name of its own, so that one of all of them does.
Refuses to know: who runs the loop.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.period_folds import PostgresPeriodFolds
from tallygate.adapters.postgres.period_ledger import PostgresPeriodLedger
from tallygate.adapters.postgres.period_reader import PostgresPeriodDesk, PostgresPeriodReader
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.flow.arrivals import StreamArrivals
from tallygate.flow.close_period import ClosePeriods, ClosingOptions, ClosingParts
from tallygate.flow.completeness import SilentCompleteness
from tallygate.flow.period_orders import OrderParts, PeriodOrders
from tallygate.flow.verify_periods import VerifyPeriods
from tallygate.settings import Settings
from tallygate.wiring.auditing import completeness_of

US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class PeriodPace:
    """Whether periods are closed here, and how long is waited for what."""

    closing: bool = True
    grace_s: int = 172_800
    correction_delay_s: int = 3_600


def pace_of(settings: Settings) -> PeriodPace:
    """Return what an installation's settings say about periods."""
    return PeriodPace(
        settings.period_closing, settings.period_grace_s, settings.period_correction_delay_s
    )


def closing_of(
    postgres: Postgres, redis: Redis, shards: int, metrics: Metrics, pace: PeriodPace
) -> ClosePeriods:
    """Return what closes the periods of an installation."""
    # It only asks how much of the streams is left, and consumes nothing.
    stream = RedisUsageStream(redis, StreamOptions(shards, consumer="periods"))
    completeness = completeness_of(postgres, redis, shards, SilentCompleteness())
    return ClosePeriods(
        ClosingParts(
            ledger=PostgresPeriodLedger(postgres),
            reader=PostgresPeriodReader(postgres),
            catalogs=PostgresCatalogStore(postgres),
            arrivals=StreamArrivals(stream, completeness),
            clock=SystemClock(),
            folds=PostgresPeriodFolds(postgres),
            observer=metrics.periods,
        ),
        ClosingOptions(uuid.uuid4().hex, pace.grace_s * US_PER_S, float(pace.correction_delay_s)),
    )


def orders_of(postgres: Postgres, pace: PeriodPace) -> PeriodOrders:
    """Return what operators order of periods."""
    return PeriodOrders(
        OrderParts(
            PostgresPeriodReader(postgres),
            PostgresPeriodDesk(postgres),
            PostgresCatalogStore(postgres),
            SystemClock(),
            pace.grace_s * US_PER_S,
        )
    )


@asynccontextmanager
async def verifying_periods(settings: Settings) -> AsyncIterator[VerifyPeriods]:
    """Lend what holds closed periods against the ledger."""
    assert settings.postgres_dsn is not None
    postgres = Postgres(
        settings.postgres_dsn.get_secret_value(),
        PoolOptions(
            connections_max=2,
            connect_timeout_ms=settings.postgres_connect_timeout_ms,
            statement_timeout_ms=settings.postgres_statement_timeout_ms,
        ),
    )
    try:
        yield VerifyPeriods(
            PostgresPeriodReader(postgres),
            PostgresPeriodLedger(postgres),
            PostgresPeriodFolds(postgres),
        )
    finally:
        await postgres.close()
