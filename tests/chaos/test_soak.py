"""Real processes under faults, for as long as a test may take: the oracle finds nothing wrong."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.chaos.nemesis import DISKS, EVERYTHING, LOSSES, LOSSLESS, PROCESSES
from tests.chaos.outcome import Plan
from tests.chaos.soak import soak

SHORT_S = 12.0
LONG_S = 90.0
PATIENCE_S = 400


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
async def test_nothing_is_lost_or_doubled_under_any_fault(tmp_path: Path, seed: int) -> None:
    """Mixed load, whatever befalls processes, network, servers, disk and Redis' data."""
    outcome = await soak(tmp_path, Plan(seed, SHORT_S))
    assert outcome.faults == []
    assert outcome.strikes


@pytest.mark.faults_long
@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(LOSSLESS, id="data kept"),
        pytest.param(LOSSES, id="data lost"),
        pytest.param({**DISKS, **PROCESSES}, id="disks full"),
        pytest.param(EVERYTHING, id="everything"),
    ],
)
async def test_nothing_is_lost_or_doubled_for_long(
    tmp_path: Path, seed: int, weights: Mapping[str, int]
) -> None:
    """The same for longer, by kinds of faults."""
    outcome = await soak(tmp_path, Plan(seed, LONG_S, weights=weights))
    assert outcome.faults == []
    assert outcome.strikes
