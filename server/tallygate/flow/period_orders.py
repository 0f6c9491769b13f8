"""operator ─▶ [ period_orders ] ─▶ ledger: a period is closed before its time, or opened again.

If we die here before the ledger has it, nothing has happened. If we die after it, it is done, and
is said to be when it is asked again.

Guarantees: nothing is done without a reason and somebody who gives it, and both stay on record.
Refuses to know: how periods are closed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tallygate.domain import event
from tallygate.domain.errors import InvalidField, NotFound
from tallygate.domain.ids import TenantId
from tallygate.domain.period import GRACE_US, PeriodKey
from tallygate.ports import CatalogStore, Clock
from tallygate.ports.period import (
    Adjustment,
    BillingPeriod,
    FrozenTotal,
    LateCount,
    PeriodAction,
    PeriodAsked,
    PeriodDesk,
    PeriodQuery,
    PeriodReader,
    Revision,
)

TEXT_LENGTH_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class PeriodOrder:
    """Which period, who asks, and why."""

    key: PeriodKey
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class PeriodStory:
    """A period, what was frozen of one of its revisions, and what has happened to it."""

    period: BillingPeriod
    totals: Sequence[FrozenTotal]
    adjustments: Sequence[Adjustment]
    revisions: Sequence[Revision]
    late: Sequence[LateCount]
    actions: Sequence[PeriodAction]


@dataclass(frozen=True, slots=True)
class OrderParts:
    """What orders work with; `grace_us` is how long a period waits that is opened again."""

    reader: PeriodReader
    desk: PeriodDesk
    catalogs: CatalogStore
    clock: Clock
    grace_us: int = GRACE_US


class PeriodOrders:
    """Reads periods, closes them before their time, opens them again."""

    def __init__(self, parts: OrderParts) -> None:
        self._parts = parts

    async def periods(self, query: PeriodQuery) -> list[BillingPeriod]:
        """Return periods by tenant and start, at most `query.limit`."""
        return await self._parts.reader.periods(query)

    async def story(
        self, tenant_id: TenantId, start_us: int | None, revision: int = 0
    ) -> PeriodStory:
        """Return a period and what was frozen of a revision, 0 for the newest.

        Without a start, it is the newest that was sealed. Raises `NotFound`.
        """
        reader, desk = self._parts.reader, self._parts.desk
        if start_us is None:
            period = await reader.newest(tenant_id)
        else:
            period = await reader.period(tenant_id, start_us)
        if period is None:
            raise NotFound(f"{tenant_id!r} has no such period", field="start")
        if not 0 <= revision <= period.revision:
            raise NotFound(f"it has revisions up to {period.revision}", field="revision")
        key = PeriodKey(tenant_id, period.start_us)
        place = (tenant_id, period.start_us)
        number = revision or period.revision
        return PeriodStory(
            period,
            await reader.totals(*place, number),
            await reader.adjustments(*place, number),
            await reader.revisions(*place),
            await desk.late(key),
            await desk.actions(key),
        )

    async def close(self, order: PeriodOrder, *, accept_missing: bool) -> BillingPeriod:
        """Have a period that has ended be due now; return it.

        Raises `InvalidField`, `NotFound`, and `PeriodNotSo` unless it has ended and is not closed.
        """
        asked = _checked(order, self._parts.clock.now_us())
        return await self._parts.desk.ask_close(asked, accept_missing=accept_missing)

    async def reopen(self, order: PeriodOrder) -> BillingPeriod:
        """Open a closed period again, for as long as its tenant's grace; return it.

        Raises `InvalidField`, `NotFound`, and `PeriodNotSo` unless it is closed.
        """
        asked = _checked(order, self._parts.clock.now_us())
        tenant = await self._parts.catalogs.tenant(order.key.tenant_id)
        billing = tenant.calendar.billing if tenant is not None else None
        grace_us = (billing.grace_us if billing is not None else 0) or self._parts.grace_us
        return await self._parts.desk.reopen(asked, asked.now_us + grace_us)


def _checked(order: PeriodOrder, now_us: int) -> PeriodAsked:
    for name, value in (("reason", order.reason), ("actor", order.actor)):
        if not value.strip():
            raise InvalidField("is required", field=name)
        event.text(value, name, TEXT_LENGTH_MAX)
    return PeriodAsked(order.key, order.actor, order.reason, now_us)
