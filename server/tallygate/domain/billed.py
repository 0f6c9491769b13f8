"""How much of a meter was used in a stretch of time: out of rollups, and events at its edges.

Guarantees: the pieces of a stretch cover it once, whole days first, so that few rows are read; a
quantity is what the same events would come to one by one.
Refuses to know: where rollups are kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from tallygate.domain.catalog import Aggregation
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, Window


class Level(StrEnum):
    """What a piece is read from."""

    DAY = "day"
    HOUR = "hour"
    MINUTE = "minute"
    EVENT = "event"


PLAIN: Final = frozenset({Aggregation.COUNT, Aggregation.SUM, Aggregation.MAX, Aggregation.MIN})
"""What the rollups that every meter has are enough for."""

_LENGTHS: Final = ((Level.DAY, DAY_US), (Level.HOUR, HOUR_US), (Level.MINUTE, MINUTE_US))


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch that whole rollups of a level cover, or the single events in it."""

    level: Level
    window: Window


@dataclass(frozen=True, slots=True)
class Figures:
    """Usage added up: events that are no refunds, their largest and smallest, the sum of all."""

    count: int = 0
    sum: int = 0
    max: int = 0
    min: int = 0


def cover(window: Window) -> tuple[Piece, ...]:
    """Return the pieces of a stretch, by time."""
    return tuple(_cover(window.start_us, window.end_us, _LENGTHS))


def whole_minutes(window: Window) -> Window:
    """Return a stretch with the minutes that it begins and ends in."""
    start_us = window.start_us // MINUTE_US * MINUTE_US
    return Window(start_us, -(-window.end_us // MINUTE_US) * MINUTE_US)


def added(figures: Sequence[Figures]) -> Figures:
    """Return usage of several pieces together."""
    used = [each for each in figures if each.count]
    return Figures(
        count=sum(each.count for each in figures),
        sum=sum(each.sum for each in figures),
        max=max((each.max for each in used), default=0),
        min=min((each.min for each in used), default=0),
    )


def less(whole: Figures, part: Figures, aggregation: Aggregation) -> Figures | None:
    """Return usage without a part of it, None where its sums do not tell the largest or smallest.

    They do where the part's own is not that of the whole.
    """
    kept = Figures(whole.count - part.count, whole.sum - part.sum, whole.max, whole.min)
    if aggregation is Aggregation.MAX and part.count and part.max == whole.max:
        return None
    if aggregation is Aggregation.MIN and part.count and part.min == whole.min:
        return None
    return kept


def quantity_of(aggregation: Aggregation, figures: Figures) -> Decimal:
    """Return what a meter of a plain aggregation makes of its usage."""
    match aggregation:
        case Aggregation.COUNT:
            return Decimal(figures.count)
        case Aggregation.SUM:
            return Decimal(figures.sum)
        case Aggregation.MAX:
            return Decimal(figures.max)
        case Aggregation.MIN:
            return Decimal(figures.min)
        case _:
            raise AssertionError(f"{aggregation} takes more than figures")


def _cover(start_us: int, end_us: int, levels: Sequence[tuple[Level, int]]) -> Iterator[Piece]:
    if start_us >= end_us:
        return
    if not levels:
        yield Piece(Level.EVENT, Window(start_us, end_us))
        return
    (level, length_us), *finer = levels
    first_us = -(-start_us // length_us) * length_us
    last_us = end_us // length_us * length_us
    if first_us >= last_us:
        yield from _cover(start_us, end_us, finer)
        return
    yield from _cover(start_us, first_us, finer)
    yield Piece(level, Window(first_us, last_us))
    yield from _cover(last_us, end_us, finer)
