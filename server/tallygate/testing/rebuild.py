"""What rebuilding asks of a ledger, and what counters are due, in memory.

Guarantees: passes the same contract tests as the adapters for Postgres.
Refuses to know: counters.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from tallygate.domain.ids import SourceId, epoch_of
from tallygate.ports.epochs import Seen
from tallygate.ports.rebuild import Closing, Correction
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.recount import FakeCountedUsage, FakeUsageSnapshots


class FakeRebuildLedger:
    """The `RebuildLedger` port over a fake ledger."""

    def __init__(self, snapshots: FakeUsageSnapshots, now_us: Callable[[], int]) -> None:
        self._ledger = snapshots.ledger
        self._snapshots = snapshots
        self._now_us = now_us
        self._lease: tuple[str, int] = ("", 0)
        self._past: set[tuple[int, str]] = set()

    async def lead(self, holder: str, lease_ms: int) -> bool:
        """Take or keep the lead for so long; say whether `holder` has it."""
        now_us = self._now_us()
        if self._lease[0] != holder and now_us <= self._lease[1]:
            return False
        self._lease = (holder, now_us + lease_ms * 1000)
        return True

    async def epochs(self) -> Mapping[tuple[int, str], bool]:
        """Return the shards' epochs that counters were made anew in; True for current ones."""
        self._ledger.answer()
        current = self._ledger.current.items()
        return dict.fromkeys(self._past, False) | dict.fromkeys(current, True)

    async def highest(self, epochs: Sequence[str]) -> Mapping[tuple[SourceId, int], int]:
        """Return the highest number per source and lane, of sources numbered in these epochs."""
        self._ledger.answer()
        return {
            (source, lane): max(seen)
            for (source, lane), seen in self._ledger.numbers.items()
            if seen and epoch_of(source) in epochs
        }

    async def empty(self) -> bool:
        """Say whether there is no usage at all."""
        self._ledger.answer()
        return not self._ledger.events

    @asynccontextmanager
    async def close(self, epochs: Mapping[int, str]) -> AsyncIterator[Closing]:
        """Close all epochs of these shards but those named; hold a snapshot of that moment."""
        self._ledger.answer()
        self._past |= self._ledger.current.items()
        self._ledger.current.update(epochs)
        lanes = [each for each in self._ledger.numbers if each[1] in epochs]
        seen: tuple[Seen, ...] = self._ledger.seen(lanes)
        events, resets = self._ledger.events.values(), self._snapshots.resets
        yield Closing(FakeCountedUsage(events, resets), seen)


class FakeCorrections:
    """The `Corrections` port over a fake ledger. `finished` is for a test to read."""

    def __init__(self, ledger: FakeLedger, now_us: Callable[[], int]) -> None:
        self._ledger = ledger
        self._now_us = now_us
        self._tried: dict[int, int] = {}
        self.finished: dict[int, str] = {}

    async def due(self, count: int) -> list[Correction]:
        """Return up to `count` corrections that are not finished, the oldest first."""
        self._ledger.answer()
        now_us = self._now_us()
        return [
            replace(each, tried_s=(now_us - self._tried.get(each.number, now_us)) / 1_000_000)
            for each in self._open()[:count]
        ]

    async def trying(self, numbers: Sequence[int]) -> None:
        """Note that corrections, by number, are about to be given to counters."""
        self._ledger.answer()
        for number in numbers:
            self._tried.setdefault(number, self._now_us())

    async def finish(self, outcomes: Mapping[int, str]) -> int:
        """Finish corrections by number, each with its outcome; say how many were not yet."""
        self._ledger.answer()
        new = outcomes.keys() - self.finished.keys()
        self.finished.update({number: outcomes[number] for number in new})
        return len(new)

    async def again(self, within_s: float) -> int:
        """Have those that were applied, and first tried so lately, be due again; say how many."""
        self._ledger.answer()
        since_us = self._now_us() - within_s * 1_000_000
        lately = [
            number
            for number, outcome in self.finished.items()
            if outcome == "applied" and self._tried.get(number, 0) > since_us
        ]
        for number in lately:
            del self.finished[number]
        return len(lately)

    async def depth(self) -> int:
        """Return how many are not finished."""
        return len(self._open())

    def _open(self) -> list[Correction]:
        known = self._ledger.corrections.values()
        return [each for each in known if each.number not in self.finished]
