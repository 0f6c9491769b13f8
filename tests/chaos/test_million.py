"""Made-up usage, repeated, late, in any order, while all is killed: exactly what was made."""

from pathlib import Path

import pytest

from tests.chaos.made import Recipe, make
from tests.chaos.million import SHAPE, run, table

EVENTS = 8_000
NOW_US = 1_795_168_800_000_000
PATIENCE_S = 400


@pytest.mark.faults_long
@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
async def test_ledger_rollups_counters_and_messages_are_what_was_made(
    tmp_path: Path, seed: int
) -> None:
    """Every process is killed at some time; each event is stored, counted and told once."""
    ran = await run(tmp_path, Recipe(seed, EVENTS), SHAPE)
    assert ran.right, table(ran)
    assert ran.kills
    assert ran.replayed


def test_a_recipe_makes_the_same_usage_again() -> None:
    """The same seed makes the same events in the same order, and another one others."""
    first, again = make(Recipe(5, 500), NOW_US), make(Recipe(5, 500), NOW_US)
    assert first == again
    assert first.sends != make(Recipe(6, 500), NOW_US).sends


def test_expectations_agree_with_each_other() -> None:
    """Each rollup adds up to all that is accepted; repeats and refusals are in none."""
    made = make(Recipe(7, 2_000, too_late=0.05), NOW_US)
    accepted = [*made.accepted()]
    assert made.refused
    assert len(accepted) + len(made.refused) == 2_000
    for unit in ("minute", "hour", "day"):
        buckets = made.buckets(unit).values()
        assert sum(count for count, *_ in buckets) == len(accepted)
        assert sum(units for _, units, *_ in buckets) == sum(made.amounts[n] for n in accepted)
    assert sum(made.counters().values()) < sum(made.amounts[n] for n in accepted)
