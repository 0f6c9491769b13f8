"""Usage is looked at hour by hour, by whoever runs, once the ledger has it."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from typing import cast

import pytest

from tallygate.adapters.postgres.anomalies import PostgresAnomalies
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.anomaly import Direction, Options, Used
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import HOUR_US
from tallygate.flow.anomaly import (
    AnomalyParts,
    FindAnomalies,
    LookBack,
    SettledByStream,
    look_back,
)
from tallygate.ports import LedgerBatch, ShardDepth, UsageStream
from tallygate.ports.anomaly import AnomalyBacklog, SeriesKey
from tallygate.testing.anomaly import FakeAnomalies
from tallygate.testing.ledger import FakeLedger
from tests.anomaly_usage import MONDAY, WEEK, busy
from tests.servers import connection
from tests.usage_events import event

ACME = SeriesKey(TenantId("acme"), MeterName("requests"))
OPTIONS = Options(events_min=1)
SPIKE = MONDAY + 5 * WEEK + 13


@dataclass(slots=True)
class World:
    """A ledger's usage, and a clock of how far it is complete."""

    ledger: FakeLedger = field(default_factory=FakeLedger)
    settled: int = 0
    told: list[tuple[str, object]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    store: FakeAnomalies = field(init=False)

    def __post_init__(self) -> None:
        """Keep anomalies of that ledger."""
        self.store = FakeAnomalies(self.ledger)
        self.ledger.wanted.add("usage.anomaly")

    async def settled_us(self) -> int:
        """Return an instant before which all that was accepted is in the ledger."""
        return self.settled

    def looked(self, hours: int, found: dict[str, int]) -> None:
        """Note it."""
        self.told.append(("looked", (hours, found)))

    def behind(self, backlog: AnomalyBacklog, until_hour: int) -> None:
        """Note it."""
        self.told.append(("behind", until_hour - backlog.next_hour))

    def find(self) -> FindAnomalies:
        """Return the step of another process."""
        return FindAnomalies(AnomalyParts(self.store, self, self), OPTIONS)

    async def use(self, usage: Mapping[int, Used], key: SeriesKey = ACME) -> None:
        """Store usage, one event an hour."""
        await self.ledger.persist(LedgerBatch(events_of(usage, self.numbers, key)))

    def settle(self, hour: int) -> None:
        """Have everything before an hour be complete."""
        self.settled = hour * HOUR_US + 5 * 60_000_000


def events_of(
    usage: Mapping[int, Used], numbers: Iterator[int], key: SeriesKey
) -> tuple[UsageEvent, ...]:
    """Return an event for each hour's units."""
    return tuple(
        event(
            next(numbers),
            tenant_id=key.tenant_id,
            meter=key.meter,
            amount=each.units,
            event_time_us=hour * HOUR_US + 1,
        )
        for hour, each in usage.items()
    )


def weeks(number: int = 6) -> dict[int, Used]:
    """Return some weeks' usage with a spike in the sixth."""
    usage = busy(0, range(MONDAY, MONDAY + number * WEEK))
    usage[SPIKE] = Used(usage[SPIKE].units * 6, 1)
    return usage


async def run_all(find: FindAnomalies) -> tuple[int, int]:
    """Run until there is no more to do; return the hours looked at and anomalies found."""
    hours, found = 0, 0
    while True:
        counts = await find.run_once()
        hours, found = hours + counts.hours, found + counts.found
        if not counts.more:
            return hours, found


async def test_history_is_looked_at_and_not_told() -> None:
    """A new installation learns the past weeks; what was unusual long ago is noted, not told."""
    world = World()
    await world.use(weeks())
    world.settle(MONDAY + 6 * WEEK)
    assert await run_all(world.find()) == (6 * WEEK, 1)
    assert [hour for _, hour in world.store.noted] == [SPIKE]
    assert world.store.messages == []
    assert ("behind", 0) in world.told
    assert await run_all(world.find()) == (0, 0)


async def test_an_unusual_hour_is_told_when_it_is_over() -> None:
    """Hour by hour, the spike is told once, in the run after its end."""
    world = World()
    usage = weeks()
    await world.use({hour: used for hour, used in usage.items() if hour < SPIKE})
    world.settle(SPIKE)
    find = world.find()
    await run_all(find)
    await world.use({SPIKE: usage[SPIKE]})
    assert await run_all(find) == (0, 0)
    world.settle(SPIKE + 1)
    assert await run_all(find) == (1, 1)
    await world.use({hour: used for hour, used in usage.items() if hour > SPIKE})
    world.settle(SPIKE + 12)
    await run_all(find)
    ((key, found),) = world.store.messages
    assert (key, found.hour, found.direction) == (ACME, SPIKE, Direction.HIGH)
    assert found.used.units == usage[SPIKE].units


async def test_late_usage_is_told_once() -> None:
    """Usage that comes hours late is found at the second look; what comes later still is not."""
    world = World()
    usage = weeks()
    spike = usage.pop(SPIKE)
    await world.use(usage)
    usual = Used(spike.units // 6, 1)
    await world.use({SPIKE: usual})
    world.settle(SPIKE + 2)
    find = world.find()
    assert await run_all(find) == (SPIKE + 2 - MONDAY, 0)
    await world.use({SPIKE: Used(spike.units - usual.units, 1)})
    world.settle(SPIKE + 12)
    assert await run_all(find) == (10, 1)
    ((_, found),) = world.store.messages
    assert (found.hour, found.late, found.used.units) == (SPIKE, True, spike.units)
    await world.use({SPIKE: spike, SPIKE + 1: spike})
    world.settle(SPIKE + 24)
    assert (await run_all(find))[1] == 0


async def test_two_processes_look_at_each_hour_once() -> None:
    """Two that run at once share the series, and find what one would have found."""
    world = World()
    for number in range(5):
        await world.use(weeks(), SeriesKey(TenantId(f"t{number}"), ACME.meter))
    world.settle(MONDAY + 6 * WEEK)
    first, second = await asyncio.gather(run_all(world.find()), run_all(world.find()))
    assert first[0] + second[0] == 5 * 6 * WEEK
    assert first[1] + second[1] == 5
    assert {each.next_hour for each in world.store.series.values()} == {MONDAY + 6 * WEEK}


async def test_an_hour_waits_for_the_ledger() -> None:
    """While the ledger may lack usage of an hour, that hour is not looked at."""
    world = World()
    await world.use(busy(0, range(MONDAY, MONDAY + WEEK)))
    world.settled = (MONDAY + 10) * HOUR_US + 5 * 60_000_000 - 1
    assert await run_all(world.find()) == (9, 0)


async def test_what_has_ended_is_not_begun() -> None:
    """A meter without usage for a week is no series; one that falls silent is forgotten."""
    world = World()
    await world.use(busy(0, range(MONDAY, MONDAY + 2 * WEEK)))
    world.settle(MONDAY + 3 * WEEK)
    assert await run_all(world.find()) == (0, 0)
    world.settle(MONDAY + 2 * WEEK)
    await run_all(world.find())
    assert set(world.store.series) == {ACME}
    world.settle(MONDAY + 5 * WEEK)
    await run_all(world.find())
    assert world.store.series == {}


async def test_streams_say_how_far_the_ledger_is() -> None:
    """The oldest entry that waits bounds what is settled; where none waits, it is now."""

    class Stream:
        def __init__(self, *oldest: int) -> None:
            self.oldest = oldest

        async def now_us(self) -> int:
            return 1_000

        async def depths(self) -> list[ShardDepth]:
            return [ShardDepth(number, 1, 0, at) for number, at in enumerate(self.oldest)]

    for oldest, settled in (((), 1_000), ((0, 0), 1_000), ((0, 700, 900), 700)):
        stream = Stream(*oldest)
        found = SettledByStream(cast(UsageStream, stream))
        assert await found.settled_us() == settled


async def test_looking_back_finds_what_the_loop_finds() -> None:
    """By the same options the same hours are found, and known as noted; nothing changes."""
    world = World()
    await world.use(weeks())
    await world.use(
        busy(0, range(MONDAY, MONDAY + WEEK)), SeriesKey(ACME.tenant_id, MeterName("z"))
    )
    world.settle(MONDAY + 6 * WEEK)
    before = await look_back(world.store, asked(OPTIONS))
    assert [(each.finding.hour, each.noted) for each in before.recalled] == [(SPIKE, False)]
    await run_all(world.find())
    after = await look_back(world.store, asked(OPTIONS))
    assert [(each.finding.hour, each.noted) for each in after.recalled] == [(SPIKE, True)]
    assert after.hours == 2 * WEEK
    closer = await look_back(world.store, asked(Options(Fraction(1, 10), 1)))
    assert len(closer.recalled) > 1
    assert len(world.store.noted) == 1


def asked(options: Options) -> LookBack:
    """Return a look back at the fifth and the sixth week."""
    start, end = (MONDAY + 4 * WEEK) * HOUR_US, (MONDAY + 6 * WEEK) * HOUR_US
    return LookBack(ACME.tenant_id, ACME.meter, start, end, options)


@pytest.mark.slow
async def test_two_processes_on_postgres(postgres_dsn: str) -> None:
    """On a real ledger two processes look at each hour once, and one message tells of the spike."""
    world = World()
    postgres = [Postgres(postgres_dsn) for _ in range(2)]
    async with connection(postgres_dsn) as admin:
        await admin.execute(
            "insert into tallygate.destination (name, kind, url, types)"
            " values ('hook', 'webhook', 'http://127.0.0.1', '{usage.anomaly}')"
        )
    ledger = PostgresLedger(postgres[0])
    for number in range(3):
        key = SeriesKey(TenantId(f"t{number}"), ACME.meter)
        await ledger.persist(LedgerBatch(events_of(weeks(), world.numbers, key)))
    world.settle(SPIKE + 1)
    finds = [
        FindAnomalies(AnomalyParts(PostgresAnomalies(each), world, world), OPTIONS)
        for each in postgres
    ]
    done = await asyncio.gather(*map(run_all, finds))
    assert sum(hours for hours, _ in done) == 3 * (SPIKE + 1 - MONDAY)
    assert sum(found for _, found in done) == 3
    async with connection(postgres_dsn) as admin:
        rows = await admin.fetch("select aggregateid from tallygate.outbox order by aggregateid")
        noted = await admin.fetchval("select count(*) from tallygate.usage_anomaly")
    assert [row["aggregateid"] for row in rows] == ["t0", "t1", "t2"]
    assert noted == 3
    for each in postgres:
        await each.close()
