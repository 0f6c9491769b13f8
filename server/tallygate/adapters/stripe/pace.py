"""Keeps calls to so many a second: the `Pace` port.

Guarantees: in any second no more than the rate and its hundredth part go out, in the order in which
turns were asked for.
Refuses to know: what goes out. Its time is the loop's, as it paces what really happens.
"""

import asyncio

# What may go out at once after a rest: a hundredth of a second's calls, at least one.
BURST_PARTS = 100


class EvenPace:
    """Turns at even distances: the generic cell rate algorithm, with a small burst."""

    def __init__(self, calls_per_s: int) -> None:
        self._distance_s = 1 / calls_per_s
        self._burst_s = max(1, calls_per_s // BURST_PARTS) * self._distance_s
        self._next_s = 0.0

    async def take(self) -> float:
        """Wait for a turn; return for how many seconds."""
        now_s = asyncio.get_running_loop().time()
        turn_s = max(now_s - self._burst_s, self._next_s)
        self._next_s = turn_s + self._distance_s
        wait_s = turn_s - now_s
        if wait_s <= 0:
            return 0.0
        await asyncio.sleep(wait_s)
        return wait_s
