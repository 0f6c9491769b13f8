"""Events are stored while their period is sealed: each is in its totals, or late."""

import asyncio
from collections import Counter

import pytest

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.period_ledger import PostgresPeriodLedger
from tallygate.adapters.postgres.pool import Contended, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName
from tallygate.domain.period import GRACE_US, PeriodState
from tallygate.flow.close_period import ClosePeriods, ClosingOptions, ClosingParts
from tallygate.flow.verify_periods import VerifyPeriods
from tallygate.ports import LedgerBatch
from tests.periods.world import (
    ACME,
    DECEMBER,
    EXACT,
    MID_OCTOBER,
    NOVEMBER,
    OCTOBER,
    PEAK,
    REQUESTS,
    PeriodWorld,
    tenant,
)
from tests.servers import connection, eventually

DUE_US = NOVEMBER + GRACE_US
INGESTERS = 4
USERS = Meter(MeterName("users"), Aggregation.UNIQUE, unique_by="user")


class Storing:
    """An ingester that stores events of October, a few at a time, until it is told to end."""

    def __init__(self, on: PeriodWorld, name: int) -> None:
        self._postgres = Postgres(on.dsn)
        self._on = on
        self._name = name
        self.stored: list[UsageEvent] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Store batch after batch."""
        ledger = PostgresLedger(self._postgres)
        while not stop.is_set():
            batch = tuple(
                self._on.event(
                    MID_OCTOBER + len(self.stored) * 1_000_000,
                    amount=len(self.stored) % 7 + 1,
                    meter=meter,
                    source_id=f"source-{self._name}",
                    dimensions={"user": f"{self._name}-{len(self.stored)}"},
                )
                for meter in (REQUESTS, EXACT, PEAK, USERS.name)
            )
            await ledger.persist(LedgerBatch(batch))
            self.stored += batch
        await self._postgres.close()


def another(on: PeriodWorld, postgres: Postgres, name: str) -> ClosePeriods:
    """Return a second process that believes it leads."""

    class Leading(PostgresPeriodLedger):
        async def lead(self, holder: str, lease_ms: int) -> bool:
            return True

    parts = ClosingParts(Leading(postgres), on.reader, on.catalogs, on.arrivals, on.clock, on.folds)
    return ClosePeriods(parts, ClosingOptions(name, correction_delay_s=0.0))


async def billed(on: PeriodWorld) -> Counter[MeterName]:
    """Return the uses that all periods bill together: the newest totals, and adjustments."""
    found: Counter[MeterName] = Counter()
    for period in await on.all():
        place = (ACME, period.start_us, period.revision)
        for total in await on.reader.totals(*place):
            found[total.meter] += total.count
        for late in await on.reader.adjustments(*place):
            found[late.meter] += late.count
    return found


async def users_billed(on: PeriodWorld) -> int:
    """Return how many different users all periods bill together."""
    bills = [await on.bill(each.start_us, each.revision) for each in await on.all()]
    return sum(int(each.get(USERS.name, 0)) for each in bills)


@pytest.mark.parametrize("rolled", [False, True])
async def test_each_event_is_billed_once(world: PeriodWorld, rolled: bool) -> None:
    """Four ingesters store, two processes close, correct and reopen: nothing is lost or twice.

    Each event is of a user of its own, so that a meter of different users bills as many.
    """
    world.meters[USERS.name] = USERS
    await world.declare([tenant()])
    if rolled:
        await world.roll_up()
    await world.store(world.event(MID_OCTOBER, 5))
    await world.run(NOVEMBER)
    world.clock.us = DUE_US
    storing = [Storing(world, each) for each in range(INGESTERS)]
    stop = asyncio.Event()
    postgres = Postgres(world.dsn)
    closing = [another(world, postgres, name) for name in ("one", "two")]
    async with asyncio.TaskGroup() as tasks:
        for each in storing:
            tasks.create_task(each.run(stop))

        async def at_least(events: int) -> None:
            async def enough() -> bool:
                return min(len(each.stored) for each in storing) >= events

            await eventually(enough, what="events beside the closing")

        for turn in range(1, 5):
            await at_least(turn * 15)

            async def closed(revision: int = turn) -> bool:
                counts = await asyncio.gather(
                    *(each.run_once() for each in closing), return_exceptions=True
                )
                failed = [each for each in counts if isinstance(each, BaseException)]
                assert all(isinstance(each, Contended) for each in failed)
                october = await world.reader.period(ACME, OCTOBER)
                assert october is not None
                return october.revision >= revision and october.state is PeriodState.CLOSED

            await eventually(closed, what="a revision")
            if turn == 2:
                await world.desk.reopen(world.asked(OCTOBER), world.clock.us)
        await at_least(90)
        stop.set()
    await world.run(DECEMBER + GRACE_US)
    await postgres.close()
    expected = Counter(event.meter for each in storing for event in each.stored)
    expected[REQUESTS] += 1
    assert await billed(world) == expected
    assert await users_billed(world) == expected[USERS.name]
    findings = [
        each
        async for each in VerifyPeriods(world.reader, world.periods, world.folds).run(None, None)
    ]
    assert len(findings) >= 5
    assert not [each for each in findings if each.differs]
    assert Counter(await world.kinds()) == {
        "period.closed": len(findings),
        "period.reopened": 1,
    }


async def test_sealing_waits_for_what_is_being_stored(world: PeriodWorld) -> None:
    """A transaction that stores an event holds sealing back, and its event is in the totals."""
    await world.declare([tenant()])
    await world.store(world.event(MID_OCTOBER, 5))
    await world.run(NOVEMBER)
    world.clock.us = DUE_US
    late = world.event(MID_OCTOBER, 2)
    async with connection(world.dsn) as slow:
        transaction = slow.transaction()
        await transaction.start()
        held = await slow.fetchrow(query("ledger_hold"), [0])
        assert held is not None
        assert held["sealed_until_us"] is None
        sealing = asyncio.create_task(world.closing.run_once())

        async def waits() -> bool:
            async with connection(world.dsn) as admin:
                waiting = (
                    "select count(*) from pg_locks where locktype = 'advisory' and not granted"
                )
                return bool(await admin.fetchval(waiting)) or sealing.done()

        await eventually(waits, what="the fence")
        # What the ingester would write now, it writes before the totals are read.
        await slow.execute(
            "insert into tallygate.event_key values ($1, $2, tallygate.instant($3))",
            ACME,
            late.event_id,
            MID_OCTOBER,
        )
        await slow.execute(
            "insert into tallygate.usage_event (tenant_id, event_id, meter, amount, event_time,"
            " received_at, operation_id, source_id, source_lane, source_seq, counter_epoch,"
            " schema_version, subject_id, resource_id, session_id, region, sku, correlation_id,"
            " sdk, dimensions) values ($1, $2, 'requests', 2, tallygate.instant($3), now(), 'o',"
            " 's', 0, 1, 'e', 1, '', '', '', '', '', '', '', '{}')",
            ACME,
            late.event_id,
            MID_OCTOBER,
        )
        await slow.execute(
            "select tallygate.add_usage(array['acme'], array['requests'], array[$1::bigint],"
            " array[1], array[2], array[2], array[2])",
            MID_OCTOBER,
        )
        await transaction.commit()
        await sealing
    await world.run(DUE_US)
    assert await world.bill(OCTOBER) == {REQUESTS: 7}


async def test_sealing_gives_way_to_what_takes_long(world: PeriodWorld) -> None:
    """After a second it gives up, so that those who store events are not kept; then it succeeds."""
    await world.declare([tenant()])
    await world.store(world.event(MID_OCTOBER, 5))
    await world.run(NOVEMBER)
    async with connection(world.dsn) as slow, slow.transaction():
        await slow.fetch(query("ledger_hold"), [0])
        with pytest.raises(Contended):
            await world.run(DUE_US)
    assert (await world.run(DUE_US)).closed == 1


async def test_a_planted_error_holds_a_period(world: PeriodWorld) -> None:
    """Where a rollup is one unit off its events, the period is held and not told as closed."""
    await world.declare([tenant()])
    await world.store(world.event(MID_OCTOBER, 5))
    await world.run(NOVEMBER)
    async with connection(world.dsn) as admin:
        await admin.execute("update tallygate.usage_day set sum = sum + 1")
    await world.run(DUE_US)
    (october, _) = await world.all()
    assert (october.state, october.held) == (PeriodState.SEALED, "totals_differ")
    assert await world.kinds() == ["period.held"]
    await world.desk.ask_close(world.asked(OCTOBER), accept_missing=True)
    assert (await world.run(DUE_US)).closed == 1
    (finding,) = [
        each
        async for each in VerifyPeriods(world.reader, world.periods, world.folds).run(ACME, OCTOBER)
    ]
    assert finding.differs == ("events of requests",)


async def test_a_changed_event_is_found(world: PeriodWorld) -> None:
    """An amount that somebody moves from one event to another leaves the sum, and not the hash."""
    events = [world.event(MID_OCTOBER, 5), world.event(MID_OCTOBER, 7)]
    await world.closed_october(*events)
    async with connection(world.dsn) as admin:
        await admin.execute("alter table tallygate.usage_event disable trigger append_only")
        leaves = await admin.fetch(
            "select inhrelid::regclass::text as leaf from pg_inherits"
            " where inhparent = 'tallygate.usage_event'::regclass"
        )
        for row in leaves:
            await admin.execute(f"alter table {row['leaf']} disable trigger append_only")
        await admin.execute("update tallygate.usage_event set amount = 12 - amount")
    verification = VerifyPeriods(world.reader, world.periods, world.folds)
    (finding,) = [each async for each in verification.run(None, None)]
    assert finding.differs == ("sha256",)


async def test_pieces_change_no_hash(world: PeriodWorld) -> None:
    """However little is read at a time, a period has the same digest."""
    await world.closed_october(
        *(world.event(MID_OCTOBER + number * 20_000_000, number) for number in range(1, 200))
    )
    (revision,) = await world.reader.revisions(ACME, OCTOBER)
    assert revision.events == 199
    postgres = Postgres(world.dsn)
    for size in (1, 3, 50):
        small = PostgresPeriodLedger(postgres, size)
        (finding,) = [
            each async for each in VerifyPeriods(world.reader, small, world.folds).run(None, None)
        ]
        assert not finding.differs
        assert finding.revision.digest == revision.digest
    await postgres.close()
