"""The seam of billable usage: what meters come to for a tenant over windows of time.

Guarantees: what one call returns is of one moment of the ledger, and exact.
Refuses to know: prices, calendars, and how usage is kept.

A method raises `BackendUnavailable` when Postgres does not answer in time.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol, TypeAlias

from tallygate.domain.catalog import Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import Window

Group: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values of what a meter is grouped by, in the order asked for; empty for no groups."""


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
        """Return the usage from `from_us` to before `to_us`, by meter and group, sorted.

        A meter without an event in the window has no row, but one whose level is carried into it.
        Raises `InvalidField` unless both are whole minutes and the first is before the second, and
        `RollupsIncomplete` while rollups of a meter that the tenant uses are made anew.
        """
        ...


@dataclass(frozen=True, slots=True)
class WindowUsage:
    """What a meter comes to in the window of that place among those asked for, by group."""

    number: int
    group: Group
    quantity: int | Decimal
    count: int


class WindowReader(Protocol):
    """Reads one meter over many windows, which may overlap."""

    async def of_windows(
        self,
        tenant_id: TenantId,
        meter: Meter,
        windows: Sequence[Window],
        group_by: Sequence[str] = (),
    ) -> list[WindowUsage]:
        """Return usage by window and group, sorted; what is 0 without an event has no row.

        `group_by` names some of what the meter is grouped by; values of all others are taken
        together. Raises as `PeriodUsage` does.
        """
        ...


class MeterEvents(Protocol):
    """Reads a meter's events from the ledger."""

    def events(
        self, tenant_id: TenantId, meter: MeterName, window: Window
    ) -> AsyncGenerator[Sequence[UsageEvent], None]:
        """Iterate over the events of a window in bounded lists, by their time and then their id.

        Raises `EventsArchived` where some are in an archive alone.
        """
        ...
