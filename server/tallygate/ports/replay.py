"""The ledger read again from the beginning, in the order in which its events were accepted.

Guarantees: one moment of the ledger, however long the reading takes.
Refuses to know: what is made of it.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import TenantId


@dataclass(frozen=True, slots=True)
class ReplayQuery:
    """Which events: `from_us` to before `to_us` of their acceptance, None for no bound."""

    tenant_id: TenantId | None = None
    from_us: int | None = None
    to_us: int | None = None


class UsageReplay(Protocol):
    """Reads accepted events again."""

    def events(self, query: ReplayQuery) -> AsyncGenerator[Sequence[UsageEvent], None]:
        """Iterate over the events in bounded lists, by when each was accepted, then by number.

        Raises `EventsArchived` where some may be in an archive alone.
        """
        ...
