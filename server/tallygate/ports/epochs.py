"""The seam of epochs: which counters are meant, whether they are whole, and who rebuilds them.

Guarantees: each port has a fake in `testing/` that passes the same tests as the real adapter.
Refuses to know: Redis, Postgres, and how counters are rebuilt.

An epoch is one life of a shard's counters. One that is new, as the last was lost, is shut: hard
limits are not decided by it. It goes through four stages, and never back: LOST, SEEN, FILLED, OPEN.
A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from tallygate.domain.ids import SourceId

Ranges = tuple[tuple[int, int], ...]
"""Numbers, both ends inclusive, rising and apart."""


class Stage(StrEnum):
    """How far the rebuilding of an epoch's counters has come: the values are those in Redis.

    LOST: nothing is known yet. SEEN: the ledger has said, once and for all, which numbers of older
    epochs the counters are rebuilt from; journals now hand in what is not among them. FILLED: the
    counters have what the ledger has; a copy that lags and knows this has that as well. OPEN:
    limits are decided.
    """

    LOST = ""
    SEEN = "s"
    FILLED = "f"
    OPEN = "1"


@dataclass(frozen=True, slots=True)
class ShardState:
    """A shard's epoch, its stage, and the last number given out per source of it."""

    shard: int
    epoch: str
    stage: Stage
    given: Mapping[SourceId, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """Which numbers of a source's lane the ledger has. The source's name ends with its epoch."""

    source_id: SourceId
    shard: int
    ranges: Ranges


class CounterEpochs(Protocol):
    """Which epoch the counters of each shard are of, and whose memory they are in."""

    async def life(self) -> str:
        """Return what changes when the counters' server starts anew, or another takes over.

        Its last moments may be lost then, though the epoch is the same.
        """
        ...

    async def epochs(self) -> Mapping[int, str]:
        """Return the epoch of each shard, making those that are missing."""
        ...


class CounterStages(CounterEpochs, Protocol):
    """How far each shard's counters are rebuilt."""

    async def states(self) -> Sequence[ShardState]:
        """Return the state of each shard, in order, making epochs that are missing."""
        ...

    async def renew(self, shard: int, epoch: str) -> str:
        """Give the shard a new epoch, at stage LOST, if its epoch is still the one named.

        Returns the epoch that it has now. For a server that came back with old data.
        """
        ...

    async def advance(
        self, shard: int, epoch: str, stage: Stage, *, after: Stage | None = None
    ) -> bool:
        """Bring an epoch to a later stage; say whether it is still the shard's and was earlier.

        With `after`, only if that is its stage.
        """
        ...


class SeenNumbers(Protocol):
    """What the ledger has, told to those who have no way to it; and who has yet to hand in."""

    async def tell(self, seen: Sequence[Seen]) -> None:
        """Write what the ledger has, per source and shard; a later call replaces an earlier."""
        ...

    async def seen(self, asked: Sequence[tuple[SourceId, int]]) -> Sequence[Seen]:
        """Return what the ledger has of each source and shard, in order; no ranges for unknown."""
        ...

    async def hand_in(self, numbers: Sequence[Seen]) -> None:
        """Tell the ledger that the events of these numbers come again, under other numbers.

        So that nobody waits for the old ones. Told twice, it is the same.
        """
        ...

    async def announce(self, shard: int, epoch: str, source_id: SourceId, *, done: bool) -> None:
        """Say that a journal has, or with `done` has no more, operations to hand in to an epoch.

        `source_id` is the sidecar's own, without an epoch.
        """
        ...

    async def announced(self, shard: int, epoch: str) -> Mapping[SourceId, bool]:
        """Return who has announced itself to an epoch, and whether it is done."""
        ...
