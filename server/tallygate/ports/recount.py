"""The seam of recounting: what one snapshot of the ledger says was used.

Guarantees: all answers of one reading are of the same instant.
Refuses to know: plans, windows' names, and whose counter a sum goes into.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from tallygate.domain.ids import TenantId
from tallygate.domain.usage_sum import Ask, LastReset, UsageSum


class CountedUsage(Protocol):
    """One snapshot of the ledger. Raises `BackendUnavailable` when it does not answer in time."""

    async def tenants(self, after: str, count: int) -> list[TenantId]:
        """Return up to `count` tenants that have used anything, by id, those after `after`."""
        ...

    async def sums(self, asks: Sequence[Ask], but_epochs: Sequence[str] = ()) -> list[UsageSum]:
        """Return the sums that are not 0, but for events counted in `but_epochs`."""
        ...

    async def resets(self, tenants: Sequence[TenantId]) -> list[LastReset]:
        """Return the last reset of each counter of these tenants that was ever set back."""
        ...


class UsageSnapshots(Protocol):
    """Opens snapshots."""

    def snapshot(self) -> AbstractAsyncContextManager[CountedUsage]:
        """Return a snapshot of now, held for as long as it is open."""
        ...
