"""Periods of tenants: events are stored, and time passes as a test says.

Guarantees: nothing waits for the clock on the wall; what closes is what runs in `control`.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.period_folds import PostgresPeriodFolds
from tallygate.adapters.postgres.period_ledger import PostgresPeriodLedger
from tallygate.adapters.postgres.period_reader import PostgresPeriodDesk, PostgresPeriodReader
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.catalog import Aggregation, Catalog, Destination, LatePolicy, Meter, Tenant
from tallygate.domain.completeness import Identity
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, PlanName, TenantId
from tallygate.domain.period import GRACE_US, Arrived, PeriodKey
from tallygate.domain.rollup import shape_of
from tallygate.domain.window import Calendar, from_datetime
from tallygate.flow.close_period import ClosePeriods, ClosingCounts, ClosingOptions, ClosingParts
from tallygate.ports import CatalogChange, CatalogStore, Ledger, LedgerBatch, Persisted
from tallygate.ports.period import (
    BillingPeriod,
    PeriodAsked,
    PeriodDesk,
    PeriodFolds,
    PeriodLedger,
    PeriodQuery,
    PeriodReader,
)
from tallygate.testing.catalog import FakeCatalogStore
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.period import FakePeriods
from tests.servers import connection
from tests.usage_events import event

ACME = TenantId("acme")
REQUESTS, PEAK, LEAST = MeterName("requests"), MeterName("peak"), MeterName("least")
CALLS, EXACT = MeterName("calls"), MeterName("exact")
METERS = {
    each.name: each
    for each in (
        Meter(REQUESTS),
        Meter(PEAK, Aggregation.MAX),
        Meter(LEAST, Aggregation.MIN),
        Meter(CALLS, Aggregation.COUNT),
        Meter(EXACT, late_policy=LatePolicy.CORRECT),
    )
}
TYPES = ("period.closed", "period.held", "period.reopened")


def at(text: str) -> int:
    """Return an instant written in UTC."""
    return from_datetime(datetime.fromisoformat(f"{text}+00:00"))


OCTOBER, NOVEMBER, DECEMBER = at("2026-10-01"), at("2026-11-01"), at("2026-12-01")
JANUARY = at("2027-01-01")
MID_OCTOBER, MID_NOVEMBER = at("2026-10-15T10:00"), at("2026-11-15T10:00")


@dataclass(slots=True)
class VirtualClock:
    """The `Clock` port, as a test sets it."""

    us: int = 0

    def now_us(self) -> int:
        """Return the time that was set."""
        return self.us

    def monotonic(self) -> float:
        """Return it in seconds."""
        return self.us / 1e6


@dataclass(slots=True)
class SetArrivals:
    """The `Arrivals` of closing, as a test sets them."""

    found: Arrived = field(default_factory=lambda: Arrived(Identity()))

    async def arrived(self) -> Arrived:
        """Return what was set."""
        return self.found


@dataclass(slots=True)
class PeriodWorld:
    """A ledger, what closes its periods, and what reads them."""

    ledger: Ledger
    catalogs: CatalogStore
    periods: PeriodLedger
    reader: PeriodReader
    desk: PeriodDesk
    clock: VirtualClock
    arrivals: SetArrivals
    folds: PeriodFolds
    closing: ClosePeriods
    dsn: str = ""
    fake: FakePeriods | None = None
    rollups: PostgresRollups | None = None
    number: int = 0
    meters: dict[MeterName, Meter] = field(default_factory=lambda: dict(METERS))

    def event(
        self, at_us: int, amount: int = 1, meter: MeterName = REQUESTS, **fields: object
    ) -> UsageEvent:
        """Return an event of its own id."""
        self.number += 1
        given = {
            "event_id": EventId(f"event-{self.number:06}"),
            "event_time_us": at_us,
            "amount": amount,
            "meter": meter,
            "received_at_us": max(at_us, self.clock.us),
        }
        return event(self.number, **{**given, **fields})

    async def store(self, *events: UsageEvent) -> Persisted:
        """Store events in one transaction."""
        return await self.ledger.persist(LedgerBatch(events))

    async def declare(self, tenants: Sequence[Tenant] = (), types: Sequence[str] = TYPES) -> None:
        """Write a catalog with `meters`, and a destination that wants those messages."""
        newest = await self.catalogs.newest()
        if self.fake is not None:
            self.fake.declared.update(each.tenant_id for each in tenants)
        hook = Destination("hook", "webhook", "https://example.com", tuple(types), "SECRET")
        catalog = Catalog(meters=dict(self.meters), destinations=(hook,))
        await self.catalogs.write(CatalogChange(catalog, tuple(tenants)), newest.version)

    async def roll_up(self) -> None:
        """Have rollups of the meters kept from now on, where there are any."""
        if self.rollups is not None:
            for meter in self.meters.values():
                await self.rollups.switch(meter.name, shape_of(meter))

    async def closed_october(self, *events: UsageEvent) -> None:
        """Declare, store the events, and let October be closed."""
        await self.declare([tenant()])
        await self.store(*events)
        await self.run(NOVEMBER - 1)
        await self.run(NOVEMBER + GRACE_US)

    async def run(self, at_us: int) -> ClosingCounts:
        """Let it be then, and close until there is no more to do; return the counts' sums."""
        self.clock.us = at_us
        total = ClosingCounts()
        while True:
            counts = await self.closing.run_once()
            total = ClosingCounts(
                total.known + counts.known,
                total.ended + counts.ended,
                total.held + counts.held,
                total.sealed + counts.sealed,
                total.closed + counts.closed,
            )
            if not counts.more:
                return total

    async def all(self, tenant_id: TenantId = ACME) -> list[BillingPeriod]:
        """Return a tenant's periods."""
        return await self.reader.periods(PeriodQuery(tenant_id, limit=1_000))

    async def bill(
        self, start_us: int, revision: int = 1, tenant_id: TenantId = ACME
    ) -> dict[str, int | Decimal]:
        """Return what a revision bills by meter, of its own and of others."""
        found: dict[str, int | Decimal] = {}
        for total in await self.reader.totals(tenant_id, start_us, revision):
            found[total.meter] = found.get(total.meter, 0) + total.quantity
        for late in await self.reader.adjustments(tenant_id, start_us, revision):
            found[late.meter] = found.get(late.meter, 0) + late.quantity
        return found

    def asked(self, start_us: int, tenant_id: TenantId = ACME) -> PeriodAsked:
        """Return what an operator asks of a period."""
        return PeriodAsked(PeriodKey(tenant_id, start_us), "ada", "a late invoice", self.clock.us)

    async def kinds(self) -> list[str]:
        """Return the type of every message, the oldest first."""
        if self.fake is not None:
            return [kind for kind, _, _ in self.fake.told]
        return [kind for kind, _ in await self.messages()]

    async def messages(self) -> list[tuple[str, str]]:
        """Return the type and payload of every message, the oldest first."""
        async with connection(self.dsn) as admin:
            rows = await admin.fetch("select type, payload from tallygate.outbox order by seq")
        return [(row["type"], row["payload"].decode()) for row in rows]


@asynccontextmanager
async def period_world(dsn: str | None) -> AsyncIterator[PeriodWorld]:
    """Lend a world on an empty ledger in Postgres, or without an address on one in memory."""
    if dsn is None:
        ledger = FakeLedger()
        fake = FakePeriods(ledger, [EXACT])
        yield _world(ledger, FakeCatalogStore(), fake, fake, fake, folds=fake, fake=fake)
        return
    postgres = Postgres(dsn)
    try:
        yield _world(
            PostgresLedger(postgres),
            PostgresCatalogStore(postgres),
            PostgresPeriodLedger(postgres),
            PostgresPeriodReader(postgres),
            PostgresPeriodDesk(postgres),
            folds=PostgresPeriodFolds(postgres),
            rollups=PostgresRollups(postgres),
            dsn=dsn,
        )
    finally:
        await postgres.close()


def _world(
    ledger: Ledger,
    catalogs: CatalogStore,
    periods: PeriodLedger,
    reader: PeriodReader,
    desk: PeriodDesk,
    *,
    folds: PeriodFolds,
    rollups: PostgresRollups | None = None,
    dsn: str = "",
    fake: FakePeriods | None = None,
) -> PeriodWorld:
    clock, arrivals = VirtualClock(), SetArrivals()
    parts = ClosingParts(periods, reader, catalogs, arrivals, clock, folds)
    closing = ClosePeriods(parts, ClosingOptions("one", correction_delay_s=0.0))
    return PeriodWorld(
        *(ledger, catalogs, periods, reader, desk, clock, arrivals, folds, closing),
        dsn=dsn,
        fake=fake,
        rollups=rollups,
    )


def tenant(calendar: Calendar = Calendar(), name: str = ACME) -> Tenant:
    """Return a tenant with a calendar."""
    return Tenant(TenantId(name), PlanName("free"), calendar)
