"""The seam of billable usage: what each meter comes to for a tenant over a window of time.

Guarantees: a window's quantities are of one moment of the ledger, exact, and of whole minutes.
Refuses to know: prices, and how usage is kept.

A method raises `BackendUnavailable` when Postgres does not answer in time.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol, TypeAlias

from tallygate.domain.ids import MeterName, TenantId

Group: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values of what a meter is grouped by, in the catalog's order; empty for no groups."""


@dataclass(frozen=True, slots=True)
class MeterUsage:
    """What a meter, or one group of it, comes to in a window.

    `quantity` is by the meter's aggregation, in its smallest unit: a whole number, but for
    `time_weighted` units times seconds. `count` is of events that are no refunds.
    """

    meter: MeterName
    group: Group
    quantity: int | Decimal
    count: int


class PeriodUsage(Protocol):
    """Reads what a tenant used in a window."""

    async def of_window(self, tenant_id: TenantId, from_us: int, to_us: int) -> list[MeterUsage]:
        """Return the usage from `from_us` to before `to_us`, by meter and group.

        A meter without an event in the window has no row. Raises `InvalidField` unless both are
        whole minutes and the first is before the second.
        """
        ...
