"""The seam of repairs: what makes one step whole, by appending.

Guarantees: without `apply` nothing is changed; the same repair again, once it was carried out,
appends nothing more.
Refuses to know: how a drift was found.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tallygate.domain.reconcile import Pair, Repair


class Outcome(StrEnum):
    """What became of a repair: it would be carried out, it was, or people have to."""

    WOULD = "would be done"
    DONE = "done"
    BY_HAND = "by hand"


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair came to; `detail` says what was appended, or what people are to do."""

    pair: Pair
    repair: Repair
    outcome: Outcome
    detail: str


class StepRepair(Protocol):
    """Makes one step whole."""

    async def carry_out(self, pair: Pair, repair: Repair, *, apply: bool) -> tuple[Outcome, str]:
        """Carry out a repair, or say what would be done.

        Raises `BackendUnavailable` when Postgres does not answer in time; what was appended stands.
        """
        ...


class CounterDues(Protocol):
    """Notes what a counter is due beside any event."""

    async def owe(self, pair: Pair, units: int, at_us: int) -> bool:
        """Note that the counters of a tenant's meter are due so many units, below 0 too many.

        False where such a note is not worked off yet, or the tenant's counters are being made anew.
        """
        ...
