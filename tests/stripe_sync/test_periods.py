"""What Stripe has of a billing period is what was frozen of it, and what it bills for others."""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

import pytest

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.period_folds import PostgresPeriodFolds
from tallygate.adapters.postgres.period_ledger import PostgresPeriodLedger
from tallygate.adapters.postgres.period_reader import PostgresPeriodDesk, PostgresPeriodReader
from tallygate.adapters.postgres.reconcile_money import PostgresMoneyReads
from tallygate.domain.catalog import Aggregation, Catalog, LatePolicy, Meter, Tenant
from tallygate.domain.completeness import Identity
from tallygate.domain.ids import EventId, PlanName
from tallygate.domain.period import Arrived, PeriodKey, PeriodState
from tallygate.domain.stripe_sync import WINDOW_US, StripeSync, SyncWindow
from tallygate.domain.window import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    Billing,
    BillingKind,
    Calendar,
    Window,
)
from tallygate.flow.close_period import ClosePeriods, ClosingOptions, ClosingParts
from tallygate.ports import CatalogChange
from tallygate.ports.period import BillingPeriod, PeriodAsked, PeriodQuery
from tallygate.ports.reconcile import IntentsAsked
from tests.servers import connection
from tests.stripe_world import (
    CUSTOMER,
    EVENT,
    METER,
    MIDNIGHT_US,
    SYNC,
    TENANT,
    StripeWorld,
    stripe_world,
)

DAILY: Final = Calendar(
    "UTC", MIDNIGHT_US, billing=Billing(BillingKind.EVERY, DAY_US, grace_us=2 * HOUR_US)
)
ACME: Final = Tenant(TENANT, PlanName("p"), calendar=DAILY, stripe_customer_id=CUSTOMER)


@dataclass
class SetArrivals:
    """The `Arrivals` of closing: everything is there."""

    found: Arrived = field(default_factory=lambda: Arrived(Identity()))

    async def arrived(self) -> Arrived:
        """Return that."""
        return self.found


@dataclass
class Closing:
    """A world whose tenant has periods of a day, which are closed two hours after their end."""

    world: StripeWorld
    reader: PostgresPeriodReader
    desk: PostgresPeriodDesk
    loop: ClosePeriods

    @property
    def now_us(self) -> int:
        """The time it is."""
        return self.world.clock.now_us()

    async def use(self, amount: int, at_us: int, **fields: object) -> EventId:
        """Have the ledger hold usage that comes now."""
        return await self.world.use(amount, at_us, TENANT, received_at_us=self.now_us, **fields)

    async def until(self, at_us: int) -> None:
        """Let it become that time, hour by hour, with all processes at work."""
        while self.now_us < at_us:
            self.world.pass_s(min(HOUR_US, at_us - self.now_us) / SECOND_US)
            while (await self.loop.run_once()).more:
                pass
            # Refunds of windows of the last day cancel, the others take more than one round.
            await self.world.plan()
            await self.world.send(2)

    async def periods(self) -> list[BillingPeriod]:
        """Return the tenant's periods."""
        return await self.reader.periods(PeriodQuery(TENANT))

    async def billed(self, period: BillingPeriod) -> int:
        """Return what a period bills: what was frozen last, and adjustments for others."""
        frozen = await self.reader.totals(TENANT, period.start_us, period.revision)
        async with connection(self.world.dsn) as admin:
            adjusted = await admin.fetchval(
                "select coalesce(sum(quantity), 0) from tallygate.period_adjustment"
                " where tenant_id = $1 and start_at = tallygate.instant($2)",
                *(TENANT, period.start_us),
            )
        return int(sum(each.quantity for each in frozen if each.meter == METER) + adjusted)

    def stripe(self, period: BillingPeriod) -> Decimal:
        """Return what Stripe has of a period."""
        start_s, end_s = period.start_us // SECOND_US, period.end_us // SECOND_US
        return self.world.stripe.total(EVENT, CUSTOMER, start_s, end_s)

    def asked(self, period: BillingPeriod, window: SyncWindow, *, counts: bool) -> IntentsAsked:
        """Return what reconciliation asks of a period that is long over."""
        bounds = Window(period.start_us, period.end_us)
        return IntentsAsked(
            *(0, TENANT, METER, "stripe", bounds, bounds.start_us, bounds.end_us),
            since_us=MIDNIGHT_US,
            window_us=WINDOW_US[window],
            settled_us=self.now_us,
            fresh_us=self.now_us + 1,
            counts=counts,
        )

    async def declare(
        self,
        sync: StripeSync = SYNC,
        aggregation: Aggregation = Aggregation.SUM,
        policy: LatePolicy = LatePolicy.NEXT_PERIOD,
    ) -> None:
        """Declare the tenant and its meter."""
        await self.world.declare(sync, [ACME], aggregation=aggregation)
        # Ingesters read of the database's own catalog which meters are corrected.
        meter = Meter(METER, aggregation, late_policy=policy)
        store = PostgresCatalogStore(self.world.postgres)
        change = CatalogChange(Catalog(meters={METER: meter}), (), "", 1)
        await store.write(change, (await store.newest()).version)


@pytest.fixture
async def closing(postgres_dsn: str) -> AsyncIterator[Closing]:
    """Lend it at noon of the first day."""
    async with stripe_world(postgres_dsn) as world:
        postgres = world.postgres
        reader = PostgresPeriodReader(postgres)
        parts = ClosingParts(
            *(PostgresPeriodLedger(postgres), reader, world.catalogs, SetArrivals(), world.clock),
            PostgresPeriodFolds(postgres),
        )
        options = ClosingOptions("one", correction_delay_s=0.0)
        made = Closing(world, reader, PostgresPeriodDesk(postgres), ClosePeriods(parts, options))
        await made.declare()
        yield made


async def test_late_usage_is_billed_by_the_next_period(closing: Closing) -> None:
    """It counts in the hour in which it came, apart, and names the period it came too late for."""
    await closing.use(5, MIDNIGHT_US + 13 * HOUR_US)
    await closing.until(MIDNIGHT_US + DAY_US + 4 * HOUR_US + 5 * MINUTE_US)
    first, second = await closing.periods()
    assert (first.state, second.state) == (PeriodState.CLOSED, PeriodState.OPEN)
    came_us = closing.now_us
    await closing.use(3, MIDNIGHT_US + 14 * HOUR_US)
    await closing.use(4, came_us)
    await closing.until(MIDNIGHT_US + 2 * DAY_US)
    assert closing.stripe(first) == Decimal(5) == await closing.billed(first)
    assert closing.stripe(second) == Decimal(7)
    rows = await closing.world.rows(
        "value, tallygate.microseconds(sent_as_of), tallygate.microseconds(closed_start)"
    )
    hour_us = came_us - came_us % HOUR_US
    assert sorted(rows[1:]) == [("3", hour_us, first.start_us), ("4", hour_us, None)]


async def test_late_usage_is_known_again(closing: Closing) -> None:
    """Planned anew by a process that remembers nothing, and with more of it, it goes out once."""
    await closing.use(5, MIDNIGHT_US + 13 * HOUR_US)
    await closing.until(MIDNIGHT_US + DAY_US + 4 * HOUR_US)
    for amount in (3, 2):
        await closing.use(amount, MIDNIGHT_US + 14 * HOUR_US)
        await closing.until(closing.now_us + 2 * HOUR_US)
        closing.world.planner = closing.world.new_planner()
        await closing.world.sync()
    assert closing.world.total() == Decimal(10)
    refunded = await closing.use(-2, MIDNIGHT_US + 14 * HOUR_US, refund_of=EventId("event-3"))
    assert refunded
    await closing.until(closing.now_us + 2 * HOUR_US)
    assert closing.world.total() == Decimal(8)
    assert closing.stripe((await closing.periods())[0]) == Decimal(5)


async def test_a_corrected_period_keeps_its_late_usage(closing: Closing) -> None:
    """What a meter corrects, and what comes while a period is open again, counts in its time."""
    await closing.declare(policy=LatePolicy.CORRECT)
    await closing.use(5, MIDNIGHT_US + 13 * HOUR_US)
    await closing.until(MIDNIGHT_US + DAY_US + 4 * HOUR_US)
    await closing.use(3, MIDNIGHT_US + 14 * HOUR_US)
    await closing.until(closing.now_us + 2 * HOUR_US)
    first = (await closing.periods())[0]
    assert (first.revision, closing.stripe(first)) == (2, Decimal(8))
    await closing.declare()
    asked = PeriodAsked(PeriodKey(TENANT, first.start_us), "ann", "an import", closing.now_us)
    await closing.desk.reopen(asked, closing.now_us + 3 * HOUR_US)
    await closing.use(1, MIDNIGHT_US + 15 * HOUR_US)
    await closing.until(closing.now_us + 5 * HOUR_US)
    first = (await closing.periods())[0]
    assert (first.revision, closing.stripe(first)) == (3, Decimal(9))
    assert await closing.billed(first) == 9


async def test_usage_of_before_since_is_not_billed_late(closing: Closing) -> None:
    """What was used before the sync began is sent by no period."""
    await closing.declare(replace(SYNC, since_us=MIDNIGHT_US + 14 * HOUR_US))
    await closing.use(5, MIDNIGHT_US + 13 * HOUR_US)
    await closing.until(MIDNIGHT_US + DAY_US + 4 * HOUR_US)
    await closing.use(3, MIDNIGHT_US + 13 * HOUR_US)
    await closing.use(2, MIDNIGHT_US + 14 * HOUR_US)
    await closing.until(closing.now_us + 2 * HOUR_US)
    assert closing.world.total() == Decimal(2)


async def test_a_moved_end_cuts(closing: Closing) -> None:
    """Where a calendar changed in the middle, windows end with the periods there really are."""
    await closing.use(5, MIDNIGHT_US + 13 * HOUR_US)
    await closing.until(MIDNIGHT_US + 14 * HOUR_US)
    half_us = MIDNIGHT_US + 15 * HOUR_US + 30 * MINUTE_US
    calendar = replace(DAILY, anchor_us=half_us)
    await closing.world.declare(SYNC, [replace(ACME, calendar=calendar)])
    await closing.use(7, half_us - MINUTE_US)
    await closing.use(2, half_us)
    await closing.until(half_us + DAY_US + 6 * HOUR_US)
    first, second, *_ = await closing.periods()
    assert (first.start_us, first.end_us, second.start_us) == (MIDNIGHT_US, half_us, half_us)
    assert (closing.stripe(first), closing.stripe(second)) == (Decimal(12), Decimal(2))
    assert await closing.billed(first) == 12


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("window", [SyncWindow.HOUR, SyncWindow.DAY])
async def test_every_period_adds_up(closing: Closing, seed: int, window: SyncWindow) -> None:
    """Of usage, late usage and refunds of any time, Stripe has what each period bills."""
    chance = random.Random(seed)
    counts = chance.random() < 0.5
    dimensions = (("area", "region"),) if chance.random() < 0.5 else ()
    await closing.declare(
        replace(SYNC, window=window, dimensions=dimensions),
        Aggregation.COUNT if counts else Aggregation.SUM,
    )
    used: list[tuple[EventId, int, int]] = []
    for _ in range(30):
        late_us = chance.choice([0, HOUR_US, 10 * HOUR_US, 40 * HOUR_US, 70 * HOUR_US])
        at_us = max(MIDNIGHT_US + MINUTE_US, closing.now_us - late_us)
        amount = chance.randint(1, 9)
        region = {"dimensions": {"region": chance.choice(["eu", "us"])}}
        if used and chance.random() < 0.3:
            of, refund_us, most = used.pop(chance.randrange(len(used)))
            await closing.use(-most, refund_us, refund_of=of, **region)
        else:
            used.append((await closing.use(amount, at_us, **region), at_us, amount))
        await closing.until(closing.now_us + chance.randint(1, 4) * HOUR_US)
    # Until all of it is sealed; what came for a day that is sealed is in the days after it.
    await closing.until(closing.now_us + 3 * DAY_US)
    sealed = [each for each in await closing.periods() if each.revision]
    assert len(sealed) >= 4
    billed = {each.start_us: await closing.billed(each) for each in sealed}
    assert {each.start_us: closing.stripe(each) for each in sealed} == {
        start_us: Decimal(units) for start_us, units in billed.items()
    }
    # Reconciliation says so too, window by window, and which of it was put elsewhere.
    reads = await PostgresMoneyReads(closing.world.postgres).intended(
        [closing.asked(each, window, counts=counts) for each in sealed]
    )
    found = {sealed[each.place].start_us: each for each in reads}
    for start_us, units in billed.items():
        usage = found.get(start_us)
        figures = (0, 0, 0, 0) if usage is None else (usage.due, usage.intended, usage.taken, 0)
        assert figures == (units, units, units, 0)
        assert usage is None or usage.aside == 0
    carried = [row for row in await closing.world.rows("closed_start") if row[0] is not None]
    assert bool(carried) == any(each.late for each in reads)
