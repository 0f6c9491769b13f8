"""The seam of billing periods: what was frozen of each, for whoever rates, sends and audits.

Guarantees: what stands under a revision never changes.
Refuses to know: SQL, prices, and how events are stored.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.period import Cause, Group, Held, PeriodState


@dataclass(frozen=True, slots=True)
class BillingPeriod:
    """One period of a tenant, `start_us <= event_time < end_us`, both whole minutes.

    `revision` is the newest that was sealed, 0 for none: the totals of revisions 1 to that are
    readable as soon as the state is `sealed`, and told with their hash once it is `closed`.
    `due_us` is when its grace ends; `held` says why it is not closed though that has passed.
    """

    tenant_id: TenantId
    start_us: int
    end_us: int
    state: PeriodState
    revision: int
    due_us: int = 0
    held: Held | None = None
    held_since_us: int = 0


@dataclass(frozen=True, slots=True)
class FrozenTotal:
    """What a meter is billed by in one revision of a period.

    `group` is empty for the whole meter. `quantity` is the one number of the meter's aggregation
    and may be below 0 after refunds; `count` is how many uses there were, refunds not among them.
    """

    meter: MeterName
    group: Group
    quantity: int
    count: int


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What late events of a closed period change of what the period bills that has them.

    `closed_start_us` is None for events of before the tenant's first period.
    """

    meter: MeterName
    group: Group
    quantity: int
    count: int
    closed_start_us: int | None


@dataclass(frozen=True, slots=True)
class Revision:
    """One closing of a period. `digest` is the SHA-256, in hex, over all events it covers.

    `events` is their number. Revisions above 1 have the one before in their digest.
    """

    number: int
    cause: Cause
    closed_us: int
    events: int
    digest: str


@dataclass(frozen=True, slots=True)
class PeriodQuery:
    """Which periods to read, by tenant and start; `after` is such a place."""

    tenant_id: TenantId | None = None
    states: tuple[PeriodState, ...] = ()
    held: bool = False
    from_us: int | None = None
    to_us: int | None = None
    limit: int = 100
    after: tuple[str, int] | None = None


class PeriodReader(Protocol):
    """Reads periods and what was frozen of them."""

    async def periods(self, query: PeriodQuery) -> list[BillingPeriod]:
        """Return periods by tenant and start, at most `query.limit`."""
        ...

    async def period(self, tenant_id: TenantId, start_us: int) -> BillingPeriod | None:
        """Return the period of a tenant that starts then, None when there is none."""
        ...

    async def totals(
        self, tenant_id: TenantId, start_us: int, revision: int
    ) -> Sequence[FrozenTotal]:
        """Return the totals of one revision by meter and group, without adjustments."""
        ...

    async def adjustments(
        self, tenant_id: TenantId, start_us: int, revision: int
    ) -> Sequence[Adjustment]:
        """Return what the revision bills, beside its totals, of periods that were closed before."""
        ...

    async def revisions(self, tenant_id: TenantId, start_us: int) -> Sequence[Revision]:
        """Return the closings of a period that are complete, the first one first."""
        ...
