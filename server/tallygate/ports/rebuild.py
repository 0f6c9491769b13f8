"""The seam of rebuilding: what the ledger says of counters that were lost, and what they are due.

Guarantees: of all who ask to lead, one does; what is stored before shards are closed is in the
snapshot of their closing, and what is stored after it becomes a correction where it has to.
Refuses to know: Redis, SQL, and how counters are made.

A method raises `BackendUnavailable` when the ledger does not answer in time.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import SourceId, TenantId
from tallygate.ports.epochs import Seen
from tallygate.ports.recount import CountedUsage


@dataclass(frozen=True, slots=True)
class Closing:
    """What the ledger has as of the closing of shards: usage, and the numbers of their lanes."""

    usage: CountedUsage
    seen: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class Correction:
    """What counters of one epoch of a shard are due for an event.

    With `takes_back` it was counted there though the ledger had it from elsewhere; without, it came
    to the ledger after the sums that the counters were made of. `tried_s` is how long ago it was
    first tried, 0 for never.
    """

    number: int
    shard: int
    epoch: str
    takes_back: bool
    event: UsageEvent
    tried_s: float = 0.0


class Declared(Protocol):
    """Plans and tenants, from wherever this installation has them."""

    async def effective(self, at_us: int) -> Catalog | None:
        """Return the catalog in effect, None where there is none."""
        ...

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are declared."""
        ...


class RebuildLedger(Protocol):
    """What rebuilding asks of the ledger."""

    async def lead(self, holder: str, lease_ms: int) -> bool:
        """Take or keep the lead for so long; say whether `holder` has it."""
        ...

    async def epochs(self) -> Mapping[tuple[int, str], bool]:
        """Return the shards' epochs that counters were made anew in; True for current ones."""
        ...

    async def highest(self, epochs: Sequence[str]) -> Mapping[tuple[SourceId, int], int]:
        """Return the highest number per source and lane, of sources numbered in these epochs."""
        ...

    async def empty(self) -> bool:
        """Say whether there is no usage at all."""
        ...

    def close(self, epochs: Mapping[int, str]) -> AbstractAsyncContextManager[Closing]:
        """Close all epochs of these shards but those named; hold a snapshot of that moment."""
        ...


class Corrections(Protocol):
    """What counters are due."""

    async def due(self, count: int) -> list[Correction]:
        """Return up to `count` corrections that are not finished, the oldest first."""
        ...

    async def trying(self, numbers: Sequence[int]) -> None:
        """Note that corrections, by number, are about to be given to counters."""
        ...

    async def finish(self, outcomes: Mapping[int, str]) -> int:
        """Finish corrections by number, each with its outcome; say how many were not yet."""
        ...

    async def again(self, within_s: float) -> int:
        """Have those that were applied, and first tried so lately, be due again; say how many."""
        ...

    async def depth(self) -> int:
        """Return how many are not finished."""
        ...


class RebuildObserver(Protocol):
    """What rebuilding tells of itself."""

    def renewed(self, shard: int, reason: str) -> None:
        """A shard's epoch was given up: of the past, behind the ledger, or rebuilt in part."""

    def applied(self, accounts: int) -> None:
        """So many accounts were given what the ledger has of them."""

    def refused(self, outcome: str) -> None:
        """An account could not be given what the ledger has of it."""

    def opened(self, shard: int, seconds: float) -> None:
        """A shard decides again, so long after it was first seen shut."""

    def waiting(self, shards: Mapping[str, int]) -> None:
        """So many shards are shut, by what they wait for."""


class SilentRebuildObserver:
    """Hears nothing."""

    def renewed(self, shard: int, reason: str) -> None:
        """Ignore it."""

    def applied(self, accounts: int) -> None:
        """Ignore it."""

    def refused(self, outcome: str) -> None:
        """Ignore it."""

    def opened(self, shard: int, seconds: float) -> None:
        """Ignore it."""

    def waiting(self, shards: Mapping[str, int]) -> None:
        """Ignore it."""
