"""intents ─▶ [ stripe gate ] ─▶ Stripe: how fast, and whether now, for all senders of one account.

If we die here, the next process starts with an open gate, and is told anew if it must wait.

Guarantees: when Stripe throttles, or refuses the key, or does not answer, all of the account's
senders pause; a key that was refused is tried by one call at a time.
Refuses to know: intents, and how time is waited for.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.window import SECOND_US
from tallygate.flow.loop import LoopOptions, backoff_ms
from tallygate.ports import Clock
from tallygate.ports.stripe import Pace

# Soon enough for who has just replaced a key, rare enough for Stripe.
KEY_PAUSE_MS: Final = 60_000
PAUSE_MIN_MS: Final = 1_000
PAUSE_MAX_MS: Final = 60_000
# Calls in a row that found nobody there, or no answer: one more would not either.
SILENT_MAX: Final = 16


@dataclass(slots=True)
class Gate:
    """The way to one account, shared by its senders."""

    clock: Clock
    pace: Pace
    chance: Callable[[], float] = field(default=random.random)
    # What keeps the gate shut: `throttled`, `key_refused`, `silent`, or nothing.
    reason: str = ""
    # Set when the process stops: what has not begun is given back.
    closed: bool = False
    _shut_until_us: int = 0
    _throttled: int = 0
    _silent: int = 0
    _pauses: int = 0

    @property
    def shut(self) -> bool:
        """Whether nothing may go out now."""
        return self.closed or self.clock.now_us() < self._shut_until_us

    @property
    def careful(self) -> bool:
        """Whether what shut the gate has yet to be found gone."""
        return bool(self.reason)

    async def turn(self) -> float:
        """Wait for a turn; return for how many seconds."""
        return await self.pace.take()

    def answered(self) -> None:
        """Note a call that Stripe took: what was amiss is gone."""
        self.reason = ""
        self._throttled = self._silent = self._pauses = 0

    def throttled(self, retry_after_ms: int) -> int:
        """Shut for as long as is asked, and longer each time; return for how many ms."""
        self._throttled += 1
        return self._shut("throttled", max(retry_after_ms, self._backoff_ms(self._throttled)))

    def key_refused(self) -> int:
        """Shut until the key may have been replaced; return for how many ms."""
        return self._shut("key_refused", KEY_PAUSE_MS)

    def silent(self) -> bool:
        """Note a call that got no answer; say whether the gate is shut for it."""
        self._silent += 1
        if self._silent < (1 if self.reason == "silent" else SILENT_MAX):
            return self.shut
        self._pauses += 1
        self._shut("silent", self._backoff_ms(self._pauses))
        return True

    def _shut(self, reason: str, pause_ms: int) -> int:
        self.reason = reason
        until_us = self.clock.now_us() + pause_ms * (SECOND_US // 1000)
        self._shut_until_us = max(self._shut_until_us, until_us)
        return pause_ms

    def _backoff_ms(self, times: int) -> int:
        options = LoopOptions(
            backoff_min_ms=PAUSE_MIN_MS, backoff_max_ms=PAUSE_MAX_MS, chance=self.chance
        )
        return backoff_ms(times, options)
