"""Replies to calls that are granted from a lease: what they say alike is put together once.

Guarantees: a reply is what encoding the decision of its call by itself gives.
Refuses to know: what is granted, and how it is recorded.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tallygate.api.replies import filled, parts_of
from tallygate.domain import ids
from tallygate.domain.decision import LimitReading, LimitState, WindowRule
from tallygate.domain.ids import OperationId
from tallygate.domain.request import Durability
from tallygate.domain.varint import micros, number, sized, varint, varints
from tallygate.flow.heat import readings_of
from tallygate.flow.settle import Lease

_ALLOWED: Final = b"\x08\x01"
_STATUS: Final = b"\x12"


class Form:
    """Replies to calls of one content, granted from one lease, with room for what differs."""

    def __init__(self, items: int, lease: Lease, level: Durability) -> None:
        """Put together what all replies say alike."""
        self.lease: Final = lease
        self._items = items
        self._level = number(b"\x30", int(level))
        self._limits = [
            _Limit(reading, taken.used, _warns_from(lease, place))
            for place, (reading, taken) in enumerate(
                zip(readings_of(lease, lease.left), lease.readings, strict=True)
            )
        ]

    def many(self, of: Sequence[OperationId], after: Sequence[range]) -> list[bytes]:
        """Return the replies to calls, by what is left after each, per charge."""
        limits = [limit.told(left) for limit, left in zip(self._limits, after, strict=True)]
        if self._items == 1:
            # All ids of a group have as many characters.
            head = b"\x3a" + varint(len(of[0]) + 2)
            events = [head + each.encode() + b":0" for each in of]
        else:
            events = [self._events(each) for each in of]
        level = self._level
        return [
            b"".join((_ALLOWED, *statuses, level, event))
            for *statuses, event in zip(*limits, events, strict=True)
        ]

    def _events(self, of: OperationId) -> bytes:
        return b"".join([sized(b"\x3a", f"{of}:{index}".encode()) for index in range(self._items)])


class _Limit:
    """What replies say of one limit, as it is granted away."""

    def __init__(self, reading: LimitReading, taken: int, warns_from: int) -> None:
        self._taken = taken
        self._limit = reading.limit
        self._warns_from = warns_from
        self._fine = parts_of(replace(reading, state=LimitState.OK))
        self._warning = parts_of(replace(reading, state=LimitState.WARNING))
        self._end = micros(b"\x32", reading.resets_at_us) if reading.resets_at_us else b""

    def told(self, left: range) -> list[bytes]:
        """Return its status, as a field of the reply, after each of several calls."""
        taken, limit = self._taken, self._limit
        used = range(taken - left.start, taken - left.stop, -left.step)
        lowest, highest = min(used[0], used[-1]), max(used[0], used[-1])
        warns = lowest >= self._warns_from
        if lowest <= 0 or highest >= limit or warns is not (highest >= self._warns_from):
            return [self._one(each) for each in used]
        head, middle, tail = self._warning if warns else self._fine
        head, middle, tail = head + b"\x18", middle + b"\x28", self._end + tail
        some = varints(used)
        rest = varints(range(limit - used.start, limit - used.stop, -used.step))
        if len(some[0]) == len(some[-1]) and len(rest[0]) == len(rest[-1]):
            # Numbers in a row: those between the ends are as long as these.
            size = len(head) + len(some[0]) + len(middle) + len(rest[0]) + len(tail)
            head = _STATUS + varint(size) + head
            return [head + u + middle + r + tail for u, r in zip(some, rest, strict=True)]
        return [self._one(each) for each in used]

    def _one(self, used: int) -> bytes:
        used = max(used, 0)
        parts = self._warning if used >= self._warns_from else self._fine
        return filled(parts, used, max(self._limit - used, 0), self._end)


def _warns_from(lease: Lease, place: int) -> int:
    """Return from how many units used a limit warns, one more than it may hold for never."""
    rule = lease.charges[place].rule
    if isinstance(rule, WindowRule) and rule.thresholds:
        return min(units for _, units in rule.thresholds)
    return ids.AMOUNT_MAX + 1
