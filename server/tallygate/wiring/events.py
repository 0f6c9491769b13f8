"""Events over HTTP, in a process of control: the rules of now, a sidecar, and a listener.

Guarantees: without an address nothing listens and nothing is loaded; rules that cannot be read
leave those that were read last.
Refuses to know: what else control does.
"""

from collections.abc import Awaitable, Callable

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.api.door import Door
from tallygate.domain.errors import CatalogNotLoaded
from tallygate.domain.event_rules import EventReader
from tallygate.wiring.host import Host, Running

RULES_MS = 1_000


async def prepare_events(
    host: Host, running: Running, door: Door
) -> Callable[[], Awaitable[None]] | None:
    """Put it together; return what has it listen, None where no address is set."""
    settings = host.settings
    if settings.http_address is None:
        return None
    # A control that takes no events does without an HTTP server.
    from tallygate.api.events_http import EventsApi, EventsOptions  # noqa: PLC0415
    from tallygate.api.events_listener import EventsListener  # noqa: PLC0415
    from tallygate.flow.take_events import TakeEvents  # noqa: PLC0415
    from tallygate.wiring.recording import recorder_of  # noqa: PLC0415

    catalogs = PostgresCatalogStore(host.postgres())
    reader: EventReader | None = None
    version = -1

    async def refresh() -> None:
        nonlocal reader, version
        newest = await catalogs.effective(host.clock.now_us())
        if newest.version and newest.version != version:
            reader = EventReader(newest.ingest, frozenset(newest.meters))
            version = newest.version

    def current() -> EventReader:
        if reader is None:
            raise CatalogNotLoaded
        return reader

    host.loop("event_rules", refresh, RULES_MS)
    recorder = recorder_of(settings, "tallygate-http")
    host.connections.push_async_callback(recorder.close)
    api = EventsApi(
        TakeEvents(recorder, current),
        door,
        host.metrics.events_http,
        EventsOptions(
            settings.http_body_max_bytes,
            settings.http_calls_max,
            settings.http_timeout_ms / 1000,
        ),
    )
    listener = EventsListener(
        settings.http_address,
        api.app(),
        host.secured.credentials,
        owner=host.secured.owner,
        grace_s=settings.drain_grace_ms / 1000,
    )

    async def start() -> None:
        await listener.start()
        host.stack.push_async_callback(listener.stop)
        host.loop("http_certificate", listener.renew, settings.tls_poll_ms)
        running.http_port = listener.port

    return start
