"""What every `ReconcileReads` and `ReconcileStore` promises, of the fake and of Postgres alike."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tallygate.adapters.catalog_codec import catalog_to_json
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.reconcile import PostgresReconcileReads, PostgresReconcileStore
from tallygate.domain.catalog import Catalog, Destination, Tenant
from tallygate.domain.drift import Figures
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, PlanName, TenantId
from tallygate.domain.reconcile import Absent, Figure, Pair, Reading, Step, Why, reconciled
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, Window, from_datetime
from tallygate.ports import LedgerBatch
from tallygate.ports.reconcile import (
    PeriodAsked,
    PeriodUsage,
    ReconcileReads,
    ReconcileStore,
    RunPart,
    RunState,
    ToldUsage,
)
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.reconcile import FakeReconcileReads, FakeReconcileStore
from tests.servers import connection
from tests.usage_events import NOON_US, event

ACME, OTHER = TenantId("acme"), TenantId("other")
REQUESTS, BYTES = MeterName("requests"), MeterName("bytes")
PERIOD = Window(NOON_US - DAY_US, NOON_US + DAY_US)
TYPES = ("usage.batch", "reconcile.drift")
RUN = "daily-2026-11-20"
# September has 30 days.
MONTH_US = from_datetime(datetime(2026, 9, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Subject:
    """Reads and store beside a ledger."""

    reads: ReconcileReads
    store: ReconcileStore
    ledger: FakeLedger | PostgresLedger
    dsn: str = ""
    postgres: Postgres | None = None
    numbers: dict[str, str] = field(default_factory=dict)

    async def use(self, *events: UsageEvent) -> None:
        """Store usage; a destination that wants it is told."""
        await self.ledger.persist(LedgerBatch(events))
        if isinstance(self.reads, FakeReconcileReads):
            for name in self.reads.since_us:
                told = self.reads.told_events.setdefault(name, {})
                told.update((each.event_id, "pending") for each in events)

    async def want(self, name: str = "hook", since_us: int = 0) -> None:
        """Have a destination want usage and drifts, of what is accepted from then on."""
        if isinstance(self.reads, FakeReconcileReads):
            self.reads.since_us[name] = since_us
            return
        catalog = Catalog(
            version=1, destinations=(Destination(name, "webhook", "http://127.0.0.1", TYPES),)
        )
        async with connection(self.dsn) as admin:
            await admin.execute(
                "insert into tallygate.destination (name, kind, url, types)"
                " values ($1, 'webhook', 'http://127.0.0.1', $2)",
                *(name, list(TYPES)),
            )
            await admin.execute(
                "insert into tallygate.catalog_version"
                " (version, document, snapshot, effective_at, created_at)"
                " values (1, '', $1, '2020-01-01', tallygate.instant($2))",
                *(catalog_to_json(catalog).decode(), since_us),
            )

    async def deliver(self, name: str = "hook") -> None:
        """Deliver all that waits."""
        if isinstance(self.reads, FakeReconcileReads):
            told = self.reads.told_events[name]
            told.update(dict.fromkeys(told, "delivered"))
            return
        assert self.postgres is not None
        outbox = PostgresOutbox(self.postgres)
        await outbox.delivered(await outbox.claim(name, 100, 60_000))

    async def drop(self, month: Window, usage: Figures) -> None:
        """Have a month's events be in its archive alone."""
        if isinstance(self.reads, FakeReconcileReads):
            self.reads.archives[month] = {(ACME, REQUESTS): usage}
            return
        async with connection(self.dsn) as admin:
            await admin.execute(
                "insert into tallygate.month_archive (archive_id, month, leaf, events, file,"
                " format, file_sha256, actor)"
                " values ('one', tallygate.instant($1), 'gone', 2, 'a.csv', 'csv', '', 'ada')",
                month.start_us,
            )
            await admin.execute(
                "insert into tallygate.month_archive_usage values ('one', $1, $2, 2, $3, $4, $5,"
                " $6)",
                *(ACME, REQUESTS, usage.count, usage.sum, usage.max, usage.min),
            )
            await admin.execute(
                "insert into tallygate.month_dropped values (tallygate.instant($1), 'one', 'ada')",
                month.start_us,
            )

    async def messages(self) -> int:
        """Return how many drifts were told."""
        if isinstance(self.store, FakeReconcileStore):
            return len(self.store.messages)
        async with connection(self.dsn) as admin:
            return int(
                await admin.fetchval(
                    "select count(*) from tallygate.outbox where type = 'reconcile.drift'"
                )
            )


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of reads and store, empty."""
    if dsn is None:
        ledger = FakeLedger()
        yield Subject(FakeReconcileReads(ledger), FakeReconcileStore(SystemClock()), ledger)
        return
    postgres = Postgres(dsn)
    yield Subject(
        PostgresReconcileReads(postgres),
        PostgresReconcileStore(postgres),
        PostgresLedger(postgres),
        dsn,
        postgres,
    )
    await postgres.close()


def ask(tenant_id: TenantId = ACME, period: Window = PERIOD) -> PeriodAsked:
    """Return an ask for a tenant's period."""
    return PeriodAsked(Tenant(tenant_id, PlanName("free")), period)


async def test_tenants_come_in_pages(subject: Subject) -> None:
    """Those with usage alone, by id."""
    await subject.use(event(1), event(2, tenant_id=OTHER), event(3, tenant_id=TenantId("b")))
    assert await subject.reads.tenants("", 2) == [ACME, "b"]
    assert await subject.reads.tenants("b", 2) == [OTHER]


async def test_usage_is_of_the_period(subject: Subject) -> None:
    """A period has its first microsecond and not its last; events and minutes have the same."""
    refund = event(5, amount=-2, refund_of=EventId("event-2"), event_time_us=NOON_US + HOUR_US)
    await subject.use(
        event(1, event_time_us=PERIOD.start_us - 1, amount=1_000),
        event(2, event_time_us=PERIOD.start_us, amount=7),
        event(3, event_time_us=PERIOD.end_us - 1, amount=3),
        event(4, event_time_us=PERIOD.end_us, amount=1_000),
        refund,
        event(6, meter=BYTES, amount=2**53),
        event(7, meter=BYTES, amount=2**53, event_time_us=NOON_US + MINUTE_US),
        event(8, tenant_id=OTHER, amount=9),
    )
    both = Figures(2, 8, 7, 3)
    most = Figures(2, 2**54, 2**53, 2**53)
    assert await subject.reads.usage([ask(), ask(OTHER), ask(TenantId("nobody"))]) == [
        PeriodUsage(0, BYTES, most, most),
        PeriodUsage(0, REQUESTS, both, both),
        PeriodUsage(1, REQUESTS, Figures(1, 9, 9, 9), Figures(1, 9, 9, 9)),
    ]
    assert await subject.reads.usage([]) == []


async def test_refunds_alone_have_no_extremes(subject: Subject) -> None:
    """In a period with nothing but a refund, the largest and the smallest are 0."""
    await subject.use(event(1, amount=-3, refund_of=EventId("other")))
    (usage,) = await subject.reads.usage([ask()])
    assert usage.ledger == usage.rollup == Figures(0, -3, 0, 0)


async def test_told_is_what_messages_say(subject: Subject) -> None:
    """What was delivered, what is on its way, and what nobody had to be told of, by meter."""
    await subject.use(event(1, amount=100, received_at_us=NOON_US - HOUR_US))
    assert await subject.reads.told([ask()]) == []
    await subject.want(since_us=NOON_US - MINUTE_US)
    await subject.use(event(2, amount=20), event(3, meter=BYTES, amount=5))
    await subject.deliver()
    await subject.use(event(4, amount=3), event(5, tenant_id=OTHER))
    bytes_, requests = await subject.reads.told([ask()])
    hook = {"ask": 0, "destination": "hook", "parked": 0}
    assert bytes_ == ToldUsage(
        meter=BYTES,
        told=5,
        delivered=5,
        ledger=5,
        aside=0,
        **hook,  # type: ignore[arg-type]  # by name
    )
    assert requests == ToldUsage(
        meter=REQUESTS,
        told=23,
        delivered=20,
        ledger=123,
        aside=100,
        **hook,  # type: ignore[arg-type]  # by name
    )


def part(*off: int, **fields: object) -> RunPart:
    """Return a part with a pair for each number, whose rollup is off by so much."""
    results = tuple(
        reconciled(
            Pair(ACME, MeterName(f"m{number}"), PERIOD),
            [
                Reading(Step.LEDGER, Figure(Decimal(2**70))),
                Reading(Step.ROLLUP, Figure(Decimal(2**70 + each))),
                Reading(Step.INTENTS, Figure(Decimal(2**70 + each))),
                Reading(Step.STRIPE, Absent(Why.SHADOW, "nothing is sent")),
            ],
        )
        for number, each in enumerate(off)
    )
    made = RunPart(RUN, "", "acme", NOON_US, results, last=True)
    return replace(made, **fields)  # type: ignore[arg-type]  # fields by name


async def test_a_run_goes_on_where_it_is(subject: Subject) -> None:
    """Parts add up; the last one finishes the run, and then it is the newest."""
    store = subject.store
    assert await store.newest() is None
    assert await store.begin(RUN) == RunState(RUN)
    assert await store.add(part(0, 0, 5, until="b", last=False)) == 1
    assert await store.begin(RUN) == RunState(RUN, "b", 3, 2, 1)
    assert await store.newest() is None
    second = part(after="b", until="b")
    assert await store.add(second) == 0
    newest = await store.newest()
    assert newest is not None
    assert replace(newest, finished_us=0) == RunState(RUN, "b", 3, 2, 1)
    assert newest.finished_us > 0
    assert await store.verdicts(RUN) == {"exact": 2, "drift": 1}
    assert await store.drift_units(RUN) == {"rollup": 5}
    assert await store.verdicts("another") == {}


async def test_a_part_is_stored_once(subject: Subject) -> None:
    """Of two that reconciled the same tenants, one stores them; a finished run takes no more."""
    await subject.store.begin(RUN)
    stored = await asyncio.gather(*(subject.store.add(part(0, 7)) for _ in range(3)))
    assert sorted(stored, key=str) == [1, None, None]
    assert await subject.store.add(part(0, after="acme")) is None
    assert await subject.store.verdicts(RUN) == {"exact": 1, "drift": 1}


async def test_a_drift_is_told_once(subject: Subject) -> None:
    """The same units at the same step are one finding, run after run; others are another."""
    await subject.want()
    for day, (off, new) in enumerate([(4, 1), (4, 0), (-4, 1), (0, 0), (4, 0)]):
        run_id = f"daily-{day}"
        await subject.store.begin(run_id)
        assert await subject.store.add(part(off, run_id=run_id)) == new
    assert await subject.messages() == 2


async def test_dropped_months_count_as_archived(subject: Subject) -> None:
    """What a whole month came to is in its archive; what came since is added; a part is told."""
    month = Window(MONTH_US, MONTH_US + 30 * DAY_US)
    assert await subject.reads.dropped() == []
    await subject.drop(month, Figures(2, 7, 5, 2))
    await subject.use(event(1, amount=9, event_time_us=month.start_us))
    assert await subject.reads.dropped() == [month]
    whole = ask(period=Window(month.start_us - DAY_US, month.end_us))
    part = ask(period=Window(month.start_us, month.end_us - DAY_US))
    beside = ask(period=Window(month.start_us - DAY_US, month.start_us))
    first, second = await subject.reads.usage([whole, part, beside])
    assert (first.ask, first.ledger, first.archived) == (0, Figures(3, 16, 9, 2), False)
    assert (second.ask, second.ledger, second.archived) == (1, Figures(1, 9, 9, 9), True)
