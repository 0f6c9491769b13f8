"""Rollups of groups, added to by several ingesters, are what the ledger's events come to."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Final

import pytest

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.period_usage import PostgresPeriodUsage
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.catalog import Aggregation, Catalog, Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.rollup import shape_of
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Window
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.period_usage import FakePeriodUsage
from tests.servers import connection
from tests.usage_events import NOON_US, event

TENANTS: Final = (TenantId("acme"), TenantId("other"))
METERS: Final = tuple(
    Meter(
        MeterName(f"{aggregation}{len(names)}"),
        aggregation,
        unique_by="user" if aggregation is Aggregation.UNIQUE else "",
        percentile_ppm=900_000 if aggregation is Aggregation.PERCENTILE else 0,
        group_by=names,
    )
    for aggregation in Aggregation
    for names in ((), ("region", "user"))
)
TABLES: Final = {
    "usage": (
        "level, bucket, count, sum, max, min, first_at, area, last_at, last_id, last",
        "group_usage",
    ),
    "part": ("level, bucket, key, units", "group_part"),
    "level": ("at, event_id, amount, arrived", "group_level"),
}


def events_of(chance: Random, count: int) -> list[UsageEvent]:
    """Return events over some days, many at the same instant, some refunded, some come twice."""
    found = []
    for number in range(count):
        at_us = NOON_US - chance.choice((0, 0, 0, DAY_US, 3 * DAY_US))
        at_us += chance.choice((0, MINUTE_US, HOUR_US, 25 * HOUR_US)) * chance.randrange(3)
        found.append(
            event(
                number,
                tenant_id=chance.choice(TENANTS),
                meter=chance.choice(METERS).name,
                amount=chance.choice((1, 2, 100, 2**40, 2**53 - 1)),
                event_time_us=at_us + chance.randrange(90) * SECOND_US,
                dimensions={"user": chance.choice(("a", "b", "ü", ""))},
            )
        )
    for refunded in chance.sample(found, count // 4):
        units = chance.choice((refunded.amount, chance.randint(1, refunded.amount)))
        number = len(found)
        found.append(
            replace(
                refunded,
                event_id=EventId(f"refund-{number}"),
                amount=-units,
                refund_of=refunded.event_id,
                source_seq=number,
            )
        )
    found += chance.sample(found, count // 5)
    chance.shuffle(found)
    return found


async def declared(postgres: Postgres, meters: Sequence[Meter]) -> None:
    """Have meters in effect, and their shapes."""
    catalog = Catalog(meters={meter.name: meter for meter in meters})
    store = PostgresCatalogStore(postgres)
    await store.write(CatalogChange(catalog), (await store.newest()).version)
    rollups = PostgresRollups(postgres)
    for meter in meters:
        await rollups.switch(meter.name, shape_of(meter))


async def rebuilt(
    rollups: PostgresRollups, meter: MeterName, hours: Window, known: Window | None
) -> bool:
    """Make a meter's rollups anew; say whether it has any."""
    numbers = {state.meter: state.number for state in await rollups.shapes()}
    return await rollups.rebuild(numbers[meter], hours, known)


async def stored(postgres: Postgres, chance: Random, events: Sequence[UsageEvent]) -> FakeLedger:
    """Have two ingesters store events at once, in batches of any size; return all of them."""
    batches: list[list[UsageEvent]] = [[]]
    for each in events:
        if chance.random() < 0.1:
            batches.append([])
        batches[-1].append(each)
    queue = list(batches)

    async def ingester() -> None:
        ledger = PostgresLedger(postgres)
        while queue:
            await ledger.persist(LedgerBatch(tuple(queue.pop())))

    await asyncio.gather(ingester(), ingester())
    fake = FakeLedger()
    await fake.persist(LedgerBatch(tuple(events)))
    return fake


async def rows_of(dsn: str) -> dict[str, list[tuple[object, ...]]]:
    """Return all that rollups hold, by the groups' names."""
    async with connection(dsn) as admin:
        return {
            name: sorted(
                (str(tuple(row)),)
                for row in await admin.fetch(
                    "select shape.meter, own.tenant_id, own.group_values::text,"
                    f" {columns} from tallygate.{table}"
                    " join tallygate.rollup_group own using (group_id)"
                    " join tallygate.rollup_shape shape using (shape_id) where shape.active"
                )
            )
            for name, (columns, table) in TABLES.items()
        }


async def same_as_naive(postgres: Postgres, ledger: FakeLedger, chance: Random) -> None:
    """Hold what rollups give against events that are looked at one by one."""
    reader = PostgresPeriodUsage(postgres)
    naive = FakePeriodUsage(ledger, {meter.name: meter for meter in METERS})
    first, last = (NOON_US - 4 * DAY_US) // MINUTE_US, (NOON_US + 4 * DAY_US) // MINUTE_US
    for _ in range(4):
        start, end = sorted(chance.sample(range(first, last), 2))
        for tenant in TENANTS:
            window = (start * MINUTE_US, end * MINUTE_US)
            expected = await naive.of_window(tenant, *window)
            assert await reader.of_window(tenant, *window) == expected
    windows = [
        Window((first + n) * MINUTE_US, (first + n + chance.randrange(1, 2_000)) * MINUTE_US)
        for n in range(0, last - first, 997)
    ]
    for meter in METERS:
        for names in ((), meter.group_by[:1]):
            found_by = await reader.of_windows(TENANTS[0], meter, windows, names)
            assert found_by == await naive.of_windows(TENANTS[0], meter, windows, names)


@pytest.mark.parametrize("seed", range(6))
async def test_rollups_are_what_the_ledger_says(postgres_dsn: str, seed: int) -> None:
    """Late, out of order, twice, refunded, in any batches; made anew, not a row is different."""
    chance = Random(seed)
    postgres = Postgres(postgres_dsn)
    try:
        await declared(postgres, METERS)
        ledger = await stored(postgres, chance, events_of(chance, 400))
        await same_as_naive(postgres, ledger, chance)
        before = await rows_of(postgres_dsn)
        rollups = PostgresRollups(postgres)
        hours = [Window(NOON_US + n * HOUR_US, NOON_US + (n + 5) * HOUR_US) for n in (-80, 3, 0)]
        whole = Window(NOON_US - 5 * DAY_US, NOON_US + 5 * DAY_US)
        for meter in METERS:
            if shape_of(meter) is not None:
                for step in (*hours, whole):
                    assert await rebuilt(rollups, meter.name, step, None)
                    assert step is not whole or await rows_of(postgres_dsn) == before
        assert len(before["usage"]) > 100 < len(before["part"])
        assert len(before["level"]) > 10
    finally:
        await postgres.close()


@pytest.mark.parametrize("seed", range(3))
async def test_shapes_change_while_events_come(postgres_dsn: str, seed: int) -> None:
    """A new shape, made whole in steps while two ingesters store, has every event once."""
    chance = Random(seed)
    postgres = Postgres(postgres_dsn)
    rollups = PostgresRollups(postgres)
    first, last = NOON_US - 5 * DAY_US, NOON_US + 5 * DAY_US
    first -= first % DAY_US
    try:
        events = events_of(chance, 600)
        plain = [Meter(meter.name) for meter in METERS]
        await declared(postgres, plain)
        await stored(postgres, chance, events[:200])

        async def change() -> None:
            for meter in METERS:
                await rollups.switch(meter.name, shape_of(meter))
                for start in range(first, last, 2 * DAY_US):
                    step = Window(start, start + 2 * DAY_US)
                    if shape_of(meter) is not None:
                        await rebuilt(rollups, meter.name, step, step)
                if shape_of(meter) is not None:
                    await rebuilt(rollups, meter.name, Window(first, first + HOUR_US), None)

        await asyncio.gather(stored(postgres, chance, events[200:]), change())
        assert all(state.whole for state in await rollups.shapes())
        store = PostgresCatalogStore(postgres)
        catalog = Catalog(meters={meter.name: meter for meter in METERS})
        await store.write(CatalogChange(catalog), 1)
        ledger = FakeLedger()
        await ledger.persist(LedgerBatch(tuple(events)))
        await same_as_naive(postgres, ledger, chance)
    finally:
        await postgres.close()
