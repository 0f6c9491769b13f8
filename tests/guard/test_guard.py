"""No call costs half as much again as it did: counted, so that a slow machine fails nothing."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.guard.__main__ import measure, page
from tests.guard.baseline import MORE_MAX, Costs, Verdict, recorded, verdicts
from tests.guard.front import Front
from tests.guard.measure import Measured, measured
from tests.guard.scenes import BATCH, all_scenes

# A fixture measures everything, a hundred times slower than it is.
# `make guard` asks it; a build has no time for it.
pytestmark = [pytest.mark.timeout(400), pytest.mark.faults_long]

AT_ONCE = f"check, {BATCH} at once"


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """What each scene costs now."""
    return asyncio.run(measure(tmp_path_factory.mktemp("guard")))


@pytest.mark.slow
@pytest.mark.parametrize("scene", sorted(recorded()))
def test_a_call_costs_what_it_did(costs: dict[str, Measured], scene: str) -> None:
    """Within the margins; `make guard` shows all figures, and `--where` by function."""
    held = list(verdicts({scene: costs[scene].figures}, recorded()))
    wrong = [str(each) for each in held if each.state != "ok"]
    assert not wrong, "\n".join([*wrong, page(held), costs[scene].table()])


@pytest.mark.slow
def test_every_scene_has_a_baseline(costs: dict[str, Measured]) -> None:
    """A scene that nobody recorded would hold nothing."""
    assert sorted(costs) == sorted(recorded())


@pytest.mark.slow
async def test_a_slowdown_by_half_is_found(tmp_path: Path, costs: dict[str, Measured]) -> None:
    """Planted: three calls are made where two were asked for, so that a call takes 1.5 as much."""
    plain = Front.call

    async def slower(front: Front, method: str, requests: Sequence[bytes]) -> list[bytes]:
        more = [request.replace(b"operation-0", b"operation-1") for request in requests[::2]]
        assert not set(more) & set(requests)
        replies = await plain(front, method, [*requests, *more])
        return replies[: len(requests)]

    async with all_scenes(tmp_path) as scenes:
        [scene] = [each for each in scenes if each.name == AT_ONCE]
        with patch.object(Front, "call", slower):
            found = await measured(scene)
    baselines: Costs = {AT_ONCE: costs[AT_ONCE].figures}
    more = {
        each.count for each in verdicts({AT_ONCE: found.figures}, baselines) if each.state == "more"
    }
    # Commands of the script are for the most part its own, and shared by more calls then.
    assert {"bytecodes", "python calls", "C calls", "bytes to Redis"} <= more


@pytest.mark.parametrize(
    ("now", "was", "state"),
    [
        (100.0, 100.0, "ok"),
        (120.0, 100.0, "ok"),
        (130.0, 100.0, "more"),
        (150.0, 100.0, "more"),
        (75.0, 100.0, "ok"),
        (60.0, 100.0, "less"),
        # One task or command more per call shows, an odd one does not.
        (0.1, 0.0, "ok"),
        (1.0, 0.0, "more"),
        (2.0, 1.0, "more"),
        (3.0, None, "new"),
    ],
)
def test_verdicts(now: float, was: float | None, state: str) -> None:
    """A figure is held against the baseline times the margins."""
    verdict = Verdict("check", "tasks", now, was)
    assert verdict.state == state
    assert replace(verdict, now=150.0, was=100.0).ratio > MORE_MAX


def test_a_slowdown_by_half_is_too_much_on_any_python() -> None:
    """Another compiler makes other bytecodes of the same work, but not half as many again."""
    verdict = Verdict("check", "bytecodes", 150.0, 100.0, foreign=True)
    assert verdict.state == "more"
    assert replace(verdict, now=130.0).state == replace(verdict, now=60.0).state == "ok"


def test_a_verdict_says_what_to_do() -> None:
    """Whoever meets it need not know the guard."""
    assert "--where" in str(Verdict("check", "bytecodes", 150.0, 100.0))
    assert "--record" in str(Verdict("check", "bytecodes", 50.0, 100.0))
    assert "--record" in str(Verdict("check", "bytecodes", 50.0, None))
