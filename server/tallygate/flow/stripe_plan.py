"""rollups ─▶ [ stripe plan ] ─▶ intents: what was used, less what is intended of it.

If we die here after reading and before writing, the next round finds the same gap. If we die after
writing, it finds none. Where two of us find the same gap at once, both would write the same number
of the same window, and one does.

Guarantees: usage of a window is intended once its end is settled, and late usage as soon as it is
found, as a difference; windows end where a billing period does. All windows of the last days are
looked at once an hour, those of the last hours in each round.
Refuses to know: Postgres, Stripe, and what becomes of intents.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tallygate.domain.catalog import Catalog, Destination, Meter, Tenant
from tallygate.domain.ids import TenantId
from tallygate.domain.stripe_intent import IntentKind, intent_for
from tallygate.domain.stripe_retry import CANCEL_WITHIN_US
from tallygate.domain.stripe_rules import synced
from tallygate.domain.stripe_sync import StripeSync, Way
from tallygate.domain.window import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Calendar,
    Period,
    Window,
    window_at,
)
from tallygate.ports import CatalogStore, Clock
from tallygate.ports.stripe_store import Cut, GapQuery, Source, StripeIntents

# Twice as far back as Stripe takes usage: what is found too late is kept, and shown to people.
HORIZON_US: Final = 70 * DAY_US
# Whatever is later than this waits for the hourly look at everything.
RECENT_US: Final = 6 * HOUR_US
FULL_EVERY_US: Final = HOUR_US

_LENGTHS: Final = ((Source.DAY, DAY_US), (Source.HOUR, HOUR_US), (Source.MINUTE, MINUTE_US))


class PlanObserver(Protocol):
    """What a planner tells of itself."""

    def planned(self, destination: str, kind: str, count: int) -> None:
        """So many intents of a kind were written."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How much is looked at in one round."""

    tenants_max: int = 500
    gaps_max: int = 1_000


@dataclass(frozen=True, slots=True)
class PlanParts:
    """What a planner works with."""

    intents: StripeIntents
    catalogs: CatalogStore
    clock: Clock
    observer: PlanObserver


@dataclass(slots=True)
class PlanCounts:
    """What one round did. `last` says that it came to the last tenant."""

    tenants: int = 0
    gaps: int = 0
    intended: int = 0
    last: bool = True

    @property
    def more(self) -> bool:
        """Whether there is likely more to do at once."""
        return not self.last


class StripePlanner:
    """Writes what one destination is to be told."""

    def __init__(
        self, destination: str, parts: PlanParts, options: PlanOptions | None = None
    ) -> None:
        self._destination = destination
        self._parts = parts
        self._options = options or PlanOptions()
        self._after: TenantId | None = None
        self._full_us: int | None = None
        self._full = True

    async def run_once(self) -> PlanCounts:
        """Look at the next tenants; return what was found of them.

        Raises the store's error when it fails; the same tenants are looked at again then.
        """
        parts, options = self._parts, self._options
        now_us = parts.clock.now_us()
        if self._after is None:
            self._full = self._full_us is None or now_us - self._full_us >= FULL_EVERY_US
        catalog = await parts.catalogs.effective(now_us)
        tenants = await parts.catalogs.tenants_page(self._after, options.tenants_max, None)
        counts = PlanCounts(tenants=len(tenants), last=len(tenants) < options.tenants_max)
        customers = [tenant for tenant in tenants if tenant.stripe_customer_id]
        account = _account(catalog, self._destination)
        if account is not None and customers:
            for meter, sync in synced(catalog, account.name, Way.METER_EVENTS, Way.QUANTITY):
                await self._plan(account, meter, sync, customers, counts)
        self._after = None if counts.last else tenants[-1].tenant_id
        if counts.last and self._full:
            self._full_us = now_us
        return counts

    async def _plan(
        self,
        account: Destination,
        meter: Meter,
        sync: StripeSync,
        tenants: Sequence[Tenant],
        counts: PlanCounts,
    ) -> None:
        now_us = self._parts.clock.now_us()
        from_us, to_us, settled_us = _range(sync, now_us, full=self._full)
        if to_us <= from_us:
            return
        ids = [tenant.tenant_id for tenant in tenants]
        chains = await self._parts.intents.chains(ids, from_us, to_us)
        kind = kind_of(sync)
        by_source: dict[Source, list[Cut]] = {}
        for tenant in tenants:
            chain = chains.get(tenant.tenant_id, ())
            found = list(cuts(tenant, sync, Window(from_us, to_us), chain))
            by_source.setdefault(source_of(sync, found), []).extend(found)
        for source, of_source in by_source.items():
            query = GapQuery(
                destination=account.name,
                meter=meter.name,
                measure=meter.aggregation,
                source=source,
                window_us=sync.window_us,
                settled_us=settled_us,
                cuts=tuple(of_source),
                dimensions=sync.dimensions,
                latest=kind is not IntentKind.DELTA,
                cancel_after_us=now_us - CANCEL_WITHIN_US,
                limit=self._options.gaps_max,
                # How much a subscription is for is what there was, whoever is billed for it.
                late_since_us=None if kind is IntentKind.QUANTITY else sync.since_us,
            )
            await self._close_gaps(account, sync, query, counts)

    async def _close_gaps(
        self, account: Destination, sync: StripeSync, query: GapQuery, counts: PlanCounts
    ) -> None:
        kind = kind_of(sync)
        shadow = account.stripe is not None and account.stripe.shadow
        while True:
            gaps = await self._parts.intents.gaps(query)
            intents = [intent_for(account.name, sync, gap, kind) for gap in gaps]
            if not intents:
                return
            now_us = self._parts.clock.now_us()
            new = set(await self._parts.intents.intend(intents, now_us, shadow=shadow))
            counts.gaps += len(gaps)
            counts.intended += len(new)
            for each in IntentKind:
                count = sum(made.kind is each and made.identifier in new for made in intents)
                if count:
                    self._parts.observer.planned(account.name, each.value, count)
            # Where nothing of it was new, another planner is at work here.
            if len(gaps) < query.limit or not new:
                return


def kind_of(sync: StripeSync) -> IntentKind:
    """Return what a meter's intents are, before their sign is known."""
    if sync.way is Way.QUANTITY:
        return IntentKind.QUANTITY
    return IntentKind.TOTAL if sync.overwrite else IntentKind.DELTA


def cuts(
    tenant: Tenant, sync: StripeSync, window: Window, chain: Sequence[Window] = ()
) -> Iterator[Cut]:
    """Iterate over the billing periods of a tenant in a stretch of time.

    `chain` are those that the tenant is known to have then; around them its calendar counts.
    """
    at_us = window.start_us
    while at_us < window.end_us:
        exact = _period(tenant.calendar, chain, at_us)
        while at_us >= (period := whole(sync, exact)).end_us:
            # Beyond the boundary as it counts here: the following period has begun.
            exact = _period(tenant.calendar, chain, exact.end_us)
        yield Cut(
            tenant_id=tenant.tenant_id,
            customer=tenant.stripe_customer_id,
            period_start_us=period.start_us,
            period_end_us=period.end_us,
            from_us=at_us,
            to_us=min(period.end_us, window.end_us),
        )
        at_us = period.end_us


def whole(sync: StripeSync, period: Window) -> Window:
    """Return a billing period as windows are cut by it.

    A boundary counts from its whole minute on, as rollups do. Where windows are sent whole, as
    those that overwrite are, one with a boundary in it belongs to the period that begins there.
    """
    grain_us = MINUTE_US if kind_of(sync) is IntentKind.DELTA else sync.window_us
    return Window(
        period.start_us - period.start_us % grain_us, period.end_us - period.end_us % grain_us
    )


def source_of(sync: StripeSync, found: Sequence[Cut]) -> Source:
    """Return the coarsest rollup that no period between divides; of dimensions only events know."""
    if sync.dimensions:
        return Source.EVENT
    bounds = {cut.period_start_us for cut in found if cut.period_start_us > cut.from_us}
    bounds |= {cut.from_us for cut in found} | {cut.period_end_us for cut in found}
    for source, length_us in _LENGTHS:
        if length_us <= sync.window_us and not any(bound % length_us for bound in bounds):
            return source
    return Source.MINUTE


def _period(calendar: Calendar, chain: Sequence[Window], at_us: int) -> Window:
    """Return the billing period that holds an instant: of the chain, or as it would go on."""
    place = bisect_right(chain, at_us, key=lambda each: each.start_us)
    if place and chain[place - 1].holds(at_us):
        return chain[place - 1]
    found = window_at(Period.BILLING_PERIOD, calendar, at_us)
    start_us = max(found.start_us, chain[place - 1].end_us) if place else found.start_us
    end_us = min(found.end_us, chain[place].start_us) if chain[place:] else found.end_us
    return Window(start_us, end_us)


def _range(sync: StripeSync, now_us: int, *, full: bool) -> tuple[int, int, int]:
    """Return from where to where usage is looked at, and by when a window must have ended."""
    length_us = sync.window_us
    if sync.way is Way.QUANTITY:
        # What a subscription's quantity is to be is what the last whole window says.
        settled_us = now_us - sync.settle_us
        to_us = settled_us - settled_us % length_us
        return max(sync.since_us, to_us - length_us), to_us, settled_us
    back_us = HORIZON_US if full else RECENT_US + length_us
    from_us = now_us - back_us
    # On whole windows, so that the first is whole; of all, on whole days, so that it stays so.
    from_us -= from_us % (DAY_US if full else length_us)
    from_us = max(sync.since_us, from_us)
    if sync.early:
        return from_us, now_us, now_us + length_us
    return from_us, now_us - sync.settle_us, now_us - sync.settle_us


def _account(catalog: Catalog, name: str) -> Destination | None:
    found = [each for each in catalog.destinations if each.name == name and each.stripe is not None]
    return found[0] if found else None
