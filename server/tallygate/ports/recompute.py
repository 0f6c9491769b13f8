"""The seam of making rollups anew: what differs from the events, and what mends it.

Guarantees: looking changes nothing; mending is exact beside ingesters, and does nothing the second
time.
Refuses to know: SQL, and which aggregations there are: each store of rollups has its own.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.drift import Unequal
from tallygate.domain.ids import MeterName, TenantId
from tallygate.ports.archive import ArchivedMonth


@dataclass(frozen=True, slots=True)
class DayAsked:
    """A day in UTC, by its first instant, of one tenant and meter or of all."""

    day_us: int
    tenant_id: TenantId | None = None
    meter: MeterName | None = None


class RollupRecompute(Protocol):
    """Holds rollups against the events of a day, and makes them anew."""

    async def archived(self, day_us: int) -> ArchivedMonth | None:
        """Return where the events of a day are, if they were dropped."""
        ...

    async def differences(self, asked: DayAsked) -> Sequence[Unequal]:
        """Return the buckets of a day that are not what their events come to.

        The events' figures are the finer ones. At most `FOUND_MAX` of `ports/audit.py`.
        """
        ...

    async def recompute(self, tenant_id: TenantId, meter: MeterName, day_us: int) -> int:
        """Make the buckets of a tenant's meter on a day anew; return how many were otherwise.

        Raises `InvalidField` for a day whose events were dropped.
        """
        ...
