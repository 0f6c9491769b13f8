"""A set of sequence numbers, held as ranges: most are given out without gaps.

Guarantees: pure; ranges are rising, apart, and hold each number once.
Refuses to know: whose numbers they are.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

Range = tuple[int, int]
"""Both ends inclusive."""


class Numbers:
    """A set of whole numbers. Adding the next number after the last one takes constant time."""

    __slots__ = ("_ranges",)

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges: Final[list[Range]] = []
        for first, last in ranges:
            self.add(first, last)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The ranges, rising and apart."""
        return tuple(self._ranges)

    def add(self, first: int, last: int) -> None:
        """Put the numbers from first to last into the set."""
        ranges = self._ranges
        if ranges and ranges[-1][1] + 1 == first:
            ranges[-1] = (ranges[-1][0], last)
            return
        start, end = self._touching(first - 1, last + 1)
        if start < end:
            first = min(first, ranges[start][0])
            last = max(last, ranges[end - 1][1])
        ranges[start:end] = [(first, last)]

    def remove(self, first: int, last: int) -> None:
        """Take the numbers from first to last out of the set."""
        start, end = self._touching(first, last)
        if start == end:
            return
        rest: list[Range] = []
        if self._ranges[start][0] < first:
            rest.append((self._ranges[start][0], first - 1))
        if self._ranges[end - 1][1] > last:
            rest.append((last + 1, self._ranges[end - 1][1]))
        self._ranges[start:end] = rest

    def meets(self, first: int, last: int) -> bool:
        """Say whether a number from first to last is in the set."""
        start, end = self._touching(first, last)
        return start < end

    def covers(self, first: int, last: int) -> bool:
        """Say whether every number from first to last is in the set."""
        start, end = self._touching(first, last)
        return (
            end == start + 1 and self._ranges[start][0] <= first and last <= self._ranges[start][1]
        )

    def _touching(self, first: int, last: int) -> tuple[int, int]:
        """Return where the ranges that meet those numbers begin and end in the list."""
        start = bisect_left(self._ranges, first, key=lambda each: each[1])
        end = start
        while end < len(self._ranges) and self._ranges[end][0] <= last:
            end += 1
        return start, end
