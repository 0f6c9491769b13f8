"""Stripe's sums ─▶ [ stripe ration ] ─▶ reconciliation: so many a day, as reads there are rationed.

If we die here, the next process counts its day anew: twice as many may be read on that day.

Guarantees: in a day of UTC no more sums are asked for than are allowed, over all accounts.
Refuses to know: Stripe, and what sums are for.
"""

from dataclasses import dataclass, field
from decimal import Decimal

from tallygate.domain.window import DAY_US, Window
from tallygate.ports import Clock
from tallygate.ports.reconcile import StripeSums


@dataclass(slots=True)
class RationedSums:
    """The `StripeSums` port over another one, up to a number of reads a day."""

    sums: StripeSums
    clock: Clock
    reads_max: int
    _day: int = field(default=-1, init=False)
    _reads: int = field(default=0, init=False)

    async def asks(self, destination: str) -> bool:
        """Say whether an account can be asked now."""
        return self._left() > 0 and await self.sums.asks(destination)

    async def summed(
        self, destination: str, event_name: str, customer: str, window: Window
    ) -> Decimal:
        """Return what an account has of a customer's meter, in its own unit."""
        self._left()
        self._reads += 1
        return await self.sums.summed(destination, event_name, customer, window)

    def _left(self) -> int:
        day = self.clock.now_us() // DAY_US
        if day != self._day:
            self._day, self._reads = day, 0
        return self.reads_max - self._reads
