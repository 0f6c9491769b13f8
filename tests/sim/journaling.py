"""The journal of a simulated sidecar: the real one, on a simulated disk, written at virtual times.

Owns when the journal writes. Guarantees: nothing is written for a process that is dead. Refuses to
know what is in the journal.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from tallygate.adapters.journal import journal as real
from tallygate.adapters.journal.journal import FileJournal, JournalOptions, open_journal
from tallygate.adapters.journal.writer import RETRY_S
from tests.sim.disk import Disk
from tests.sim.loop import Process, SimClock, VirtualLoop

OPTIONS: Final = JournalOptions(64 * 1024 * 1024, threaded=False)
# What the writer's thread lets gather.
LINGER_S: Final = (0.001, 0.03)


class _Time:
    """Stands where the journal looks for the time."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock

    def time_ns(self) -> int:
        """Return virtual nanoseconds since the Unix epoch."""
        return self._clock.now_us() * 1_000


@contextmanager
def virtual_time(clock: SimClock) -> Iterator[None]:
    """Have the journal read virtual time for the length of a block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real, "time", _Time(clock))
        yield


async def opened(
    disk: Disk, loop: VirtualLoop, chance: random.Random, process: Process, told: Any
) -> FileJournal:
    """Return a process's journal, written a little after something was put."""
    journal = await open_journal(disk, OPTIONS, told)
    writer = journal._writer
    put = writer.put
    due = False

    def step() -> None:
        nonlocal due
        due = False
        if not process.alive:
            return
        writer.step()
        if writer.failing:
            soon(RETRY_S)

    def soon(delay_s: float) -> None:
        nonlocal due
        if not due:
            due = True
            loop.call_later(delay_s, step)

    def putting(mark: int, item: Any, size: int) -> None:
        put(mark, item, size)
        soon(chance.uniform(*LINGER_S))

    writer.put = putting  # type: ignore[method-assign]
    return journal
