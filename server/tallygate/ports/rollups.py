"""The seam of rollups that meters ask for: which there are, and how they are made anew.

Guarantees: a change of shape is followed by every ledger transaction that commits after it; what is
made anew is exact, whatever is stored meanwhile.
Refuses to know: catalogs, and when anything is made anew.

A method raises `BackendUnavailable` when Postgres does not answer in time, or others are at it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tallygate.domain.ids import MeterName
from tallygate.domain.rollup import Shape
from tallygate.domain.window import Window


@dataclass(frozen=True, slots=True)
class ShapeState:
    """The shape of a meter's rollups; `whole` says that they have all events there are.

    `number` is another one after each change, also back to a shape that there was.
    """

    meter: MeterName
    shape: Shape
    whole: bool
    number: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class UsedDay:
    """A day of UTC on which a meter was used, how often, and whether its rollups are whole.

    Of one that is `archived` the ledger has no events any more: nothing can be made of it anew.
    """

    start_us: int
    events: int
    whole: bool
    archived: bool = False


class Rollups(Protocol):
    """The rollups of meters that group, or that take more than sums and extremes."""

    async def shapes(self) -> list[ShapeState]:
        """Return the shapes in effect, by meter."""
        ...

    async def switch(self, meter: MeterName, shape: Shape | None) -> None:
        """Put a shape into effect, None for no rollups of its own; the one before is given up.

        It is whole where the meter was never used, else it has what comes from now on.
        """
        ...

    async def days(self, number: int) -> Sequence[UsedDay]:
        """Return the days on which the meter of a shape was used, oldest first."""
        ...

    async def rebuild(self, number: int, hours: Window, known: Window | None) -> bool:
        """Make rollups of whole hours anew; then they are whole in `known`, for None everywhere.

        Says whether the shape of that number is still in effect; if not, nothing was made.
        """
        ...

    async def purge(self, groups_max: int) -> int:
        """Delete rollups of up to so many groups of shapes that were given up; say how many."""
        ...
