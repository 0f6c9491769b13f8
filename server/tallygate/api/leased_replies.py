"""Replies to calls that are granted from a lease: one message, with what differs filled in.

Guarantees: a reply is what encoding the decision of its call by itself gives.
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
from tallygate.flow.heat import readings_of
from tallygate.flow.settle import Lease
from tallygate.gen.v1 import quota_pb2

_OK: Final = convert.STATES[LimitState.OK]
_WARNING: Final = convert.STATES[LimitState.WARNING]


class Form:
    """A reply with room for what differs between calls of one content, granted from one lease."""

    def __init__(self, items: int, lease: Lease, level: Durability) -> None:
        """Fill in what all replies say alike."""
        self.lease: Final = lease
        self._items = items
        answer = Decided(True, 0, readings_of(lease, lease.left), leased=True)
        event_ids = tuple(event_id_of(OperationId(""), index) for index in range(items))
        self._message = quota_pb2.CheckAndConsumeResponse.FromString(
            Replies().consumed(ConsumeResult(answer, event_ids, level))
        )
        self._limits = [
            (status, taken.used, charge.limit, _warns_from(lease, place))
            for place, (status, taken, charge) in enumerate(
                zip(self._message.limits, lease.readings, lease.charges, strict=True)
            )
        ]

    def many(self, of: Sequence[OperationId], after: Sequence[range]) -> list[bytes]:
        """Return the replies to calls, by what is left after each, per charge."""
        return [
            self._one(named, left) for named, left in zip(of, zip(*after, strict=True), strict=True)
        ]

    def _one(self, of: OperationId, lefts: tuple[int, ...]) -> bytes:
        for place, (status, taken, limit, warns_from) in enumerate(self._limits):
            used = taken - lefts[place]
            used = max(used, 0)
            status.used = used
            status.remaining = limit - used if limit > used else 0
            status.state = _WARNING if used >= warns_from else _OK
        message = self._message
        event_ids = message.event_ids
        for index in range(self._items):
            event_ids[index] = f"{of}:{index}"
        encoded: bytes = message.SerializeToString()
        return encoded


def _warns_from(lease: Lease, place: int) -> int:
    """Return from how many units used a limit warns, one more than it may hold for never."""
    rule = lease.charges[place].rule
    if isinstance(rule, WindowRule) and rule.thresholds:
        return min(units for _, units in rule.thresholds)
    return ids.AMOUNT_MAX + 1
