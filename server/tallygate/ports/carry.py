"""The seams of moving tenants between shards.

Guarantees: what is carried is carried once, however often and from wherever it is asked for.
Refuses to know: Redis, and why tenants move.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.catalog import Tenant
from tallygate.domain.ids import TenantId


@dataclass(frozen=True, slots=True)
class Move:
    """A tenant whose counters belong into another shard."""

    tenant_id: TenantId
    from_shard: int
    to_shard: int


class PublishedCatalog(Protocol):
    """What sidecars are given."""

    async def published_version(self) -> int:
        """Return the version that sidecars are given; 0 when none, or when it was lost."""
        ...

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are published."""
        ...


class CounterCarrier(Protocol):
    """Carries what is counted, held and remembered of tenants from shard to shard."""

    async def carry(self, moves: Sequence[Move], version: int) -> int:
        """Carry them; return how many keys were written.

        From its beginning nothing is debited for these tenants where they were, and from its end
        on it is where they are to be. A move of an older version than the tenant's last one, or
        one that was made already, changes nothing.
        """
        ...
