"""Counts of what a client did, safe under threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from .forks import begin_anew_when_forked


@dataclass(frozen=True, slots=True)
class Stats:
    """What a client has done since it was made, and what its buffer holds now.

    Attributes:
        calls: logical calls that ended, whatever came of them.
        errors: those that ended with an error's status.
        local_open: calls that nobody answered and the local policy let pass.
        local_closed: calls that nobody answered and the local policy did not let pass.
        recorded: entries that the buffer has taken.
        sent: of them, those that were accepted.
        replayed: of those sent, the ones that had been accepted before.
        rejected: entries that were refused for good.
        refused_full: events that were not taken, as the buffer or its spool was full.
        retries: requests of the buffer that were sent again, or will be.
        pending: entries that the buffer holds now.
        spool_bytes: what the spool takes on the disk now.
        spool_torn: segments of the spool that ended in a broken entry.
        local_open_by: `local_open` by method.
        local_closed_by: `local_closed` by method.
    """

    calls: int
    errors: int
    local_open: int
    local_closed: int
    recorded: int
    sent: int
    replayed: int
    rejected: int
    refused_full: int
    retries: int
    pending: int
    spool_bytes: int
    spool_torn: int
    local_open_by: Mapping[str, int]
    local_closed_by: Mapping[str, int]


class Counts:
    """The counters behind `Stats`."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._local: dict[str, Counter[str]] = {"open": Counter(), "closed": Counter()}
        self.forked()
        begin_anew_when_forked(self)

    def forked(self) -> None:
        """Go on with what was counted before the fork."""
        self._lock = threading.Lock()

    def add(self, name: str, count: int = 1) -> None:
        """Add to one of the counters."""
        with self._lock:
            self._counts[name] += count

    def add_local(self, policy: str, method: str) -> None:
        """Count what the local policy decided."""
        with self._lock:
            self._local[policy][method] += 1

    def read(self, *, pending: int = 0, spool_bytes: int = 0) -> Stats:
        """Return all of them as they stand."""
        with self._lock:
            counts, by_open, by_closed = (
                self._counts.copy(),
                dict(self._local["open"]),
                dict(self._local["closed"]),
            )
        return Stats(
            calls=counts["calls"],
            errors=counts["errors"],
            local_open=sum(by_open.values()),
            local_closed=sum(by_closed.values()),
            recorded=counts["recorded"],
            sent=counts["sent"],
            replayed=counts["replayed"],
            rejected=counts["rejected"],
            refused_full=counts["refused_full"],
            retries=counts["retries"],
            pending=pending,
            spool_bytes=spool_bytes,
            spool_torn=counts["spool_torn"],
            local_open_by=by_open,
            local_closed_by=by_closed,
        )
