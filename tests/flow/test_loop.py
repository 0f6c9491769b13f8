"""The loop runs a step until it is told to stop, whatever the step does."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tallygate.domain.errors import BackendUnavailable
from tallygate.flow.loop import Counts, Loop, LoopOptions, backoff_ms


@dataclass(frozen=True, slots=True)
class Done:
    """A run ended."""

    more: bool


@dataclass(slots=True)
class Script:
    """A step that does what a test says, then stops the loop; also its clock and observer."""

    acts: list[bool | Exception]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    told: list[str] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    async def run_once(self) -> Done:
        """Do the next act."""
        self.before()
        act = self.acts.pop(0)
        if not self.acts:
            self.stop.set()
        if isinstance(act, Exception):
            raise act
        return Done(act)

    def now_us(self) -> int:
        """No time passes."""
        return 0

    def monotonic(self) -> float:
        """No time passes."""
        return 0.0

    def ran(self, name: str, seconds: float, counts: Counts) -> None:
        """Keep it."""
        self.told.append(f"{name} ran {counts.more}")

    def failed(self, name: str, error: Exception, delay_s: float) -> None:
        """Keep it."""
        self.told.append(f"{name} failed {type(error).__name__} {delay_s:g}")

    def loop(self, **options: int) -> Loop:
        """Return a loop over this script; its chance is always one half."""
        return Loop("step", self, self, self, LoopOptions(**options, chance=lambda: 0.5))


async def test_runs_until_stopped() -> None:
    """Runs follow each other while there is more, and end when told."""
    script = Script([True, True, False])
    await script.loop(idle_ms=1).run(script.stop)
    assert script.told == ["step ran True", "step ran True", "step ran False"]


async def test_failures_wait_longer_each_time() -> None:
    """A failure ends no loop, be it foreseen or a fault; success starts over."""
    script = Script(
        [
            BackendUnavailable(),
            BackendUnavailable(),
            ValueError("a fault"),
            True,
            KeyError("x"),
            True,
        ]
    )
    await script.loop(backoff_min_ms=1, backoff_max_ms=4).run(script.stop)
    assert script.told == [
        "step failed BackendUnavailable 0.001",
        "step failed BackendUnavailable 0.001",
        "step failed ValueError 0.002",
        "step ran True",
        "step failed KeyError 0.001",
        "step ran True",
    ]


async def test_stop_ends_a_pause_at_once() -> None:
    """A loop that waits an hour for its next run still ends when told."""
    script = Script([False, False])
    task = asyncio.create_task(script.loop(idle_ms=3_600_000).run(script.stop))
    while not script.told:
        await asyncio.sleep(0)
    script.stop.set()
    await asyncio.wait_for(task, 5)
    assert script.told == ["step ran False"]


async def test_cancellation_goes_through() -> None:
    """A cancelled loop is cancelled: it is no failure to try again after."""
    script = Script([False, False])
    task = asyncio.create_task(script.loop(idle_ms=3_600_000).run(script.stop))
    while not script.told:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_busy_loop_lets_others_run() -> None:
    """A step that always has more and never waits does not keep other tasks out."""
    script = Script([True] * 100)
    turns: list[int] = []
    script.before = lambda: turns.append(len(script.acts))

    async def other() -> None:
        while len(turns) < 2:
            await asyncio.sleep(0)
        script.stop.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(script.loop().run(script.stop))
        group.create_task(other())
    assert len(turns) < 10


@pytest.mark.parametrize(
    ("failures", "chance", "expected"),
    [(1, 0.0, 100), (1, 0.99, 100), (3, 0.0, 100), (3, 0.5, 250), (1_000_000, 0.999, 1_998)],
)
def test_backoff_is_bounded(failures: int, chance: float, expected: int) -> None:
    """It doubles up to a maximum, at random below, and never under the minimum."""
    assert backoff_ms(failures, LoopOptions(chance=lambda: chance)) == expected
