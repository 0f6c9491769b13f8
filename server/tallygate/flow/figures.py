"""rollups, invoices as they would be ─▶ [ figures ] ─▶ gauges: usage by meter, expected revenue.

If we die here, nothing is lost: the figures are worked out again from the first tenant on.

Guarantees: a figure is of a whole round over all tenants, so that none is half of itself; a run
reads a bounded page; no tenant is named but those that an operator named.
Refuses to know: SQL, how invoices are worked out, and how figures are shown.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Protocol

from tallygate.domain.catalog import Tenant
from tallygate.domain.errors import TallygateError, UnknownTenant
from tallygate.domain.ids import MeterName, PlanName, TenantId
from tallygate.domain.invoice import Invoice
from tallygate.domain.window import DAY_US, Window
from tallygate.ports import Clock
from tallygate.ports.figures import Amount, RevenueRound, UsageFigures, UsageRound

# A page of some milliseconds.
USAGE_TENANTS: Final = 200
# Each takes some ten reads.
REVENUE_TENANTS: Final = 10
# A label of its own for each: more are left out, and counted.
METERS_MAX: Final = 200


class FiguresObserver(Protocol):
    """What figures are told to."""

    def used(self, day: UsageRound, month: UsageRound) -> None:
        """A round over all tenants' usage has ended."""

    def rated(self, found: RevenueRound) -> None:
        """A round over all tenants' current periods has ended."""

    def aged(self, figure: str, seconds: float) -> None:
        """So long ago the last round of `usage` or `revenue` has ended."""


class Tenants(Protocol):
    """Lists the tenants that were declared."""

    async def tenants_page(
        self, after: TenantId | None, count: int, plan: PlanName | None
    ) -> list[Tenant]:
        """Return up to `count` tenants by id, those after `after`."""
        ...


class Previews(Protocol):
    """Works out invoices as they would be now."""

    async def current(self, tenant_id: TenantId) -> Window:
        """Return the billing period that a tenant is in."""
        ...

    async def preview(self, tenant_id: TenantId, period: Window) -> Invoice:
        """Return the invoice of a period as it is now."""
        ...


@dataclass(frozen=True, slots=True)
class FiguresCounts:
    """What one run did: the tenants that it looked at."""

    tenants: int = 0
    ended: bool = False

    @property
    def more(self) -> bool:
        """Never: a round is spread over time, as nobody waits for it."""
        return False


@dataclass(slots=True)
class _Sum:
    """Usage of one span, while it is added up."""

    meters: dict[MeterName, Amount] = field(default_factory=dict)
    named: dict[tuple[TenantId, MeterName], Amount] = field(default_factory=dict)
    tenants: set[TenantId] = field(default_factory=set)
    users: int = 0

    def shown(self) -> UsageRound:
        kept = sorted(self.meters)[:METERS_MAX]
        return UsageRound(
            {meter: self.meters[meter] for meter in kept},
            {key: amount for key, amount in self.named.items() if key[1] in set(kept)},
            self.users,
            len(self.meters) - len(kept),
        )


class Pace:
    """When rounds begin, and how old the last one is."""

    def __init__(self, clock: Clock, every_s: int) -> None:
        self._clock = clock
        self._every_s = every_s
        self._began_s = float("-inf")
        self._ended_s = clock.monotonic()

    def due(self) -> bool:
        """Say whether it is time for a round, and if so note that it begins."""
        now_s = self._clock.monotonic()
        if now_s - self._began_s < self._every_s:
            return False
        self._began_s = now_s
        return True

    def ended(self) -> None:
        """Note that a round has ended."""
        self._ended_s = self._clock.monotonic()

    @property
    def age_s(self) -> float:
        """Return how long ago a round has ended; at first, how long none has."""
        return self._clock.monotonic() - self._ended_s


class ShowUsage:
    """Adds up usage by meter, round after round."""

    def __init__(
        self,
        figures: UsageFigures,
        observer: FiguresObserver,
        clock: Clock,
        named: Collection[TenantId],
        every_s: int,
    ) -> None:
        self._figures = figures
        self._observer = observer
        self._clock = clock
        self._named = frozenset(named)
        self._pace = Pace(clock, every_s)
        # None between two rounds.
        self._round: _UsageWalk | None = None

    async def run_once(self) -> FiguresCounts:
        """Look at the next tenants; after the last ones, show what was found."""
        if self._round is None:
            self._observer.aged("usage", self._pace.age_s)
            if not self._pace.due():
                return FiguresCounts()
            self._round = _UsageWalk(*_starts(self._clock.now_us()))
        walk = self._round
        page = await self._figures.page(walk.after, USAGE_TENANTS, walk.day_us, walk.month_us)
        seen = set[TenantId]()
        for each in page.used:
            seen.add(each.tenant_id)
            for total, amount in ((walk.day, each.day), (walk.month, each.month)):
                if amount == Amount():
                    continue
                total.tenants.add(each.tenant_id)
                total.meters[each.meter] = total.meters.get(each.meter, Amount()) + amount
                if each.tenant_id in self._named:
                    total.named[each.tenant_id, each.meter] = amount
        for total in (walk.day, walk.month):
            # Pages do not share tenants: only their number has to be kept.
            total.users += len(total.tenants)
            total.tenants.clear()
        if page.last is not None:
            walk.after = page.last
            return FiguresCounts(len(seen))
        self._round = None
        self._pace.ended()
        self._observer.used(walk.day.shown(), walk.month.shown())
        self._observer.aged("usage", self._pace.age_s)
        return FiguresCounts(ended=True)


@dataclass(slots=True)
class _UsageWalk:
    day_us: int
    month_us: int
    after: str = ""
    day: _Sum = field(default_factory=_Sum)
    month: _Sum = field(default_factory=_Sum)


class ShowRevenue:
    """Adds up what tenants would owe for the periods that they are in, round after round."""

    def __init__(
        self,
        tenants: Tenants,
        previews: Previews,
        observer: FiguresObserver,
        clock: Clock,
        every_s: int,
    ) -> None:
        self._tenants = tenants
        self._previews = previews
        self._observer = observer
        self._pace = Pace(clock, every_s)
        self._round: _RevenueWalk | None = None

    async def run_once(self) -> FiguresCounts:
        """Rate the next tenants; after the last ones, show what was found.

        Raises what is transient: the same tenants are then rated again.
        """
        if self._round is None:
            self._observer.aged("revenue", self._pace.age_s)
            if not self._pace.due():
                return FiguresCounts()
            self._round = _RevenueWalk()
        walk = self._round
        tenants = await self._tenants.tenants_page(walk.after, REVENUE_TENANTS, None)
        found = [await self._rated(each.tenant_id) for each in tenants]
        for each in found:
            match each:
                case Invoice():
                    owed = walk.amounts.get(each.currency, Decimal(0))
                    walk.amounts[each.currency] = owed + each.total
                    walk.rated += 1
                case TallygateError():
                    walk.failed += 1
        if tenants:
            walk.after = tenants[-1].tenant_id
            return FiguresCounts(len(tenants))
        self._round = None
        self._pace.ended()
        self._observer.rated(RevenueRound(walk.amounts, walk.rated, walk.failed))
        self._observer.aged("revenue", self._pace.age_s)
        return FiguresCounts(ended=True)

    async def _rated(self, tenant_id: TenantId) -> Invoice | TallygateError | None:
        """Return a tenant's invoice, or why it has none; None for who is not billed at all."""
        try:
            return await self._previews.preview(tenant_id, await self._previews.current(tenant_id))
        except UnknownTenant:
            return None
        except TallygateError as error:
            if error.transient:
                raise
            return error


@dataclass(slots=True)
class _RevenueWalk:
    after: TenantId | None = None
    amounts: dict[str, Decimal] = field(default_factory=dict)
    rated: int = 0
    failed: int = 0


def _starts(now_us: int) -> tuple[int, int]:
    """Return when the day and the month began, in UTC."""
    day_us = now_us - now_us % DAY_US
    return day_us, day_us - (datetime.fromtimestamp(now_us // 1_000_000, UTC).day - 1) * DAY_US
