"""The breaker, the gate and the backlog of a sidecar, put together.

Guarantees: the store is asked through the breaker only, the backlog's resubmissions included.
Refuses to know what the settings' numbers are good for.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import structlog

from tallygate.adapters.catalog.file_view import FileCatalogView
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.outage import BreakerMetrics, OutageMetrics
from tallygate.adapters.redis.catalog_view import RedisCatalogView
from tallygate.adapters.redis.dating import ProtobufEventDater
from tallygate.flow.backlog import Backlog, BacklogOptions, BacklogParts
from tallygate.flow.breaker import Breaker, BreakerOptions, GuardedCatalog
from tallygate.flow.journal import JournaledStore
from tallygate.flow.loop import Loop, LoopObserver, LoopOptions
from tallygate.flow.outage import Decider, OutageGate
from tallygate.flow.stream_room import StreamRoom
from tallygate.ports import CatalogView, Clock, QuotaStore
from tallygate.ports.journal import Journal
from tallygate.settings import Settings
from tallygate.wiring.place import ALONE, Place
from tallygate.wiring.steps import Step

# Between looks at a circuit that is most often closed; once open, the loop's backoff takes over.
PROBE_MS: Final = 100
BACKLOG_MS: Final = 50
# What all sidecars add between two looks is what a stream may pass its bound by.
ROOM_MS: Final = 250

log = structlog.get_logger(__name__)


class Outages:
    """What stands between a sidecar's calls and its store."""

    def __init__(
        self,
        settings: Settings,
        store: QuotaStore,
        clock: Clock,
        metrics: Metrics,
        journal: Journal | None = None,
        *,
        lengths: Callable[[], Awaitable[Sequence[int]]] | None = None,
    ) -> None:
        """Put them together; without `lengths` of the streams these have no bound."""
        self._settings = settings
        self._journal = journal
        self._clock = clock
        self._observer = OutageMetrics(metrics)
        # Within the breaker, so that what is answered too late is entered all the same.
        entering = None if journal is None else JournaledStore(store, journal)
        self.epochs: dict[int, str] = {} if entering is None else entering.epochs
        self.breaker = Breaker(
            entering or store,
            clock,
            BreakerOptions(settings.breaker_hang_ms, settings.breaker_failures_max),
            BreakerMetrics(metrics),
        )
        entries_max = settings.stream_entries_max
        self._room = lengths and StreamRoom(self.breaker, lengths, entries_max, self._observer)
        self.door: Final[QuotaStore] = self._room or self.breaker
        self.backlog = Backlog(
            BacklogParts(self.door, ProtobufEventDater(), clock, self._observer, journal),
            BacklogOptions(settings.outage_backlog_max, settings.outage_backlog_max_bytes),
        )
        metrics.outage_backlog.set_function(lambda: len(self.backlog))
        metrics.outage_backlog_bytes.set_function(lambda: self.backlog.size_bytes)
        metrics.outage_backlog_age.set_function(lambda: self.backlog.age_s)

    def gate(self, decider: Decider, place: Place = ALONE) -> OutageGate:
        """Return the gate in front of whoever puts operations to the breaker."""
        accepted = self._journal is not None or self._settings.outage_records == "accept"
        return OutageGate(
            decider,
            self.backlog,
            self._observer,
            records_accepted=accepted,
            share_of=place.share_of,
        )

    def loops(self, observer: LoopObserver) -> Iterator[Loop]:
        """Yield the loop that finds the store back, and the one that hands the backlog over."""
        pace = LoopOptions(idle_ms=PROBE_MS)
        yield Loop("breaker", Step(self.breaker.probe), self._clock, observer, pace)
        pace = LoopOptions(idle_ms=BACKLOG_MS)
        yield Loop("backlog", self.backlog, self._clock, observer, pace)
        if self._room is not None:
            pace = LoopOptions(idle_ms=ROOM_MS)
            yield Loop("stream_room", Step(self._room.measure), self._clock, observer, pace)

    def catalog(self, view: FileCatalogView | RedisCatalogView) -> CatalogView:
        """Return the view such that it does not wait for a store that is away."""
        return view if isinstance(view, FileCatalogView) else GuardedCatalog(view, self.breaker)

    def flush(self, ends_s: Callable[[], float]) -> Callable[[], Awaitable[None]]:
        """Return what to do at the end: hand the backlog over until then, by the clock."""

        async def end() -> None:
            waiting = len(self.backlog)
            grace_s = max(0.0, ends_s() - self._clock.monotonic())
            left = await self.backlog.flush(grace_s, self.breaker.probe)
            if left and self.backlog.durable:
                log.info("outage_backlog_kept", operations=left, kept_in="the journal")
            elif waiting and not left:
                log.info("outage_backlog_flushed", operations=waiting)

        return end
