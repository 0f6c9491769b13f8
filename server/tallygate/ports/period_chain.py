"""The seam of which billing periods tenants have.

Guarantees: periods of a tenant adjoin, as they are kept.
Refuses to know: calendars, and how far periods have come.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tallygate.domain.ids import TenantId
from tallygate.domain.window import Window


class PeriodChains(Protocol):
    """Reads billing periods. Raises `BackendUnavailable` when it does not answer in time."""

    async def around(
        self, ids: Sequence[TenantId], from_us: int, to_us: int
    ) -> Mapping[TenantId, Sequence[Window]]:
        """Return the periods that touch a stretch, both ends included, and their neighbours.

        By tenant and start. A tenant of which none is kept has no entry.
        """
        ...
