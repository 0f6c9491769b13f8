"""What an operation's limits stood at, as the store says it, until somebody looks.

Guarantees: seen as a sequence, it is the readings that its rows say, in the order of the charges.
Refuses to know: who says it, and how it is told.

Of most calls nobody looks at the figures but who tells them, and that takes less than making an
object of each limit's.
"""

from collections.abc import Iterator, Sequence
from typing import Final, overload

from tallygate.domain.decision import Charge, LimitReading, LimitState

# The letters are those of the script.
STATES: Final = {state.value.encode(): state for state in LimitState}

Row = tuple[bytes, float, float, float]
"""A limit's state, units used, what it allows, and when it resets in µs."""


class Readings(Sequence[LimitReading]):
    """The readings of charges, one row each."""

    __slots__ = ("_made", "charges", "rows")

    def __init__(self, charges: Sequence[Charge], rows: Sequence[Row]) -> None:
        self.charges = charges
        self.rows = rows
        self._made: tuple[LimitReading, ...] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> LimitReading: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[LimitReading]: ...

    def __getitem__(self, place: int | slice) -> LimitReading | Sequence[LimitReading]:
        return self.made[place]

    def __iter__(self) -> Iterator[LimitReading]:
        return iter(self.made)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Readings | tuple):
            return self.made == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.made)

    def __repr__(self) -> str:
        return repr(self.made)

    @property
    def made(self) -> tuple[LimitReading, ...]:
        """The readings, made when they are first asked for."""
        if self._made is None:
            # By place, as names cost twice as much.
            self._made = tuple(
                [
                    LimitReading(
                        charge.account,
                        charge.limit_id,
                        charge.meter,
                        STATES[state],
                        int(used),
                        int(limit),
                        int(limit - used) if limit > used else 0,
                        int(resets_at_us),
                    )
                    for charge, (state, used, limit, resets_at_us) in zip(
                        self.charges, self.rows, strict=True
                    )
                ]
            )
        return self._made
