"""Totals from days, hours and minutes are what the events add up to, whatever the edges."""

import random
from collections import defaultdict

from tallygate.domain.ids import MeterName
from tallygate.domain.period import Figures
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US
from tests.periods.world import ACME, OCTOBER, PEAK, REQUESTS, PeriodWorld
from tests.servers import connection

METERS = (REQUESTS, PEAK)
EDGES = (
    (0, 3 * DAY_US),
    (30 * MINUTE_US, 3 * DAY_US),
    (HOUR_US, 2 * DAY_US + 5 * HOUR_US + 45 * MINUTE_US),
    (23 * HOUR_US + 59 * MINUTE_US, DAY_US + MINUTE_US),
    (5 * HOUR_US + 15 * MINUTE_US, 5 * HOUR_US + 45 * MINUTE_US),
    (5 * HOUR_US, 6 * HOUR_US),
    (5 * HOUR_US + MINUTE_US, 7 * HOUR_US - MINUTE_US),
    (DAY_US, 2 * DAY_US),
    (DAY_US - MINUTE_US, DAY_US + MINUTE_US),
    (7 * MINUTE_US, 8 * MINUTE_US),
)


async def test_any_edges_add_up(world: PeriodWorld) -> None:
    """Over random events, each stretch of whole minutes has the figures of the events in it."""
    chance = random.Random(31)
    events = [
        world.event(
            OCTOBER + chance.randrange(3 * DAY_US), chance.randrange(1, 99), chance.choice(METERS)
        )
        for _ in range(400)
    ]
    events += [
        world.event(OCTOBER + edge + step, 7)
        for pair in EDGES
        for edge in pair
        for step in (-1, 0, 1)
    ]
    await world.store(*events)
    async with connection(world.dsn) as admin:
        for first_us, last_us in EDGES:
            rows = await admin.fetch(
                "select meter, count, sum, max, min from tallygate.usage_between"
                "($1, tallygate.instant($2), tallygate.instant($3))",
                ACME,
                OCTOBER + first_us,
                OCTOBER + last_us,
            )
            expected: defaultdict[MeterName, Figures] = defaultdict(Figures)
            for event in events:
                if OCTOBER + first_us <= event.event_time_us < OCTOBER + last_us:
                    one = Figures(1, event.amount, event.amount, event.amount)
                    expected[event.meter] = expected[event.meter].merged(one)
            found = {row["meter"]: Figures(row[1], int(row[2]), row[3], row[4]) for row in rows}
            assert found == expected
