"""streams · ledger ─▶ [ completeness ] ─▶ metrics: nothing that was accepted is nowhere.

If we die here, another ingester counts on: counting changes nothing.

Guarantees: at any moment of a live system a number that is told as missing is missing. What was
given out is read first, then what lies in the streams, then what the ledger has: an entry leaves
its stream only after the ledger has it. Numbers given out since then are left to the next time.
Refuses to know: Redis, SQL, and who is alarmed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from tallygate.domain.completeness import Identity, Lane, LaneState, Ranges, identity, without
from tallygate.domain.errors import Overloaded
from tallygate.ports import Clock
from tallygate.ports.completeness import StoredNumbers, StreamNumbers
from tallygate.ports.epochs import CounterStages, Stage

# Read each round where anything is missing: some megabytes. While more waits, lag is the alarm, and
# the comparison waits for it to pass.
ENTRIES_MAX: Final = 20_000


class CompletenessObserver(Protocol):
    """What the comparison tells."""

    def counted(self, found: Identity) -> None:
        """All numbers were compared."""

    def aged(self, seconds: float) -> None:
        """The last comparison is so old."""


class SilentCompleteness:
    """Hears nothing."""

    def counted(self, found: Identity) -> None:
        """Ignore it."""

    def aged(self, seconds: float) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class CompletenessParts:
    """What is compared, and who is told."""

    streams: StreamNumbers
    ledger: StoredNumbers
    stages: CounterStages
    clock: Clock
    observer: CompletenessObserver


@dataclass(frozen=True, slots=True)
class CompletenessCounts:
    """A comparison was made, or put off; the next one can wait."""

    more: bool = False


class CompletenessWatch:
    """Compares what was given out with what has arrived, run by run."""

    def __init__(self, parts: CompletenessParts) -> None:
        self._parts = parts
        self._counted_at = parts.clock.monotonic()

    async def run_once(self) -> CompletenessCounts:
        """Compare, and tell. Raises `BackendUnavailable`, after it has told the age."""
        try:
            found = await self.compare()
            self._counted_at = self._parts.clock.monotonic()
            self._parts.observer.counted(found)
        except Overloaded:
            # Too much is on its way for a comparison; its age says so.
            pass
        finally:
            self._parts.observer.aged(self._parts.clock.monotonic() - self._counted_at)
        return CompletenessCounts()

    async def compare(self) -> Identity:
        """Return the identity's terms as of a moment during this call.

        Raises `BackendUnavailable`, and `Overloaded` when too much waits in a stream.
        """
        streams, ledger = self._parts.streams, self._parts.ledger
        given = await streams.given()
        seen = await ledger.seen()
        lasts = {lane: _last(lane, given, seen) for lane in {*given, *seen}}
        shards = {lane[1] for lane, last in lasts.items() if _absent(last, seen.get(lane, ()))}
        waiting: Mapping[Lane, Ranges] = {}
        if shards:
            waiting = await streams.waiting(shards, ENTRIES_MAX)
            seen = await ledger.seen()
        # Last: a letter counts among what is seen, and must not be missed there.
        letters = await ledger.dead_letters()
        # An epoch that is renewed meanwhile turns numbers of its own into those of an older one.
        states = await self._parts.stages.states()
        # Ingesters store lists side by side: above these last ones the ledger may have numbers of
        # which lower ones came into the stream after it had been read.
        lanes = {
            lane: LaneState(last, _up_to(last, seen.get(lane, ())), waiting.get(lane, ()))
            for lane, last in lasts.items()
        }
        epochs = {each.shard: (each.epoch, each.stage is Stage.OPEN) for each in states}
        return identity(lanes, epochs, letters)


def _last(lane: Lane, given: Mapping[Lane, int], seen: Mapping[Lane, Ranges]) -> int:
    # Of a copy of Redis that is older than the ledger, the ledger knows more.
    return max(given.get(lane, 0), max((end for _, end in seen.get(lane, ())), default=0))


def _up_to(last: int, ranges: Ranges) -> Ranges:
    return tuple((start, min(end, last)) for start, end in ranges if start <= last)


def _absent(last: int, seen: Ranges) -> bool:
    return bool(without(((1, last),) if last else (), seen))
