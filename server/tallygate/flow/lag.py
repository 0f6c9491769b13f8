"""usage stream · ledger ─▶ [ lag ] ─▶ metrics: how far the ledger is behind.

If we die here, another ingester measures on: nothing is changed but what Redis is told of the
ledger, which is told again.

Guarantees: the lag is seen to rise while the ledger is away.
Refuses to know: Redis, SQL, and who is alarmed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tallygate.domain.ids import SourceId
from tallygate.flow.ingest import IngestParts, IngestSnapshot
from tallygate.ports import SourceProgress
from tallygate.ports.epochs import Seen


class IngestWatch:
    """Compares the stream with the ledger, run by run, also while the ledger is away."""

    def __init__(self, parts: IngestParts) -> None:
        self._parts = parts
        self._progress: list[SourceProgress] = []

    async def run_once(self) -> "WatchCounts":
        """Measure and tell the observer; the ledger's last known progress counts if it is away.

        Raises what the ledger raised, after it has told.
        """
        stream = self._parts.stream
        failure: Exception | None = None
        try:
            # Before what was accepted is read, so that the ratio errs below 1, not above.
            self._progress = await self._parts.ledger.progress()
        # Lag must be seen to rise just when the ledger fails; the error is raised below.
        except Exception as error:  # noqa: BLE001
            failure = error
        accepted = await stream.accepted()
        if self._parts.seen is not None:
            # Two ingesters may have told in another order than they stored.
            told = [seen_of(each) for each in self._progress]
            await self._parts.seen.tell(
                [each for each in told if (each.source_id, each.shard) in accepted]
            )
        depths = await stream.depths()
        oldest = min((each.oldest_us for each in depths if each.oldest_us), default=0)
        lag_us = await stream.now_us() - oldest if oldest else 0
        self._parts.observer.measured(
            IngestSnapshot(
                lag_s=max(0, lag_us) / 1_000_000,
                completeness=completeness(accepted, self._progress),
                gaps=sum(len(each.gaps) for each in self._progress),
                depths=tuple(depths),
            )
        )
        if failure is not None:
            raise failure
        return WatchCounts()


@dataclass(frozen=True, slots=True)
class WatchCounts:
    """A comparison was made; the next one can wait."""

    more: bool = False


def completeness(
    accepted: Mapping[tuple[SourceId, int], int], progress: Sequence[SourceProgress]
) -> float:
    """Return how much of what was accepted the ledger has, 1 when nothing was accepted.

    A source that the stream no longer knows, as Redis was emptied, counts on neither side.
    """
    total = sum(accepted.values())
    if not total:
        return 1.0
    seen = sum(
        min(each.seen, accepted.get((each.source_id, each.source_lane), 0)) for each in progress
    )
    return seen / total


def seen_of(progress: SourceProgress) -> Seen:
    """Return what the ledger has of a lane as ranges: what lies between its gaps."""
    firsts = [1, *(last + 1 for _, last in progress.gaps)]
    lasts = [*(first - 1 for first, _ in progress.gaps), progress.highest_seq]
    ranges = tuple(
        (first, last) for first, last in zip(firsts, lasts, strict=True) if first <= last
    )
    return Seen(progress.source_id, progress.source_lane, ranges)
