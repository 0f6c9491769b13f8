"""The seam of recounting: what one snapshot of the ledger says was used.

Guarantees: all answers of one reading are of the same instant.
Refuses to know: plans, windows' names, and whose counter a sum goes into.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.ids import LimitId, MeterName, TenantId


@dataclass(frozen=True, slots=True)
class Ask:
    """Which usage is summed up, and how finely: times are microseconds since the epoch.

    Usage counts from `from_us` on, when it was accepted from `received_from_us` to before
    `received_until_us`. It lies in slots of `slot_us`, 0 for one slot, by the earlier of when it
    was and when it was accepted. With `period_us`, as of a rate, it counts when it was accepted at
    most so long after it was, and its slot is that of its acceptance.

    Sums come by the values of `fields`: dimensions, or else fields of the context. With `counted`,
    events are one each until all of them is taken back.
    """

    tenant_id: TenantId
    meter: MeterName
    from_us: int
    received_from_us: int
    received_until_us: int
    slot_us: int = 0
    period_us: int = 0
    fields: tuple[str, ...] = ()
    counted: bool = False


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Units of an ask, named by its place, in one slot and of one set of values of its fields."""

    ask: int
    slot: int
    values: tuple[str, ...]
    units: int


@dataclass(frozen=True, slots=True)
class LastReset:
    """When a counter was last set back. `scope` is `KEY=VALUE` for one value of a dimension."""

    tenant_id: TenantId
    limit_id: LimitId
    scope: str
    reset_at_us: int


class CountedUsage(Protocol):
    """One snapshot of the ledger. Raises `BackendUnavailable` when it does not answer in time."""

    async def tenants(self, after: str, count: int) -> list[TenantId]:
        """Return up to `count` tenants that have used anything, by id, those after `after`."""
        ...

    async def sums(self, asks: Sequence[Ask], but_epoch: str = "") -> list[UsageSum]:
        """Return the sums that are not 0, but for events counted in `but_epoch`, empty for none."""
        ...

    async def resets(self, tenants: Sequence[TenantId]) -> list[LastReset]:
        """Return the last reset of each counter of these tenants that was ever set back."""
        ...


class UsageSnapshots(Protocol):
    """Opens snapshots."""

    def snapshot(self) -> AbstractAsyncContextManager[CountedUsage]:
        """Return a snapshot of now, held for as long as it is open."""
        ...
