"""What a control process needs for credits and resets.

Guarantees: the loops here can run in several processes at once; what one has done, another finds
done.
Refuses to know: who runs the loops.
"""

from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger, PostgresResetAudit
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.prometheus.credits import CreditMetrics
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.redis.epochs import RedisCounterEpochs
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.flow.credit import CreditParts, ExpireCredits, PublishCredits
from tallygate.flow.grant import Granting
from tallygate.flow.loop import LoopOptions
from tallygate.flow.reset import ResetParts, Resetting
from tallygate.ports import CatalogStore, QuotaStore

# A grant can be used this long after it was made, at the latest, where nothing is amiss.
PUBLISH_MS: Final = 250
# Expiries are posted a day late by design; a minute more is nothing.
EXPIRE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class CreditBackends:
    """The connections that credits are kept and handed over with."""

    postgres: Postgres
    redis: Redis
    store: QuotaStore
    catalogs: CatalogStore


@dataclass(frozen=True, slots=True)
class Credits:
    """What the admin service calls, and the steps of two loops."""

    granting: Granting
    resetting: Resetting
    loops: tuple[tuple[str, PublishCredits | ExpireCredits, LoopOptions], ...]


def credits_of(backends: CreditBackends, shards: int, metrics: Metrics) -> Credits:
    """Return a process's credits on these connections."""
    clock = SystemClock()
    ledger = PostgresCreditLedger(backends.postgres)
    publish = PublishCredits(
        CreditParts(
            ledger=ledger,
            store=backends.store,
            # It only asks how much of the streams is left, and consumes nothing.
            stream=RedisUsageStream(backends.redis, StreamOptions(shards, consumer="credits")),
            epochs=RedisCounterEpochs(backends.redis, shards),
            catalogs=backends.catalogs,
            clock=clock,
            shards=shards,
            observer=CreditMetrics(metrics),
        )
    )
    return Credits(
        granting=Granting(ledger, backends.catalogs, clock),
        resetting=Resetting(
            ResetParts(
                store=backends.store,
                audit=PostgresResetAudit(backends.postgres),
                catalogs=backends.catalogs,
                clock=clock,
                shards=shards,
            )
        ),
        loops=(
            ("credits", publish, LoopOptions(idle_ms=PUBLISH_MS)),
            ("credit_expiry", ExpireCredits(ledger, clock), LoopOptions(idle_ms=EXPIRE_MS)),
        ),
    )
