"""Memory and open files of processes over a run, and whether they grow.

Owns the line through the figures of one life of a process. Guarantees that lives too short to say
anything say nothing. Refuses to know what is run.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import psutil

from tests.chaos.fleet import Fleet

EVERY_S: Final = 1.0
WARM_SHARE: Final = 0.4
"""Of a life: caches, pools and the allocator fill; what is left shows whether anything leaks."""

SAMPLES_MIN: Final = 20
JUDGED_S: Final = 240.0
"""A life below that is mostly warm-up."""

GROWTH_MB_PER_MINUTE_MAX: Final = 0.5
"""Of about 90 MB: what cannot be told from the allocator's and the caches' own movements."""

GROWTH_FILES_MAX: Final = 4
"""Connections come and go with the faults."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at an instant: seconds since the run began, resident bytes, open files."""

    at_s: float
    rss: int
    files: int


@dataclass(frozen=True, slots=True)
class Slope:
    """A life of a process: its length, its figures, and how they rise.

    `rss_mb` and `files` are means of the first and the last tenth after the warm-up;
    `mb_per_minute` is the slope of the line through all of them, by least squares.
    """

    name: str
    seconds: float
    rss_mb: tuple[float, float]
    files: tuple[float, float]
    mb_per_minute: float


@dataclass(slots=True)
class Gauges:
    """Looks at each process once a second."""

    fleet: Fleet
    began_s: float = field(default_factory=time.monotonic)
    lives: dict[tuple[str, int], list[Sample]] = field(default_factory=lambda: defaultdict(list))

    async def run(self, until: asyncio.Event) -> None:
        """Look until told to end."""
        while not until.is_set():
            self.look()
            await asyncio.sleep(EVERY_S)

    def look(self) -> None:
        """Take one sample of each process that runs."""
        at_s = time.monotonic() - self.began_s
        for worker in self.fleet.workers.values():
            pid = worker.pid
            if pid is None:
                continue
            try:
                process = psutil.Process(pid)
                sample = Sample(at_s, process.memory_info().rss, process.num_fds())
            except psutil.Error:
                continue
            self.lives[worker.name, pid].append(sample)

    def slopes(self, seconds_min: float) -> list[Slope]:
        """Return the slope of each life that was at least so long."""
        return [
            slope(name, samples)
            for (name, _), samples in sorted(self.lives.items())
            if len(samples) >= SAMPLES_MIN and samples[-1].at_s - samples[0].at_s >= seconds_min
        ]


def grown(slopes: Iterable[Slope]) -> Iterator[str]:
    """Tell of processes that take more and more, where they lived long enough to tell."""
    for each in slopes:
        if each.seconds < JUDGED_S:
            continue
        if each.mb_per_minute > GROWTH_MB_PER_MINUTE_MAX:
            yield f"{each.name} took {each.mb_per_minute:.2f} MB more each minute"
        if each.files[1] - each.files[0] > GROWTH_FILES_MAX:
            yield f"{each.name} had {each.files[0]:.1f} open files, then {each.files[1]:.1f}"


def slope(name: str, samples: Sequence[Sample]) -> Slope:
    """Return how a life's figures rise after its warm-up."""
    warm = samples[int(len(samples) * WARM_SHARE) :]
    tenth = max(1, len(warm) // 10)
    first, last = warm[:tenth], warm[-tenth:]
    at_s = [each.at_s for each in warm]
    rss_mb = [each.rss / 2**20 for each in warm]
    middle_s, middle_mb = _mean(at_s), _mean(rss_mb)
    spread = sum((x - middle_s) ** 2 for x in at_s)
    common = sum((x - middle_s) * (y - middle_mb) for x, y in zip(at_s, rss_mb, strict=True))
    return Slope(
        name,
        samples[-1].at_s - samples[0].at_s,
        (_mean([each.rss / 2**20 for each in first]), _mean([each.rss / 2**20 for each in last])),
        (_mean([each.files for each in first]), _mean([each.files for each in last])),
        60 * common / spread if spread else 0.0,
    )


def _mean(figures: Iterable[float]) -> float:
    kept = [*figures]
    return sum(kept) / len(kept)
