"""What time it is for the fake, and what is due when.

Guarantees: everything that depends on time asks one clock; what is due runs in order of time, and
sees the instant it was due at, however far the clock leapt.
Refuses to know: what is scheduled.
"""

import heapq
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from .errors import full

US_PER_S: Final = 1_000_000
# Enough for a month of a large test; a schedule that feeds itself without end is found by it.
PENDING_MAX: Final = 2_000_000

Action = Callable[[int], None]


class Clock(Protocol):
    """Where the fake has its time from."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        ...


class SystemClock:
    """The machine's own time."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        return time.time_ns() // 1_000


class VirtualClock:
    """Time that stands still until it is told to go on."""

    def __init__(self, start: datetime | float = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        """Begin at an instant, or at seconds since the Unix epoch."""
        seconds = start.timestamp() if isinstance(start, datetime) else start
        self._now_us = round(seconds * US_PER_S)

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        return self._now_us

    def advance(self, seconds: float) -> int:
        """Go on by so many seconds; return microseconds since the Unix epoch.

        Raises `ValueError` for less than nothing: time does not run back.
        """
        if seconds < 0:
            raise ValueError("time does not run back")
        self._now_us += round(seconds * US_PER_S)
        return self._now_us

    def set(self, seconds: float) -> int:
        """Go on to an instant, in seconds since the Unix epoch. Raises `ValueError`."""
        return self.advance(seconds - self._now_us / US_PER_S)


class Schedule:
    """What is due when, in the order of time, and of asking where times are equal."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, Action]] = []
        self._asked = 0

    def __len__(self) -> int:
        return len(self._due)

    @property
    def next_us(self) -> int | None:
        """When the next action is due; None where nothing is."""
        return self._due[0][0] if self._due else None

    def at(self, due_us: int, action: Action) -> None:
        """Have an action run at an instant. Raises `StripeFault` where too many wait."""
        if len(self._due) >= PENDING_MAX:
            raise full("actions that are due later", PENDING_MAX)
        self._asked += 1
        heapq.heappush(self._due, (due_us, self._asked, action))

    def run_due(self, now_us: int) -> int:
        """Run what is due by now, each with the instant it was due at; return how many ran."""
        ran = 0
        while self._due and self._due[0][0] <= now_us:
            due_us, _, action = heapq.heappop(self._due)
            action(due_us)
            ran += 1
        return ran

    def clear(self) -> None:
        """Forget all that is due."""
        self._due.clear()


def rfc3339(at_us: int) -> str:
    """Write an instant as the v2 API does: UTC, to the millisecond."""
    seconds, rest_us = divmod(at_us, US_PER_S)
    instant = datetime.fromtimestamp(seconds, UTC)
    return f"{instant:%Y-%m-%dT%H:%M:%S}.{rest_us // 1_000:03}Z"
