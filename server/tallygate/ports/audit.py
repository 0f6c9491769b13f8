"""The seam of verification: the ledger compared with all that was made of it.

Guarantees: nothing here changes anything; each answer is of one moment of the ledger, and bounded.
Refuses to know: SQL, and who is told of differences.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.drift import BalanceBook, Difference, Unequal
from tallygate.domain.event import BalanceBurn, StreamEntry, UsageEvent
from tallygate.domain.hold import Account
from tallygate.domain.ids import AccountId, MeterName, TenantId
from tallygate.ports.epochs import ShardState
from tallygate.ports.recount import CountedUsage

FOUND_MAX: Final = 10_000
"""How many differences one look returns at most; whoever finds as many has found enough."""


@dataclass(frozen=True, slots=True)
class Month:
    """A month of usage: its bounds in microseconds, its partition, how many events that has.

    `leaf` is empty where there are rollups without an event. Of a month that was `dropped`, the
    events are in its archive; those that came since lie in the partition of all other months.
    """

    from_us: int
    to_us: int
    leaf: str
    events: int
    dropped: bool = False


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

    async def archives(self, tenant_id: TenantId | None) -> Sequence[Difference]:
        """Return what rollups and keys have otherwise than the archives of dropped months."""
        ...


class GroupAudit(Protocol):
    """Compares the ledger with the rollups of meters that group or take more than sums."""

    async def unequal(self, month: Month, tenant_id: TenantId | None) -> Sequence[Difference]:
        """Return what the rollups of a month have otherwise than its events."""
        ...

    async def incomplete(self) -> Sequence[MeterName]:
        """Return the meters whose rollups lack events as they are made anew; none is compared."""
        ...


@dataclass(frozen=True, slots=True)
class CounterPage:
    """Accounts of a shard at an instant of the counters' own time, and whether its epoch is open.

    An account that is not there has no counters.
    """

    at_us: int
    open: bool
    accounts: Mapping[AccountId, Account]


class CounterReads(Protocol):
    """Reads counters and streams, of which nothing is changed or given out."""

    async def accounts(
        self, states: Sequence[ShardState]
    ) -> Mapping[int, Mapping[TenantId, set[AccountId]]]:
        """Return the accounts there are in these epochs, by shard and tenant: names alone."""
        ...

    async def page(self, state: ShardState, accounts: Sequence[AccountId]) -> CounterPage:
        """Return these accounts of a shard as they stand at one instant."""
        ...

    def entries(self, shard: int, until_us: int) -> AsyncIterator[StreamEntry]:
        """Iterate over what a shard's stream holds up to a time, oldest first."""
        ...


class AuditUsage(CountedUsage, Protocol):
    """One snapshot of the ledger, also asked what of a stream it does not have yet."""

    async def unseen(self, events: Sequence[UsageEvent]) -> list[UsageEvent]:
        """Return the events whose numbers the snapshot has not."""
        ...

    async def unposted(self, burns: Sequence[BalanceBurn]) -> list[BalanceBurn]:
        """Return the burns that the snapshot has not posted."""
        ...

    async def books(self, tenants: Sequence[TenantId], until_us: int) -> list[BalanceBook]:
        """Return the balances of these tenants, with what was used of them up to a time."""
        ...

    async def tenant_since(self, tenant_id: TenantId, at_us: int) -> Sequence[Tenant]:
        """Return what a tenant was declared as since an instant, and last before it."""
        ...

    async def catalogs_since(self, at_us: int) -> Sequence[Catalog]:
        """Return the catalogs that were in effect since an instant, and the last before it."""
        ...


class AuditSnapshots(Protocol):
    """Opens snapshots."""

    def snapshot(self) -> AbstractAsyncContextManager[AuditUsage]:
        """Return a snapshot of now, held for as long as it is open."""
        ...
