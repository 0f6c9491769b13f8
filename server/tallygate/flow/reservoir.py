"""usage stream ─▶ [ reservoir ] ─▶ ledger: entries that are read and not yet stored, by shard.

If we die here, they stay with our name in the stream, and another ingester takes them over.

Guarantees: entries of a shard leave in the order of the stream; what comes back is first again, and
each shard has its turn.
Refuses to know: what becomes of entries.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import chain

from tallygate.domain.event import StreamEntry


def size_of(entry: StreamEntry) -> int:
    """Return how many rows an entry gives: events, read or refused, crossings and burns."""
    return len(entry.events) + len(entry.rejected) + len(entry.crossings) + len(entry.burns)


class Reservoir:
    """Entries held, bounded by who adds them. Its truth is whether there are any."""

    def __init__(self) -> None:
        self._shards: defaultdict[int, deque[StreamEntry]] = defaultdict(deque)
        self._turn = 0
        # Rows that the entries give together.
        self.size = 0

    def __bool__(self) -> bool:
        """Say whether there is an entry."""
        return any(self._shards.values())

    def add(self, entries: Sequence[StreamEntry]) -> None:
        """Hold entries, behind those of their shards."""
        for entry in entries:
            self._shards[entry.shard].append(entry)
            self.size += size_of(entry)

    def put_back(self, entries: Sequence[StreamEntry]) -> None:
        """Hold entries again, in the order in which they were taken, before all others."""
        for entry in reversed(entries):
            self._shards[entry.shard].appendleft(entry)
            self.size += size_of(entry)
        if entries:
            self._turn = entries[0].shard

    def take(self, size_max: int) -> list[StreamEntry]:
        """Give out entries of at most so many rows together, at least one where there is one.

        All of one shard come before any of the next: events of few tenants add to few rollups.
        """
        taken: list[StreamEntry] = []
        size = 0
        shards = sorted(self._shards)
        later = [shard for shard in shards if shard >= self._turn]
        for shard in chain(later, (shard for shard in shards if shard < self._turn)):
            held = self._shards[shard]
            while held:
                more = size_of(held[0])
                if taken and size + more > size_max:
                    self.size -= size
                    return taken
                size += more
                taken.append(held.popleft())
                # Also where it has more: a busy shard would have every turn.
                self._turn = shard + 1
        self.size -= size
        return taken
