"""What makes lost counters anew and sets them right, put together beside the ingester.

Guarantees: it starts while Redis and Postgres are away; of several processes one works.
Refuses to know: who drains the streams.
"""

import os
from typing import Final

from tallygate.adapters.catalog.file_view import FileCatalogView
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.corrections import PostgresCorrections
from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger
from tallygate.adapters.postgres.rebuild_ledger import PostgresRebuildLedger
from tallygate.adapters.prometheus.observers import StoreMetrics
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.adapters.redis.seen import RedisSeenNumbers
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.adapters.source_id import source_id
from tallygate.domain.ids import SourceId
from tallygate.flow.correct import Correct, CorrectOptions, CorrectParts
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.flow.rebuild import Rebuild, RebuildOptions, RebuildParts
from tallygate.flow.recredit import Recredit
from tallygate.wiring.declared import Declarations
from tallygate.wiring.host import Host

REBUILD_MS: Final = 200
CORRECT_MS: Final = 1_000
# The longest that a call of a rebuilding's own may take: it sends more at once than a sidecar.
REDIS_TIMEOUT_MS: Final = 5_000


def start_rebuilding(host: Host) -> None:
    """Start what makes lost counters anew, and what corrects counters."""
    settings, metrics = host.settings, host.metrics
    postgres, client = host.postgres(), host.redis(REDIS_TIMEOUT_MS)
    name = source_id(settings.data_dir)
    # Two processes may share a data directory, and must not share the lead.
    holder = f"{name}/{os.getpid()}"
    file = FileCatalogView(settings.catalog) if settings.catalog else None
    declared = Declarations(PostgresCatalogStore(postgres), file)
    ledger = PostgresRebuildLedger(postgres)
    stages = RedisCounterStages(client, settings.shards)
    stream = RedisUsageStream(client, StreamOptions(settings.shards, consumer=name))
    store = RedisQuotaStore(
        client,
        StoreOptions(
            # It numbers no events, so that nobody's numbers are seen to have gone back by it.
            SourceId(f"{name}-rebuild"),
            settings.shards,
            settings.operation_ttl_s * 1000,
            opens_new=settings.counter_rebuild == "none",
        ),
        StoreMetrics(metrics),
    )
    rebuild = Rebuild(
        RebuildParts(
            ledger=ledger,
            stages=stages,
            seen=RedisSeenNumbers(client),
            stream=stream,
            store=store,
            declared=declared,
            clock=host.clock,
            observer=metrics.rebuild,
            recredit=Recredit(PostgresCreditLedger(postgres), declared, settings.shards),
        ),
        RebuildOptions(holder, settings.shards),
    )
    correct = Correct(
        CorrectParts(
            corrections=PostgresCorrections(postgres),
            ledger=ledger,
            stages=stages,
            stream=stream,
            store=store,
            declared=declared,
            clock=host.clock,
            observer=metrics.rebuild,
        ),
        CorrectOptions(holder, settings.shards, settings.operation_ttl_s),
    )
    for each, step, every_ms in (
        ("rebuild", rebuild, REBUILD_MS),
        ("correct", correct, CORRECT_MS),
    ):
        options = LoopOptions(idle_ms=every_ms)
        host.spawn(Loop(each, step, host.clock, host.observer, options))
