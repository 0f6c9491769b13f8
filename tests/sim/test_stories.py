"""Single faults, told one by one: what a caller, the ledger and a destination see of each.

Faults 3, 4, 6, 10, 11, 16, 18, 33 and 34; the oracle judges the end of each story as well.
"""

import asyncio
from collections import Counter
from typing import Final

import pytest

from tallygate.domain.window import HOUR_US, Period
from tests.builders import REQUESTS, window
from tests.oracle.facts import Answer, Call, Held, Row
from tests.sim import calls
from tests.sim.plan import STEP_US_MAX
from tests.sim.run import LOOK_S, START_US, shards_open
from tests.sim.small import Small, told
from tests.sim.workload import TTL_S, TTL_US

LIMIT: Final = 5
HOURLY: Final = (window("hourly", LIMIT, period=Period.HOUR),)
# Longer than a relay's lease and its backoff.
STOPPED_S: Final = 6.0
# A supervisor, a breaker's probes and a rebuilding have done their work by then.
AFTER_S: Final = 5.0


async def charge(small: Small, name: str, units: int = 1, who: str = "beta") -> Call:
    """Charge, and insist."""
    return await small.caller.insist(calls.consume(who, name, ((REQUESTS, units),)), small.sidecar)


async def recorded(small: Small, name: str) -> Call:
    """Record one unit, once."""
    return await small.caller.once(calls.record("beta", name, REQUESTS, 1), small.sidecar)


def by_hour(rows: tuple[Row, ...]) -> Counter[int]:
    """Return the units per hour of acceptance."""
    units: Counter[int] = Counter()
    for row in rows:
        units[row.received_us // HOUR_US] += row.amount
    return units


def test_a_relay_that_slept_through_its_lease_marks_nothing() -> None:
    """Its late mark is refused by the lease's token; no message is told under two ids."""

    async def story(small: Small) -> None:
        await charge(small, "op")
        small.relay.start()
        first = small.relay.life
        assert first is not None
        destination = small.world.destinations[0]
        destination.hung = 1.0
        while not destination.taken:
            await asyncio.sleep(LOOK_S)
        first.process.stop()
        destination.hung = 0.0
        small.relay.start()
        await asyncio.sleep(STOPPED_S)
        first.process.go_on()
        await small.drained()

    history = told(story)
    assert {each.destination for each in history.rest.taken} == {"one", "two"}


def test_a_commit_of_unknown_result_is_tried_again() -> None:
    """Fault 18: the ledger commits, the answer is lost: the same batch again changes nothing."""

    async def story(small: Small) -> None:
        small.world.postgres.faults.lost_replies = 1.0
        for number in range(LIMIT):
            await charge(small, f"op-{number}")
        await asyncio.sleep(AFTER_S)
        assert len(small.world.database.ledger.events) == LIMIT
        assert small.world.told.counts["persisted"] == 0, "nobody heard of the commits"
        small.world.postgres.faults.heal()

    assert len(told(story).rest.ledger) == LIMIT


def test_a_lost_consumer_group_loses_no_entry() -> None:
    """Fault 16: entries that were read and not acknowledged are read again, from the first on."""

    async def story(small: Small) -> None:
        small.world.postgres.faults.down = True
        await charge(small, "op-1")
        await asyncio.sleep(LOOK_S)
        small.world.state.streams.lose_group()
        await charge(small, "op-2")
        small.world.postgres.faults.heal()

    assert len(told(story).rest.ledger) == 2


@pytest.mark.parametrize("fault", ["full", "failing"])
def test_a_disk_that_fails_is_not_promised(fault: str) -> None:
    """Fault 6: replies say REDIS while the disk fails, and JOURNAL again when it does not."""
    heard: list[Held] = []

    async def story(small: Small) -> None:
        heard.append((await recorded(small, "before")).held)
        setattr(small.sidecar.disk, fault, True)
        heard.append((await recorded(small, "during")).held)
        small.world.redis.faults.down = True
        while (call := await recorded(small, "without")).answer is not Answer.OPEN:
            raise AssertionError(f"neither Redis nor the disk has it: {call}")
        small.world.redis.faults.heal()
        small.sidecar.disk.heal()
        await asyncio.sleep(AFTER_S)
        heard.append((await recorded(small, "after")).held)
        assert (await recorded(small, "without")).answer is Answer.GRANTED

    told(story)
    assert heard == [Held.JOURNAL, Held.REDIS, Held.JOURNAL]


def test_what_was_synced_survives_the_loss_of_power() -> None:
    """Fault 4: usage recorded without Redis is there after the power was lost."""

    async def story(small: Small) -> None:
        small.world.redis.faults.down = True
        while (await recorded(small, "op")).answer is not Answer.GRANTED:
            await asyncio.sleep(LOOK_S)
        assert small.caller.record[-1].held is Held.JOURNAL
        assert small.sidecar.life is not None
        small.sidecar.life.process.kill()
        small.sidecar.disk.lose_power()
        small.world.redis.faults.heal()

    assert [row.event for row in told(story).rest.ledger] == ["op"]


@pytest.mark.parametrize("lost", ["emptied", "replaced by an old copy"])
def test_a_strict_limit_holds_though_redis_loses_its_data(lost: str) -> None:
    """Faults 10 and 11: after the rebuilding a limit stands where it stood."""

    async def story(small: Small) -> None:
        old = small.world.state.copy()
        for number in range(LIMIT - 1):
            assert (await charge(small, f"op-{number}")).answer is Answer.GRANTED
        if lost == "emptied":
            small.world.state.flush()
        else:
            small.world.state.become(old)
        answers = [(await charge(small, f"more-{number}")).answer for number in range(3)]
        assert answers == [Answer.GRANTED, Answer.REFUSED, Answer.REFUSED]
        assert shards_open(small.world)

    history = told(story, (window("strict", LIMIT),))
    assert sum(row.amount for row in history.rest.ledger) == LIMIT


def test_a_reservation_is_held_on_though_redis_is_emptied() -> None:
    """Fault 33: what a sidecar has reserved it reserves again, for what is left of the time."""

    async def story(small: Small) -> None:
        held = await small.caller.insist(
            calls.reserve("beta", "hold", REQUESTS, LIMIT, TTL_US * 10), small.sidecar
        )
        small.world.state.flush()
        assert (await charge(small, "op")).answer is Answer.REFUSED
        reservation = held.decision.partition(" ")[0]
        done = calls.commit("beta", "done", reservation, (str(REQUESTS), LIMIT - 1))
        assert (await small.caller.insist(done, small.sidecar)).answer is Answer.GRANTED
        assert (await charge(small, "op-2")).answer is Answer.GRANTED

    history = told(story, (window("strict", LIMIT),))
    assert sum(row.amount for row in history.rest.ledger) == LIMIT


def test_a_reservation_whose_owner_died_comes_back_at_its_end() -> None:
    """Fault 33: nobody settles it; its units are free when its time is over, and not before."""

    async def story(small: Small) -> None:
        await small.caller.insist(
            calls.reserve("beta", "hold", REQUESTS, LIMIT, TTL_US), small.sidecar
        )
        assert (await charge(small, "op-1")).answer is Answer.REFUSED
        await asyncio.sleep(TTL_S)
        assert (await charge(small, "op-2", LIMIT)).answer is Answer.GRANTED

    told(story, (window("strict", LIMIT),))


@pytest.mark.parametrize("skew_us", [0, HOUR_US, -HOUR_US])
def test_redis_time_decides_at_the_edge_of_a_window(skew_us: int) -> None:
    """Fault 34: whatever a sidecar's own clock says, each hour has its limit, once."""

    async def story(small: Small) -> None:
        small.sidecar.step_clock(skew_us)
        for number in range(4 * LIMIT):
            await charge(small, f"op-{number}")
            await asyncio.sleep(2 * LOOK_S)

    edge_s = 4 * LIMIT * LOOK_S
    history = told(story, HOURLY, START_US + HOUR_US - round(edge_s * 1_000_000))
    assert sorted(by_hour(history.rest.ledger).values()) == [LIMIT, LIMIT]


@pytest.mark.parametrize("steps_us", [(HOUR_US, 0), (-STEP_US_MAX, 0), (HOUR_US, -HOUR_US)])
def test_a_step_of_the_clock_passes_no_limit(steps_us: tuple[int, int]) -> None:
    """Fault 34: Redis' clock is set forward or back: no hour has more than its limit."""

    async def story(small: Small) -> None:
        clock = small.world.state.clock
        for step_us in (0, *steps_us):
            clock.ahead_us = step_us
            for number in range(LIMIT + 2):
                await charge(small, f"op-{step_us}-{number}-{clock.now_us()}")
        clock.ahead_us = max(steps_us)

    history = told(story, HOURLY, START_US + HOUR_US // 2)
    assert max(by_hour(history.rest.ledger).values()) <= LIMIT
