"""The role `ingest`: the streams' way into the ledger.

Guarantees: it starts while Redis and Postgres are away.
Refuses to know: other roles.
"""

from dataclasses import replace
from typing import Final

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.prometheus.flows import IngestMetrics, StreamMetrics
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.seen import RedisSeenNumbers
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.adapters.source_id import source_id
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tallygate.flow.lag import IngestWatch
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.flow.traced import TracedLedger
from tallygate.wiring.auditing import completeness_of
from tallygate.wiring.host import Host
from tallygate.wiring.rebuilding import start_rebuilding

WATCH_MS: Final = 1_000
COMPLETENESS_MS: Final = 2_000
# A stalled read must end some time after the block it asked for.
BLOCK_MARGIN_MS: Final = 2_000


def start_ingest(host: Host) -> None:
    """Start what drains the streams, and what compares them with the ledger."""
    settings, metrics = host.settings, host.metrics
    block_ms = settings.ingest_block_ms
    client = host.redis(block_ms + BLOCK_MARGIN_MS)
    tracer = host.tracing.tracer if host.tracing is not None else None
    postgres = PostgresLedger(host.postgres())
    ledger = postgres if tracer is None else TracedLedger(postgres, tracer)
    options = StreamOptions(settings.shards, consumer=source_id(settings.data_dir))
    stream = RedisUsageStream(client, options, StreamMetrics(metrics))
    parts = IngestParts(
        stream=stream,
        ledger=ledger,
        encoder=ProtobufEventEncoder(),
        clock=host.clock,
        observer=IngestMetrics(metrics),
        seen=RedisSeenNumbers(host.redis(settings.redis_timeout_ms)),
        tracer=tracer,
    )
    pace = IngestOptions(
        events_max=settings.ingest_batch_max,
        block_ms=block_ms,
        claim_idle_ms=settings.ingest_claim_idle_ms,
    )
    # Its own connection, so that a figure never waits behind a blocking read.
    watched = replace(
        parts,
        stream=RedisUsageStream(host.redis(settings.redis_timeout_ms), options),
    )

    start_rebuilding(host)
    host.spawn(Loop("ingest", Ingest(parts, pace), host.clock, host.observer))
    host.spawn(
        Loop(
            "ingest_watch",
            IngestWatch(watched),
            host.clock,
            host.observer,
            LoopOptions(idle_ms=WATCH_MS),
        )
    )
    start_completeness(host)


def start_completeness(host: Host) -> None:
    """Start what compares the numbers that were given out with those that have arrived."""
    settings = host.settings
    client = host.redis(settings.redis_timeout_ms)
    told = host.metrics.completeness
    watch = completeness_of(host.postgres(), client, settings.shards, told)
    host.spawn(
        Loop(
            "completeness",
            watch,
            host.clock,
            host.observer,
            LoopOptions(idle_ms=COMPLETENESS_MS),
        )
    )
