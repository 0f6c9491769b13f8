"""More calls than can be answered: goodput, fairness, health, and the time afterwards.

The sidecar's capacity is set by a late network to its Redis, so that what is measured is its queue
and not the machine; every statement compares figures of one run.
"""

import asyncio
from pathlib import Path
from statistics import median

import pytest

from tests.faults.overload_callers import CHANNELS, PATIENCE_S, Taken, call, connected
from tests.faults.overload_world import ROOM, Busy, busy
from tests.servers import eventually

TENANTS = [f"tenant-{n}" for n in range(10)]
# Waiting for an answer, these keep the pipelines full and the queue short.
ENOUGH = 12
# So many find the queue full all the time, and are refused as fast as they ask.
FLOOD = 60
IMPATIENT_S = 1.0
TURNS = 3


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seconds", [2.0, pytest.param(20.0, marks=pytest.mark.faults_long)])
async def test_ten_times_too_much(redis_url: str, tmp_path: Path, seconds: float) -> None:
    """Goodput stays, health stays, and calls afterwards are as before: nothing storms.

    Those in overload do not mind the pushback: what saves the sidecar is its own doing.
    """
    async with busy(redis_url, tmp_path) as it:
        [callers] = it.callers
        first = await callers.load(TENANTS, ENOUGH, seconds)
        before, shares, late, afterwards = first, [], [], []
        # In turns, so that a moment in which the machine does something else decides nothing.
        for _ in range(TURNS):
            flood = await callers.load(
                TENANTS, FLOOD, seconds, ops_port=it.process.ops_port, patience_s=IMPATIENT_S
            )
            assert flood.healthy > 0
            assert flood.ends["UNAVAILABLE"] > flood.answered
            assert len(flood.pushbacks_ms) == flood.ends["UNAVAILABLE"]
            after = await callers.load(TENANTS, ENOUGH, seconds)
            assert before.ends.keys() == after.ends.keys() == {"OK"}
            shares.append(flood.answered / before.answered)
            late.append(flood.ends["DEADLINE_EXCEEDED"] / flood.answered)
            afterwards.append(after)
            before = after
        assert median(shares) >= 0.8
        # Nobody is left to wait until it is too late: what cannot be answered is refused.
        assert median(late) <= 0.1
        assert median(after.answered for after in afterwards) >= 0.8 * first.answered
        slowness = median(after.quantile_s(0.5) for after in afterwards)
        assert slowness <= 2 * first.quantile_s(0.5)


@pytest.mark.faults_long
@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_callers_who_mind_the_pushback_hardly_retry(redis_url: str, tmp_path: Path) -> None:
    """Told when to come back, they come back when there is room: no storm, and later ones later."""
    async with busy(redis_url, tmp_path) as it:
        [callers] = it.callers
        deaf = await callers.load(TENANTS, FLOOD, 3.0)
        minding = await callers.load(TENANTS, FLOOD, 6.0, listens=True)
        assert minding.answered / 6.0 >= 0.8 * deaf.answered / 3.0
        # Per call that was answered, a small part of the refusals that deaf callers get.
        refused = minding.ends["UNAVAILABLE"] / minding.answered
        assert refused <= 0.25 * deaf.ends["UNAVAILABLE"] / deaf.answered
        assert len({*minding.pushbacks_ms}) > len(minding.pushbacks_ms) / 4
        assert max(deaf.pushbacks_ms) > 4 * min(deaf.pushbacks_ms)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.faults_long
async def test_one_hot_tenant_leaves_others_alone(redis_url: str, tmp_path: Path) -> None:
    """Others wait for a turn or two, not for its queue; what is refused is the hot one's."""
    async with busy(redis_url, tmp_path, processes=2) as it:
        others, flooders = it.callers
        alone = await others.load(TENANTS, 2, 2.0)
        flooding = asyncio.create_task(flooders.load(["hot"], FLOOD, 6.0))
        await eventually(lambda: flooding.done() or _shed(it) > 0, 30.0, what="a flood")
        cold = await others.load(TENANTS, 2, 3.0)
        hot = await flooding
        assert cold.ends.keys() == {"OK"}
        assert hot.ends["UNAVAILABLE"] > 0
        # A pipeline holds four: two of the hot one's may be ahead, and the one that is under way.
        assert cold.quantile_s(0.5) <= 4 * alone.quantile_s(0.5)
        assert cold.quantile_s(0.5) <= hot.quantile_s(0.5) / 2


def _shed(it: Busy) -> float:
    value = it.process.metrics.registry.get_sample_value("tallygate_admit_queue_refused_total")
    return value or 0.0


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_a_herd_is_served_in_turns(redis_url: str, tmp_path: Path) -> None:
    """A window begins and all tenants come at once: each gets its share, none gets everything."""
    async with (
        busy(redis_url, tmp_path, processes=0) as it,
        connected(it.process.grpc_addresses[0]) as stubs,
    ):
        taken = {tenant: Taken() for tenant in [*TENANTS, "hot"]}
        # The hot one is there first, with four times the queue's room.
        calls = [
            call(stubs[n % CHANNELS], "hot", taken["hot"], PATIENCE_S) for n in range(4 * ROOM)
        ]
        calls += [
            call(stubs[n % CHANNELS], tenant, taken[tenant], PATIENCE_S)
            for n in range(2)
            for tenant in TENANTS
        ]
        await asyncio.gather(*calls)
        assert [taken[tenant].answered for tenant in TENANTS] == [2] * len(TENANTS)
        assert taken["hot"].ends["UNAVAILABLE"] >= 2 * ROOM
