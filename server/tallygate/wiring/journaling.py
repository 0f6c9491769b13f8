"""The journal of a sidecar, put together with what waits for it and what it hands in.

Guarantees: it is closed last, when nothing can be accepted any more; one process has it at a time.
Refuses to know: what durability callers ask for.
"""

from dataclasses import dataclass
from typing import Final

import structlog

from tallygate.adapters.journal.files import DiskFiles
from tallygate.adapters.journal.journal import FileJournal, JournalOptions, open_journal
from tallygate.adapters.prometheus.journal import JournalObserver
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.dating import ProtobufEventDater
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.quota_store import RedisQuotaStore
from tallygate.adapters.redis.seen import RedisSeenNumbers
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.adapters.source_id import source_id
from tallygate.flow.draft import Drafter
from tallygate.flow.durable import Durable, LedgerWatch
from tallygate.flow.hand_in import HandIn, HandInParts, forget_placed
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.flow.outage import OutageGate
from tallygate.flow.resubmit import Rebinder
from tallygate.flow.traced import TracedDurable
from tallygate.ports import CatalogView
from tallygate.ports.journal import Journal
from tallygate.wiring.host import Host
from tallygate.wiring.outage import Outages

FOLDER: Final = "journal"
# Often enough that nobody waits for a sidecar when counters were lost; a run costs 1 ms of Redis.
HAND_IN_MS: Final = 300

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """The parts of a sidecar that a journal works with."""

    store: RedisQuotaStore
    outages: Outages
    gate: OutageGate
    view: CatalogView


def observer_of(host: Host) -> JournalObserver:
    """Return what the journal and its handing in tell."""
    return JournalObserver(host.metrics.journal, host.metrics.events_accepted.inc)


async def open_sidecar_journal(host: Host) -> FileJournal | None:
    """Return the process's journal, None where it is off. Raises `JournalInUse` and OSError."""
    settings = host.settings
    if settings.journal == "off":
        return None
    files = DiskFiles(settings.data_dir / FOLDER)
    options = JournalOptions(settings.journal_max_bytes)
    host.metrics.journal.max_bytes.set(settings.journal_max_bytes)
    try:
        journal = await open_journal(files, options, observer_of(host))
    except BaseException:
        files.close()
        raise
    host.connections.push_async_callback(journal.close)
    host.metrics.journal.show(journal.size)

    def unfinished() -> int:
        size = journal.size()
        return size.events + size.pending + size.held

    host.unfinished = unfinished
    size = journal.size()
    if size.events or size.pending or size.held:
        log.info("journal_found", events=size.events, pending=size.pending, held=size.held)
    return journal


def durable_of(host: Host, journal: Journal | None) -> Durable:
    """Return what answers wait for."""
    settings = host.settings
    watch = None
    if journal is not None and settings.counter_rebuild != "none":
        watch = LedgerWatch(RedisSeenNumbers(host.redis(settings.redis_timeout_ms)))
    if host.tracing is not None:
        return TracedDurable(journal, watch, host.tracing.tracer)
    return Durable(journal, watch)


async def take_up(journal: Journal, serving: Serving, host: Host) -> None:
    """Go on with what the process before this one has left, and hand in what gets lost."""
    settings, outages = host.settings, serving.outages
    rebinder = Rebinder(serving.view, Drafter(ProtobufEventEncoder(), settings.shards))
    outages.backlog.rebinder = rebinder
    serving.gate.resume(await outages.backlog.resume())
    for (source, shard), seq in journal.highest().items():
        serving.store.know(shard, source, seq)
    client = host.redis(settings.redis_timeout_ms)
    own_id = source_id(settings.data_dir)
    # Nothing is read of it but the time.
    stream = RedisUsageStream(client, StreamOptions(settings.shards, consumer=own_id))
    if settings.counter_rebuild == "none":

        async def forget() -> None:
            await forget_placed(journal, await stream.now_us())

        host.loop("journal", forget, HAND_IN_MS)
        return
    parts = HandInParts(
        journal=journal,
        backlog=outages.backlog,
        store=outages.breaker,
        stages=RedisCounterStages(client, settings.shards),
        seen=RedisSeenNumbers(client),
        rebinder=rebinder,
        dater=ProtobufEventDater(),
        clock=host.clock,
        observer=observer_of(host),
        store_us=stream.now_us,
        epochs=outages.epochs,
    )
    step = HandIn(parts, own_id)
    pace = LoopOptions(idle_ms=HAND_IN_MS)
    host.spawn(Loop("journal", step, host.clock, host.observer, pace))
