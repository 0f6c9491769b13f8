"""How long to wait after a failure: twice as long each time, by full jitter."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_S = 0.1
MAX_S = 5.0
DOUBLINGS_MAX = 16


class Backoff:
    """Waits after failures in a row."""

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._draw = draw
        self._failures = 0

    def succeeded(self) -> None:
        """Begin anew with short waits."""
        self._failures = 0

    def failed(self, pushback_s: float | None = None) -> float:
        """Return how many seconds to wait; at least what the service asked for."""
        most_s = min(MAX_S, FIRST_S * 2.0 ** min(self._failures, DOUBLINGS_MAX))
        self._failures += 1
        return max(self._draw(0, most_s), pushback_s or 0.0)
