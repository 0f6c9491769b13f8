"""The journal of a sidecar, put together with what waits for it and what it hands in.

Guarantees: it is closed last, when nothing can be accepted any more; one process has it at a time.
Refuses to know: what durability callers ask for.
"""

from typing import Final

import structlog

from tallygate.adapters.journal.files import DiskFiles
from tallygate.adapters.journal.journal import FileJournal, JournalOptions, open_journal
from tallygate.adapters.prometheus.journal import JournalObserver
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.flow.draft import Drafter
from tallygate.flow.durable import Durable
from tallygate.flow.outage import OutageGate
from tallygate.flow.resubmit import Rebinder
from tallygate.ports import CatalogView
from tallygate.ports.journal import Journal
from tallygate.wiring.host import Host
from tallygate.wiring.outage import Outages

FOLDER: Final = "journal"

log = structlog.get_logger(__name__)


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
    try:
        journal = await open_journal(files, options, observer_of(host))
    except BaseException:
        files.close()
        raise
    host.connections.push_async_callback(journal.close)
    host.metrics.journal.show(journal.size)
    size = journal.size()
    if size.events or size.pending or size.held:
        log.info("journal_found", events=size.events, pending=size.pending, held=size.held)
    return journal


def durable_of(host: Host, journal: Journal | None) -> Durable:
    """Return what answers wait for."""
    del host
    return Durable(journal)


async def take_up(
    host: Host, journal: Journal, outages: Outages, gate: OutageGate, view: CatalogView
) -> None:
    """Go on with what the process before this one has left in the journal."""
    del journal
    rebinder = Rebinder(view, Drafter(ProtobufEventEncoder(), host.settings.shards))
    outages.backlog.rebinder = rebinder
    gate.resume(await outages.backlog.resume())
