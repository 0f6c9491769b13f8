"""Disasters on real servers under load, one by one: what callers were told is what is there."""

import pytest

from tests.chaos.seeds import fault_seed
from tests.operating.disasters import DISASTERS, Disaster
from tests.operating.rehearsal import Plan, line
from tests.operating.rehearse import open_folder, run

PATIENCE_S = 900


@pytest.mark.faults_long
@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("disaster", DISASTERS, ids=lambda each: each.name)
async def test_a_disaster_is_cured(disaster: Disaster) -> None:
    """By the steps of the page: nothing is lost that may not be, and nothing is in the end."""
    with open_folder() as folder:
        [result] = await run(folder, Plan(fault_seed(), 150.0, (disaster,)))
    assert result.wrong == [], line(result)
    assert result.steps
