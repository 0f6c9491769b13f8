"""completeness ─▶ [ settle numbers ] ─▶ stream: lost numbers whose events came again are said to.

If we die here, some numbers are told and the others are lost still: the next run tells them.

Guarantees: only numbers of epochs that were over before anything was compared, and that are
nowhere; told twice, it is the same. No event is made or changed.
Refuses to know: whether the events did come again. Whoever asks says so, and why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.completeness import Identity, size
from tallygate.domain.ids import epoch_of
from tallygate.ports.epochs import CounterStages, Seen


class Comparison(Protocol):
    """What compares numbers that were given out with those that arrived."""

    async def compare(self) -> Identity:
        """Return the identity's terms as of a moment during this call."""
        ...


class Told(Protocol):
    """Who tells the ledger of numbers whose events come under others."""

    async def hand_in(self, numbers: Sequence[Seen]) -> None:
        """Tell it."""
        ...


@dataclass(frozen=True, slots=True)
class SettleParts:
    """What is asked, and who is told."""

    watch: Comparison
    stages: CounterStages
    told: Told


class SettleNumbers:
    """Finds lost numbers, and has the ledger wait for them no more."""

    def __init__(self, parts: SettleParts) -> None:
        self._parts = parts

    async def lost(self) -> list[Seen]:
        """Return the numbers that were lost with their epochs, by source and shard.

        Raises `BackendUnavailable`, and `Overloaded` while much waits in a stream.
        """
        # Before comparing: of an epoch that ends meanwhile, journals may have what is missing.
        now = {each.shard: each.epoch for each in await self._parts.stages.states()}
        found = await self._parts.watch.compare()
        return [
            Seen(source, shard, ranges)
            for (source, shard), ranges in sorted(found.missing.items())
            if epoch_of(source) != now.get(shard)
        ]

    async def settle(self) -> list[Seen]:
        """Have the ledger wait for no lost number; return which these were."""
        numbers = await self.lost()
        if numbers:
            await self._parts.told.hand_in(numbers)
        return numbers


def count(numbers: Sequence[Seen]) -> int:
    """Return how many numbers there are."""
    return sum(size(each.ranges) for each in numbers)
