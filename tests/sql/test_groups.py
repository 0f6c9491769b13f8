"""Groups of rollups: how many there are, who may write them, and two who make them at once."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.period_usage import PostgresPeriodUsage
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.errors import RollupsIncomplete, StorageFault
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.rollup import GROUPS_MAX, OTHER, shape_of
from tallygate.domain.sketch import slot_of
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, Window
from tallygate.ports import LedgerBatch
from tests.property.test_group_rollups import rebuilt
from tests.servers import connection
from tests.sql.test_append_only import as_role
from tests.usage_events import NOON_US, event

ACME = TenantId("acme")
METER = Meter(MeterName("requests"), group_by=("user",))
WINDOW = Window(NOON_US, NOON_US + MINUTE_US)
LEVELS = Meter(METER.name, Aggregation.TIME_WEIGHTED)


@pytest.fixture
async def postgres(postgres_dsn: str) -> AsyncIterator[Postgres]:
    """A ledger whose meter groups by user."""
    found = Postgres(postgres_dsn)
    await PostgresRollups(found).switch(METER.name, shape_of(METER))
    yield found
    await found.close()


async def store(ledger: PostgresLedger, first: int, last: int, **fields: object) -> None:
    """Store an event of each of these users."""
    events = tuple(
        event(number, dimensions={"user": f"user-{number}"}, **fields)
        for number in range(first, last)
    )
    await ledger.persist(LedgerBatch(events))


async def test_groups_are_bounded(postgres: Postgres, postgres_dsn: str) -> None:
    """Of two who make them at once, too; all beyond are one group, now and made anew."""
    half = GROUPS_MAX // 2 + 7
    await asyncio.gather(
        store(PostgresLedger(postgres), 0, half),
        store(PostgresLedger(postgres), half, 2 * half),
        store(PostgresLedger(postgres), 10 * half, 10 * half + 3, tenant_id=TenantId("few")),
    )
    await store(PostgresLedger(postgres), 3 * half, 3 * half + 5)
    reader, rollups = PostgresPeriodUsage(postgres), PostgresRollups(postgres)
    before = await reader.of_windows(ACME, METER, [WINDOW], ["user"])
    assert len(before) == GROUPS_MAX + 1
    assert sum(usage.count for usage in before) == 2 * half + 5
    (other,) = [usage for usage in before if usage.group == (("user", OTHER),)]
    assert other.quantity == 2 * half + 5 - GROUPS_MAX
    assert len(await reader.of_windows(TenantId("few"), METER, [WINDOW], ["user"])) == 3
    day_us = NOON_US - NOON_US % DAY_US
    await rebuilt(rollups, METER.name, Window(day_us, day_us + DAY_US), None)
    assert await reader.of_windows(ACME, METER, [WINDOW], ["user"]) == before
    async with connection(postgres_dsn) as admin:
        groups = "select count(*) from tallygate.rollup_group where tenant_id = 'acme'"
        assert await admin.fetchval(groups) == GROUPS_MAX + 1


async def test_slots_are_those_of_the_domain(postgres_dsn: str) -> None:
    """Python and Postgres find the same slot, beside every power of two."""
    amounts = sorted({2**bits + near for bits in range(54) for near in (-1, 0, 1)} - {0})
    async with connection(postgres_dsn) as admin:
        found = await admin.fetch(
            "select tallygate.sketch_slot(amount) as slot from unnest($1::bigint[])"
            " with ordinality as each (amount, place) order by place",
            amounts,
        )
    assert [int(row["slot"]) for row in found] == [slot_of(amount) for amount in amounts]


async def test_what_is_not_whole_is_not_read(postgres: Postgres) -> None:
    """A number that lacks usage is never given; a tenant without the meter misses nothing."""
    await store(PostgresLedger(postgres), 0, 3)
    rollups, reader = PostgresRollups(postgres), PostgresPeriodUsage(postgres)
    with pytest.raises(RollupsIncomplete, match="requests"):
        await reader.of_windows(ACME, LEVELS, [WINDOW])
    await rollups.switch(METER.name, shape_of(LEVELS))
    with pytest.raises(RollupsIncomplete, match="requests"):
        await reader.of_windows(ACME, LEVELS, [WINDOW])
    assert await reader.of_windows(TenantId("nobody"), LEVELS, [WINDOW]) == []
    # Without groups the rollups that every meter has say it, whatever is being made.
    (found,) = await reader.of_windows(ACME, Meter(METER.name), [WINDOW])
    assert found.quantity == 3


async def test_roles_may_do_their_part(postgres_dsn: str) -> None:
    """The ingester adds to groups, control makes them anew, and neither does the other's work."""
    await apply_roles(postgres_dsn)
    ingest = Postgres(as_role(postgres_dsn, "tallygate_ingest"))
    control = Postgres(as_role(postgres_dsn, "tallygate_control"))
    read = Postgres(as_role(postgres_dsn, "tallygate_read"))
    try:
        rollups, ledger = PostgresRollups(control), PostgresLedger(ingest)
        for number, aggregation in enumerate(Aggregation):
            name = MeterName(aggregation)
            by = "user" if aggregation is Aggregation.UNIQUE else ""
            meter = Meter(name, aggregation, unique_by=by, group_by=("region",))
            await rollups.switch(name, shape_of(meter))
            await store(ledger, 10 * number, 10 * number + 3, meter=name)
            assert await rebuilt(rollups, name, Window(NOON_US, NOON_US + HOUR_US), None)
            found = await PostgresPeriodUsage(read).of_windows(ACME, meter, [WINDOW])
            assert [usage.count for usage in found] == [3]
            await rollups.switch(name, None)
        assert await rollups.purge(100) == len(Aggregation)
        with pytest.raises(StorageFault):
            await PostgresRollups(ingest).switch(METER.name, shape_of(METER))
        with pytest.raises(StorageFault):
            await PostgresRollups(read).purge(1)
    finally:
        for each in (ingest, control, read):
            await each.close()


async def test_a_step_is_of_whole_hours(postgres: Postgres) -> None:
    """Others would leave a part of an hour out."""
    rollups = PostgresRollups(postgres)
    with pytest.raises(Exception, match="InvalidParameterValue"):
        await rebuilt(rollups, METER.name, Window(NOON_US, NOON_US + MINUTE_US), None)
