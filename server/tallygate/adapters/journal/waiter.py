"""Somebody who waits until an entry of the journal is written, or synced.

Guarantees: is told once: that it is, or that time is up.
Refuses to know: files.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Waiter:
    """Waits for the entry of a mark, until the timer runs out."""

    mark: int
    synced: bool
    then: Callable[[bool], None] | None
    expiry: asyncio.TimerHandle | None = None

    def tell(self, reached: bool) -> None:
        """Tell, once."""
        then, self.then = self.then, None
        if self.expiry is not None:
            self.expiry.cancel()
        if then is not None:
            then(reached)
