"""Rollups of groups are held against the events that a period is folded from."""

import json
from dataclasses import replace

import pytest

from tallygate.domain.catalog import Meter
from tallygate.domain.period import GRACE_US, Held, PeriodState
from tests.periods.folded import BY_REGION, LEVELS, UNIQUE, frozen, odd, used, verified
from tests.periods.world import ACME, MID_OCTOBER, NOVEMBER, OCTOBER, PeriodWorld, tenant
from tests.servers import connection


@pytest.mark.parametrize(
    ("meter", "planted"),
    [
        (UNIQUE, "update tallygate.group_part set units = 0"),
        (BY_REGION, "update tallygate.group_usage set sum = sum + 1"),
        (LEVELS, "update tallygate.group_usage set last = last + 1"),
    ],
    ids=lambda each: getattr(each, "aggregation", ""),
)
async def test_what_rollups_say_otherwise_is_held(
    world: PeriodWorld, meter: Meter, planted: str
) -> None:
    """Of two numbers nobody chooses: the period waits, until an operator says to go by events."""
    await odd(world, meter, rolled=True)
    await world.declare([tenant()])
    await world.store(used(world, MID_OCTOBER, 5, "ann"))
    async with connection(world.dsn) as admin:
        await admin.execute(planted)
    await world.run(NOVEMBER)
    await world.run(NOVEMBER + GRACE_US)
    october = await world.reader.period(ACME, OCTOBER)
    assert october is not None
    assert (october.state, october.held) == (PeriodState.SEALED, Held.TOTALS_DIFFER)
    assert await frozen(world, OCTOBER) == {}
    await world.desk.ask_close(world.asked(OCTOBER), accept_missing=True)
    assert (await world.run(NOVEMBER + GRACE_US)).closed == 1
    assert len(await frozen(world, OCTOBER)) == 1
    assert await verified(world) == 1


async def test_closing_tells_each_group(world: PeriodWorld) -> None:
    """`period.closed` has a row for each group, and fractions of levels with all their digits."""
    await odd(world, replace(LEVELS, group_by=("region",)), rolled=True)
    await world.closed_october(
        used(world, NOVEMBER - 1, 3, "ann"), used(world, NOVEMBER - 2_000_000, 3, "bob")
    )
    ((kind, payload),) = await world.messages()
    assert kind == "period.closed"
    assert json.loads(payload)["data"]["totals"] == [
        {
            "meter": "odd",
            "group": {"region": name},
            "aggregation": "time_weighted",
            "quantity": quantity,
            "count": 1,
        }
        for name, quantity in (("ann", "0.000003"), ("bob", "6"))
    ]
