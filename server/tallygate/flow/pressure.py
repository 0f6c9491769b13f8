"""gather ─▶ [ pressure ] ─▶ api: how long calls wait, and when those refused may come back.

If we die here, nothing is lost: what is measured is measured anew.

Guarantees: the more is refused beside what is answered, the later callers are asked to come back,
each at another moment, so that those who do as they are told bring no more than can be answered.
Refuses to know: who waits, and for what.
"""

import math
import random
from collections.abc import Callable
from typing import Final

from tallygate.ports import Clock

# The first pushback: long enough for a full pipeline, short enough for a caller with a second.
PUSHBACK_MIN_S: Final = 0.1
# The longest: an overload that ends has all its callers back within five seconds.
PUSHBACK_MAX_S: Final = 3.0
# How fast past refusals are forgotten.
MEMORY_S: Final = 1.0
# Of a new measurement in the mean of the rounds' lengths.
WEIGHT: Final = 0.2


class Pressure:
    """Measures rounds of answers, and what was refused beside them.

    `chance` returns a number from 0 up to 1, at random.
    """

    def __init__(
        self, clock: Clock, round_max: int, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._round_max = round_max
        self._chance = chance
        self._round_s = 0.0
        self._answered = 0.0
        self._refused = 0.0
        self._since_s = clock.monotonic()

    def answered(self, operations: int, seconds: float) -> None:
        """Note a round: so many operations were answered in so many seconds."""
        self._forget()
        self._answered += operations
        self._round_s += WEIGHT * (seconds - self._round_s)

    def wait_s(self, ahead: int) -> float:
        """Return how long the answer takes when so many operations are to be answered before."""
        return (ahead // self._round_max + 1) * self._round_s

    def refused(self, operations: int, waiting: int) -> int:
        """Note what was refused while so many wait; return µs after which to come back."""
        self._forget()
        self._refused += operations
        # With n calls refused for each one answered, n + 1 times the queue's own time spreads
        # them over as long as it takes to answer them all.
        share = 1 + self._refused / max(self._answered, 1.0)
        wait_s = min(max(self.wait_s(waiting) * share, PUSHBACK_MIN_S), PUSHBACK_MAX_S)
        return int(wait_s * (0.5 + self._chance()) * 1e6)

    def _forget(self) -> None:
        now_s = self._clock.monotonic()
        kept = math.exp((self._since_s - now_s) / MEMORY_S)
        self._since_s = now_s
        self._answered *= kept
        self._refused *= kept
