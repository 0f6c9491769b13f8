"""The seam of figures that are made to be watched: usage of many tenants, a page at a time.

Guarantees: a page reads rollups alone, and changes nothing.
Refuses to know: SQL, and who watches.

A method raises `BackendUnavailable` when the store does not answer in time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from tallygate.domain.ids import MeterName, TenantId


@dataclass(frozen=True, slots=True)
class Amount:
    """Events, and their units added up."""

    events: int = 0
    units: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        """Return both as one."""
        return Amount(self.events + other.events, self.units + other.units)


@dataclass(frozen=True, slots=True)
class MeterUse:
    """What a tenant has used of a meter since the day's and since the month's start."""

    tenant_id: TenantId
    meter: MeterName
    day: Amount
    month: Amount


@dataclass(frozen=True, slots=True)
class UsePage:
    """What some tenants have used. `last` is the last of them, None where no tenant is left."""

    used: Sequence[MeterUse]
    last: TenantId | None


@dataclass(frozen=True, slots=True)
class UsageRound:
    """All tenants' usage of one span: by meter, by named tenant and meter, and how many used it.

    `meters_left_out` had no room among the meters that are shown.
    """

    meters: Mapping[MeterName, Amount]
    named: Mapping[tuple[TenantId, MeterName], Amount]
    tenants: int
    meters_left_out: int


@dataclass(frozen=True, slots=True)
class RevenueRound:
    """What all tenants would owe, by currency; how many were rated, and how many could not be."""

    amounts: Mapping[str, Decimal]
    rated: int
    failed: int


class UsageFigures(Protocol):
    """Reads usage for figures."""

    async def page(self, after: str, count: int, day_us: int, month_us: int) -> UsePage:
        """Return what the next `count` tenants by id after `after` have used since two instants.

        Both are the start of a day in UTC, `month_us` the earlier one. A tenant without usage since
        then counts, and has none.
        """
        ...
