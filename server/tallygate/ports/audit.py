"""The seam of verification: the ledger compared with all that was made of it.

Guarantees: nothing here changes anything; each answer is of one moment of the ledger, and bounded.
Refuses to know: SQL, and who is told of differences.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tallygate.domain.drift import Difference, Unequal
from tallygate.domain.ids import TenantId

FOUND_MAX: Final = 10_000
"""How many differences one look returns at most; whoever finds as many has found enough."""


@dataclass(frozen=True, slots=True)
class Month:
    """A month of usage: its bounds in microseconds, its partition, how many events that has.

    `leaf` is empty where there are rollups without an event.
    """

    from_us: int
    to_us: int
    leaf: str
    events: int


@dataclass(frozen=True, slots=True)
class DestinationTotal:
    """What a destination was told of a meter, and what the ledger has of the same events.

    `told` are all its messages, of which `delivered` and `parked` are parts.
    """

    destination: str
    meter: str
    events: int
    told: int
    delivered: int
    parked: int
    ledger: int


class LedgerAudit(Protocol):
    """Compares the ledger with its rollups, its messages and its accounts."""

    async def months(self, tenant_id: TenantId | None) -> Sequence[Month]:
        """Return the months there are, by time; two of one month where it has two partitions."""
        ...

    async def unequal(self, month: Month, tenant_id: TenantId | None) -> Sequence[Unequal]:
        """Return the buckets of a month that differ between events, minutes, hours and days."""
        ...

    async def unnamed(self, tenant_id: TenantId | None) -> Sequence[Difference]:
        """Return events without key, keys without event, events twice, or without number."""
        ...

    async def untold(self, tenant_id: TenantId | None) -> Sequence[Difference]:
        """Return what messages tell otherwise than the ledger has it, twice, or not at all."""
        ...

    async def undelivered(self) -> Sequence[Difference]:
        """Return messages without a delivery they should have, and deliveries that cannot be."""
        ...

    async def destinations(self, tenant_id: TenantId | None) -> Sequence[DestinationTotal]:
        """Return what each destination was told, by meter."""
        ...

    async def accounts(self, tenant_id: TenantId | None) -> Sequence[Difference]:
        """Return accounts of balances that differ from their postings."""
        ...
