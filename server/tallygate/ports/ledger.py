"""The seam between the flow and the ledger.

Guarantees: what is stored is stored whole, and once.
Refuses to know: SQL.

A method raises `BackendUnavailable` when the ledger does not answer in time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tallygate.domain.event import (
    BalanceBurn,
    RejectedEvent,
    SequenceRange,
    ThresholdCrossing,
    UsageEvent,
)
from tallygate.domain.ids import SourceId
from tallygate.ports.epochs import Seen


@dataclass(frozen=True, slots=True)
class LedgerBatch:
    """What one ledger transaction stores. `source` names the stream entries, for dead letters."""

    events: tuple[UsageEvent, ...]
    crossings: tuple[ThresholdCrossing, ...] = ()
    rejected: tuple[RejectedEvent, ...] = ()
    ranges: tuple[SequenceRange, ...] = ()
    burns: tuple[BalanceBurn, ...] = ()


@dataclass(frozen=True, slots=True)
class Persisted:
    """What a ledger transaction did: rows written, and events that were there already.

    `corrections` are those that counters are due for what was stored. `late` are events that came
    for sealed periods, by the rule that placed them. `seen` is what the ledger has
    now of the lanes that the batch has numbers of.
    """

    events: int = 0
    duplicates: int = 0
    rejected: int = 0
    crossings: int = 0
    messages: int = 0
    burns: int = 0
    corrections: int = field(default=0, compare=False)
    late: Mapping[str, int] = field(default_factory=dict, compare=False)
    seen: tuple[Seen, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """How far the ledger has come with one source's lane.

    `contiguous_seq`: nothing is missing up to it. `seen`: how many numbers have been stored.
    `gaps`: ranges below the highest number that are missing, both ends inclusive.
    """

    source_id: SourceId
    source_lane: int
    contiguous_seq: int
    highest_seq: int
    seen: int
    gaps: tuple[tuple[int, int], ...] = ()


class Ledger(Protocol):
    """Stores events once for ever, with rollups, progress and outbox, in one transaction."""

    async def persist(self, batch: LedgerBatch) -> Persisted:
        """Store the batch whole, or raise and store nothing.

        Raises `UnstorableBatch` when a part of it can never be stored: the caller divides it.
        """
        ...

    async def progress(self) -> list[SourceProgress]:
        """Return the progress of every source's lane."""
        ...


class UnstorableBatch(Exception):
    """A part of a batch can never be stored. `detail` is the store's reason, without values."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
