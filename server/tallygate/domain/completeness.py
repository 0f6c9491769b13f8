"""The identity: what was accepted is in the ledger, among dead letters, on its way, or lost.

Guarantees: pure. Every number that was given out is counted in exactly one term.
Refuses to know: where numbers were read, and who is told.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tallygate.domain.ids import SourceId, epoch_of

Lane = tuple[SourceId, int]
Ranges = tuple[tuple[int, int], ...]
"""Numbers, both ends inclusive, rising and apart."""


@dataclass(frozen=True, slots=True)
class LaneState:
    """One source's lane: its last number, and which up to it the ledger has, and a stream has."""

    last: int
    seen: Ranges = ()
    waiting: Ranges = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """The terms, in events, over all lanes.

    `accepted` is the sum of all others. `awaited` are numbers of older epochs that journals may
    hand in still; `lost` those that nobody has handed in though counters have been rebuilt.
    `unaccounted` should be nowhere but in a stream or in the ledger, and is in neither: a fault.
    `missing` are the ranges of the last two by lane. `gaps` are ranges below what the ledger has.
    """

    accepted: int = 0
    persisted: int = 0
    dead_letters: int = 0
    in_stream: int = 0
    awaited: int = 0
    lost: int = 0
    unaccounted: int = 0
    gaps: int = 0
    missing: Mapping[Lane, Ranges] = field(default_factory=dict)


def identity(
    lanes: Mapping[Lane, LaneState],
    epochs: Mapping[int, tuple[str, bool]],
    dead_letters: int,
) -> Identity:
    """Add up all lanes. `epochs` is per shard the epoch of now, and whether it is rebuilt."""
    accepted = seen = in_stream = awaited = lost = unaccounted = gaps = 0
    missing: dict[Lane, Ranges] = {}
    for lane, state in lanes.items():
        accepted += state.last
        seen += size(state.seen)
        # Each range but one that begins at the beginning has a gap before it.
        gaps += sum(1 for start, _ in state.seen if start > 1)
        absent = without(((1, state.last),) if state.last else (), state.seen)
        nowhere = without(absent, state.waiting)
        in_stream += size(absent) - size(nowhere)
        if not nowhere:
            continue
        epoch, rebuilt = epochs.get(lane[1], ("", False))
        if epoch_of(lane[0]) == epoch:
            unaccounted += size(nowhere)
        elif rebuilt:
            lost += size(nowhere)
        else:
            awaited += size(nowhere)
            continue
        missing[lane] = nowhere
    return Identity(
        accepted=accepted,
        persisted=seen - dead_letters,
        dead_letters=dead_letters,
        in_stream=in_stream,
        awaited=awaited,
        lost=lost,
        unaccounted=unaccounted,
        gaps=gaps,
        missing=missing,
    )


def size(ranges: Ranges) -> int:
    """Return how many numbers there are."""
    return sum(end - start + 1 for start, end in ranges)


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return ranges in order, those that touch or overlap made one; empty ones left out."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(each for each in ranges if each[0] <= each[1]):
        if found and start <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return tuple(found)


def without(ranges: Ranges, taken: Sequence[tuple[int, int]]) -> Ranges:
    """Return what is left of ranges; both are in order and apart."""
    left: list[tuple[int, int]] = []
    place = 0
    for start, end in ranges:
        while place < len(taken) and taken[place][1] < start:
            place += 1
        at = place
        while at < len(taken) and taken[at][0] <= end:
            if taken[at][0] > start:
                left.append((start, taken[at][0] - 1))
            start = taken[at][1] + 1  # noqa: PLW2901  what is left of this range
            at += 1
        if start <= end:
            left.append((start, end))
    return tuple(left)
