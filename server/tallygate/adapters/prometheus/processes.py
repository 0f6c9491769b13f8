"""The metrics of a group of processes, and all of theirs as one set.

Guarantees: a scrape asks each process once, and shows the last figures of one that does not answer;
what processes that are gone had counted stays in the sums. Any thread may ask.
Refuses to know: how a process is asked.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, ProcessCollector
from prometheus_client.registry import Collector

from tallygate.adapters.prometheus.children import Children
from tallygate.adapters.prometheus.merging import Departed, Source, merged, parsed

WATCHING: Final = "group"

log = structlog.get_logger(__name__)


class GroupMetrics:
    """What the process that watches counts itself, on the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.up: Children[Gauge] = Children(
            Gauge(
                "tallygate_process_up",
                "Whether the process has started and is not leaving: 1 yes, 0 no.",
                ("process",),
                registry=registry,
            )
        )
        self.restarts: Children[Counter] = Children(
            Counter(
                "tallygate_process_restarts_total",
                "Processes started anew, by why: ended, failed to start, or stalled.",
                ("process", "cause"),
                registry=registry,
            )
        )
        self.handing_in = Gauge(
            "tallygate_processes_handing_in",
            "Processes that hand in what an earlier run has left in folders not in use any more.",
            registry=registry,
        )
        # The same as of any process: the sum is of all listeners.
        self.ops_refused = Counter(
            "tallygate_ops_connections_refused_total",
            "Connections to the ops listener that were cut because it had too many.",
            registry=registry,
        )
        ProcessCollector(registry=registry)


@dataclass(slots=True)
class _Member:
    ask: Callable[[], str]
    last: Source | None = field(default=None)


class GroupPages(Collector):
    """A collector of every process's metrics, merged with the group's own."""

    def __init__(self, own: GroupMetrics) -> None:
        self.own = own
        self._lock = threading.Lock()
        self._members: dict[str, _Member] = {}
        self._departed = Departed()

    def join(self, process: str, ask: Callable[[], str]) -> None:
        """Count a process in. `ask` returns its exposition; raises OSError or ValueError."""
        with self._lock:
            self._members[process] = _Member(ask)

    def leave(self, process: str) -> None:
        """Keep what a process that has ended had counted when it was asked last."""
        with self._lock:
            member = self._members.pop(process, None)
            if member is not None and member.last is not None:
                self._departed.add(member.last)

    def refresh(self) -> None:
        """Ask every process, one after the other. Blocks."""
        with self._lock:
            asked = [*self._members.items()]
        for process, member in asked:
            try:
                found = parsed(process, member.ask())
            except (OSError, ValueError) as error:
                # It starts, ends or hangs: its states tell, and its last figures stay.
                log.debug("process_not_asked", process=process, cause=repr(error))
                continue
            with self._lock:
                # It may have left meanwhile: then these figures are counted already, or lost.
                if self._members.get(process) is member:
                    member.last = found

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, as it is now."""
        self.refresh()
        with self._lock:
            sources = [member.last for member in self._members.values() if member.last]
            sources.append(self._departed.source)
        own = Source(WATCHING, [*self.own.registry.collect()])
        yield from merged([*sources, own])

    def describe(self) -> list[Metric]:
        """Name nothing beforehand: processes that have not started cannot be asked."""
        return []
