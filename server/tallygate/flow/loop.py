"""stream or outbox ─▶ [ loop ] ─▶ run_once ─▶ ledger or destination: the only loop of the flow.

If we die here between two runs, nothing is lost: a run leaves what it has not finished to be found
again by whoever runs next. If we die in a run, the step's own module says what happens.

Guarantees: a failed run never ends the loop; the next one waits longer, at random, so that many
processes do not come back at once. A stop lets the run that is under way finish.
Refuses to know: what a run does.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from tallygate.ports import Clock

# Short beside what a person notices, long beside what an idle run costs.
IDLE_MS: Final = 200
BACKOFF_MIN_MS: Final = 100
# A backend that is back is noticed within this time.
BACKOFF_MAX_MS: Final = 2_000
# 100 ms doubled so often is past the maximum; more would only make large numbers.
DOUBLINGS_MAX: Final = 16


class Counts(Protocol):
    """What one run did."""

    @property
    def more(self) -> bool:
        """Whether there is likely more to do at once."""
        ...


CountsT_co = TypeVar("CountsT_co", bound=Counts, covariant=True)


class Step(Protocol[CountsT_co]):
    """One piece of work, run again and again. It does not wait for work by sleeping."""

    async def run_once(self) -> CountsT_co:
        """Do what there is to do now, bounded, and return what was done."""
        ...


class LoopObserver(Protocol):
    """What a loop tells of itself."""

    def ran(self, name: str, seconds: float, counts: Counts) -> None:
        """A run ended well."""

    def failed(self, name: str, error: Exception, delay_s: float) -> None:
        """A run failed; the next one starts after the delay."""


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """How long a loop waits. `chance` returns a number from 0 up to 1, at random."""

    idle_ms: int = IDLE_MS
    backoff_min_ms: int = BACKOFF_MIN_MS
    backoff_max_ms: int = BACKOFF_MAX_MS
    chance: Callable[[], float] = field(default=random.random)


@dataclass(frozen=True, slots=True)
class Loop:
    """Runs a step until it is told to stop."""

    name: str
    step: Step[Counts]
    clock: Clock
    observer: LoopObserver
    options: LoopOptions = field(default_factory=LoopOptions)

    async def run(self, stop: asyncio.Event) -> None:
        """Run the step until `stop` is set; the run that is under way then ends first."""
        failures = 0
        while not stop.is_set():
            started = self.clock.monotonic()
            try:
                counts = await self.step.run_once()
            # A fault of ours in one run must not end all later ones: it is told, and tried again.
            except Exception as error:  # noqa: BLE001
                failures += 1
                delay_s = self._backoff_s(failures)
                self.observer.failed(self.name, error, delay_s)
            else:
                failures = 0
                self.observer.ran(self.name, self.clock.monotonic() - started, counts)
                delay_s = 0.0 if counts.more else self._idle_s()
            await _pause(stop, delay_s)

    def _idle_s(self) -> float:
        # Between half and one and a half, so that processes started together drift apart.
        return self.options.idle_ms / 1000 * (0.5 + self.options.chance())

    def _backoff_s(self, failures: int) -> float:
        return backoff_ms(failures, self.options) / 1000


def backoff_ms(failures: int, options: LoopOptions) -> int:
    """Return how long to wait after so many failures in a row: exponential, with full jitter.

    The jitter is that of "Exponential Backoff and Jitter" (Brooker, 2015), kept above the minimum
    so that a failing backend is never asked in a tight loop.
    """
    doublings = min(failures - 1, DOUBLINGS_MAX)
    top = min(options.backoff_max_ms, options.backoff_min_ms << doublings)
    spread = max(0, top - options.backoff_min_ms)
    return options.backoff_min_ms + int(spread * options.chance())


async def _pause(stop: asyncio.Event, delay_s: float) -> None:
    if delay_s <= 0:
        # A step that never waits for anything would keep the process's other tasks out.
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(delay_s):
            await stop.wait()
    except TimeoutError:
        return
