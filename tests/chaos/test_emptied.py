"""Redis emptied under load: counters come back, and no limit is passed meanwhile."""

import asyncio
from pathlib import Path

import pytest

from tests.chaos.emptied import Plan, run, table

PATIENCE_S = 400
# What is asked is asked until it is answered: on a machine that cannot keep up, for ever.
RUN_MAX_S = PATIENCE_S - 40


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
async def test_counters_come_back_and_no_limit_is_passed(tmp_path: Path, seed: int) -> None:
    """What callers were granted is what the ledger has and what the counters hold, to the unit."""
    async with asyncio.timeout(RUN_MAX_S):
        found = await run(tmp_path, Plan(seed, tenants=200, seconds=4.0, per_s=800.0, limit=15))
    assert found.wrong == [], table(found)
    assert found.refused
    assert len(found.open_s) == 1


@pytest.mark.faults_long
@pytest.mark.timeout(PATIENCE_S)
async def test_counters_of_many_tenants_come_back_twice(tmp_path: Path, seed: int) -> None:
    """The same for ten thousand tenants with usage, emptied once more while it is rebuilt again."""
    plan = Plan(seed, tenants=10_000, seconds=30.0, limit=200, times=2)
    async with asyncio.timeout(RUN_MAX_S):
        found = await run(tmp_path, plan)
    assert found.wrong == [], table(found)
    assert found.refused
    assert len(found.open_s) == 2
