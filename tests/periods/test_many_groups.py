"""More groups than have rollups of their own: those beyond are billed as one, for good."""

from tallygate.domain.catalog import Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName
from tallygate.domain.period import GRACE_US
from tallygate.domain.rollup import GROUPS_MAX, OTHER
from tallygate.flow.verify_periods import VerifyPeriods
from tests.periods.world import ACME, DECEMBER, MID_OCTOBER, NOVEMBER, OCTOBER, PeriodWorld

ODD = MeterName("odd")
MORE = 5


async def test_groups_beyond_are_one(world: PeriodWorld) -> None:
    """The total of `__other__` has them all, and late use of one of them is an adjustment of it."""
    world.meters[ODD] = Meter(ODD, group_by=("user",))
    await world.roll_up()

    def used(user: int, amount: int) -> UsageEvent:
        return world.event(MID_OCTOBER, amount, ODD, dimensions={"user": f"{user:06}"})

    known = [used(user, 1) for user in range(GROUPS_MAX)]
    for start in range(0, GROUPS_MAX, 1_000):
        await world.store(*known[start : start + 1_000])
    beyond = [used(GROUPS_MAX + user, 2) for user in range(MORE)]
    await world.closed_october(*beyond)
    totals = await world.reader.totals(ACME, OCTOBER, 1)
    assert len(totals) == GROUPS_MAX + 1
    other = (("user", OTHER),)
    assert [each.quantity for each in totals if each.group == other] == [2 * MORE]
    await world.store(used(GROUPS_MAX, 3), used(0, 4), used(10**6 - 1, 5))
    await world.run(DECEMBER + GRACE_US)
    late = await world.reader.adjustments(ACME, NOVEMBER, 1)
    assert {each.group: each.quantity for each in late} == {other: 8, (("user", "000000"),): 4}
    verification = VerifyPeriods(world.reader, world.periods, world.folds)
    assert [each.differs async for each in verification.run(None, None)] == [(), ()]
