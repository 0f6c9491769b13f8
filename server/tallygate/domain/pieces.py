"""A window of time, cut into the few buckets of rollups that it is made of.

Guarantees: the pieces of a window cover it once, without a rest; there are at most five.
Refuses to know: what is in the buckets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tallygate.domain.errors import InvalidField
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, Window

LEVELS_US: Final = (MINUTE_US, HOUR_US, DAY_US)
"""The lengths of rollups' buckets, by their level."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Buckets of one level that follow each other: from `start_us` to before `end_us`."""

    level: int
    start_us: int
    end_us: int


def checked(from_us: int, to_us: int) -> Window:
    """Return a window of whole minutes. Raises `InvalidField` naming the bound at fault."""
    for name, at_us in (("from", from_us), ("to", to_us)):
        if at_us % MINUTE_US:
            raise InvalidField("must be a whole minute", field=name)
    if from_us >= to_us:
        raise InvalidField("must be after from", field="to")
    return Window(from_us, to_us)


def pieces(window: Window, level: int = len(LEVELS_US) - 1) -> Iterator[Piece]:
    """Iterate over the pieces of a window of whole minutes, in their order, the largest inside."""
    if window.start_us >= window.end_us:
        return
    length_us = LEVELS_US[level]
    start_us = -(-window.start_us // length_us) * length_us
    end_us = window.end_us // length_us * length_us
    if not level:
        yield Piece(level, start_us, end_us)
    elif start_us >= end_us:
        yield from pieces(window, level - 1)
    else:
        yield from pieces(Window(window.start_us, start_us), level - 1)
        yield Piece(level, start_us, end_us)
        yield from pieces(Window(end_us, window.end_us), level - 1)
