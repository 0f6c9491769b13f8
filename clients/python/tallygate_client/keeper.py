"""Keeps reservations of threads alive while their work goes on: one thread for a whole client."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from .forks import begin_anew_when_forked

# Finds what to call; None once nobody has it any more.
Extend = Callable[[], Callable[[], None] | None]
# Most work ends long before its first extension is due; what it leaves is swept in lots.
FORGOTTEN_MAX = 1_000


class Keeper:
    """Calls back again and again at intervals; its thread lives only while something is kept."""

    def __init__(self) -> None:
        self.forked()
        begin_anew_when_forked(self)

    def forked(self) -> None:
        """Begin anew, also in a forked child, whose threads are the parent's."""
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, float, Extend]] = []
        self._kept: set[int] = set()
        self._numbers = itertools.count(1)
        self._thread: threading.Thread | None = None

    def keep(self, every_s: float, extend: Extend) -> int:
        """Call what `extend` gives every so many seconds; give the number to drop it by.

        Once it gives None, it is dropped.
        """
        with self._changed:
            number = next(self._numbers)
            self._kept.add(number)
            heapq.heappush(self._due, (time.monotonic() + every_s, number, every_s, extend))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="tallygate-keeper", daemon=True
                )
                self._thread.start()
            elif self._due[0][1] == number:
                self._changed.notify()
        return number

    def drop(self, number: int) -> None:
        """Call back no more."""
        with self._changed:
            self._kept.discard(number)
            if len(self._due) > FORGOTTEN_MAX + 2 * len(self._kept):
                self._due = [each for each in self._due if each[1] in self._kept]
                heapq.heapify(self._due)

    def close(self) -> None:
        """Drop all."""
        with self._changed:
            self._kept.clear()
            self._due.clear()
            self._changed.notify()

    def _run(self) -> None:
        while (step := self._next()) is not None:
            number, find = step
            extend = find()
            if extend is None:
                self.drop(number)
            else:
                extend()
            # Held no longer than it works, so that it may go while this waits.
            del extend

    def _next(self) -> tuple[int, Extend] | None:
        """Wait for the next that is due and return it; None when nothing is kept any more."""
        with self._changed:
            while True:
                while self._due and self._due[0][1] not in self._kept:
                    heapq.heappop(self._due)
                if not self._due:
                    self._thread = None
                    return None
                moment, number, every_s, find = self._due[0]
                wait_s = moment - time.monotonic()
                if wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
                later = (time.monotonic() + every_s, number, every_s, find)
                heapq.heapreplace(self._due, later)
                return number, find
