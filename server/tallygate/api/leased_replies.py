"""Replies to calls that are granted from a lease, made many at once.

Guarantees: a reply is, byte for byte, what the library writes of its message.
Refuses to know: what is granted, and how it is recorded.
"""

from collections.abc import Sequence
from typing import Final

from tallygate.api import convert
from tallygate.api.replies import Replies
from tallygate.domain import ids
from tallygate.domain.decision import Decided, LimitState, WindowRule
from tallygate.domain.ids import OperationId
from tallygate.domain.request import ConsumeResult, Durability, event_id_of
from tallygate.domain.varint import sized, varint, varints
from tallygate.flow.heat import readings_of
from tallygate.flow.settle import Lease
from tallygate.gen.v1 import limit_pb2, quota_pb2

_OK: Final = convert.STATES[LimitState.OK]
_WARNING: Final = convert.STATES[LimitState.WARNING]
_LIMIT: Final = b"\x12"
# So few replies cost less one by one.
FEW: Final = 3
_EVENT_ID: Final = b"\x3a"


class _Status:
    """A limit in a reply: the bytes that stay, around the numbers that differ."""

    def __init__(self, lease: Lease, place: int, status: limit_pb2.LimitStatus) -> None:
        self._taken: Final = lease.readings[place].used
        self._limit: Final = lease.charges[place].limit
        self._warns_from: Final = _warns_from(lease, place)
        self._heads: Final = tuple(
            limit_pb2.LimitStatus(limit_id=status.limit_id, state=state).SerializeToString()
            for state in (_OK, _WARNING)
        )
        self._middle: Final = limit_pb2.LimitStatus(limit=status.limit).SerializeToString()
        rest = limit_pb2.LimitStatus.FromString(status.SerializeToString())
        for name in ("limit_id", "state", "used", "limit", "remaining"):
            rest.ClearField(name)
        self._tail: Final = rest.SerializeToString()

    def _one(self, left: int) -> bytes:
        used = max(self._taken - left, 0)
        remaining = self._limit - used if self._limit > used else 0
        content = self._heads[used >= self._warns_from]
        content += b"\x18" + varint(used) if used else b""
        content += self._middle
        content += b"\x28" + varint(remaining) if remaining else b""
        return sized(_LIMIT, content + self._tail)

    def many(self, lefts: range) -> list[bytes]:
        """Return the status for each of what is left, which falls."""
        if len(lefts) <= FEW:
            return [self._one(left) for left in lefts]
        first, last = self._taken - lefts[0], self._taken - lefts[-1]
        if first <= 0 or last >= self._limit or first < self._warns_from <= last:
            return [self._one(left) for left in lefts]
        step = -lefts.step
        used = varints(range(first, last + 1, step))
        remaining = varints(range(self._limit - first, self._limit - last - 1, -step))
        if len(used[0]) != len(used[-1]) or len(remaining[0]) != len(remaining[-1]):
            return [self._one(left) for left in lefts]
        head = self._heads[first >= self._warns_from] + b"\x18"
        middle, tail = self._middle + b"\x28", self._tail
        size = len(head) + len(used[0]) + len(middle) + len(remaining[0]) + len(tail)
        head = _LIMIT + varint(size) + head
        return [
            head + one + middle + other + tail for one, other in zip(used, remaining, strict=True)
        ]


class Form:
    """The replies to calls of one content that are granted from one lease."""

    def __init__(self, items: int, lease: Lease, level: Durability) -> None:
        """Fill in what all of them say alike."""
        self.lease: Final = lease
        self._suffixes = [event_id_of(OperationId(""), index).encode() for index in range(items)]
        answer = Decided(True, 0, readings_of(lease, lease.left), leased=True)
        encoded = Replies().consumed(ConsumeResult(answer, (), level))
        message = quota_pb2.CheckAndConsumeResponse.FromString(encoded)
        self._statuses = [
            _Status(lease, place, status) for place, status in enumerate(message.limits)
        ]
        message.ClearField("limits")
        # What comes before the limits is one field, and the ids of events come last.
        self._head: Final = quota_pb2.CheckAndConsumeResponse(allowed=True).SerializeToString()
        self._tail: Final = message.SerializeToString().removeprefix(self._head)

    def many(self, of: Sequence[OperationId], after: Sequence[range]) -> list[bytes]:
        """Return the replies to calls, by what is left after each, per charge."""
        columns = [status.many(left) for status, left in zip(self._statuses, after, strict=True)]
        head, tail, event_ids = self._head, self._tail, self._event_ids
        limits = map(b"".join, zip(*columns, strict=True))
        return [
            head + told + tail + event_ids(each.encode())
            for told, each in zip(limits, of, strict=True)
        ]

    def _event_ids(self, of: bytes) -> bytes:
        if len(self._suffixes) == 1:
            return sized(_EVENT_ID, of + self._suffixes[0])
        return b"".join([sized(_EVENT_ID, of + suffix) for suffix in self._suffixes])


def _warns_from(lease: Lease, place: int) -> int:
    """Return from how many units used a limit warns, one more than it may hold for never."""
    rule = lease.charges[place].rule
    if isinstance(rule, WindowRule) and rule.thresholds:
        return min(units for _, units in rule.thresholds)
    return ids.AMOUNT_MAX + 1
