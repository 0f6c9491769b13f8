"""The seam of completeness: numbers given out, waiting in streams, and stored.

Guarantees: nothing here changes anything.
Refuses to know: Redis and SQL.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Collection, Mapping
from typing import Protocol

from tallygate.domain.completeness import Lane, Ranges


class StreamNumbers(Protocol):
    """Which numbers streams know of."""

    async def given(self) -> Mapping[Lane, int]:
        """Return the last number given out per source and shard, of older epochs too."""
        ...

    async def waiting(self, shards: Collection[int], entries_max: int) -> Mapping[Lane, Ranges]:
        """Return the numbers that lie in these shards' streams.

        Raises `Overloaded` when a stream has more entries than that.
        """
        ...


class StoredNumbers(Protocol):
    """Which numbers the ledger has."""

    async def seen(self) -> Mapping[Lane, Ranges]:
        """Return the numbers that are stored, or settled otherwise, per source and shard."""
        ...

    async def dead_letters(self) -> int:
        """Return how many events are kept as dead letters under a number of theirs."""
        ...
