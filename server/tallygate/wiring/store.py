"""The quota store of a sidecar, opened.

Guarantees: a Redis that is away at the start keeps no process from starting.
Refuses to know who asks the store.
"""

import structlog
from redis.asyncio import Redis

from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.observers import StoreMetrics
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.adapters.source_id import source_id
from tallygate.domain.errors import BackendUnavailable
from tallygate.settings import Settings

log = structlog.get_logger(__name__)


async def open_store(settings: Settings, client: Redis, metrics: Metrics) -> RedisQuotaStore:
    """Return the store over a client. Raises `LayoutDiffers`."""
    options = StoreOptions(
        source_id(settings.data_dir),
        settings.shards,
        settings.operation_ttl_s * 1000,
        opens_new=settings.counter_rebuild == "none",
    )
    store = RedisQuotaStore(client, options, StoreMetrics(metrics))
    try:
        await store.open()
    except BackendUnavailable as error:
        log.warning("redis_away_at_start", detail=error.message)
    return store
