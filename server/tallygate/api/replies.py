"""Replies to charges as bytes, put together from parts that are the same in reply after reply.

Guarantees: the bytes are those of the message that the protos describe.
Refuses to know: decisions, but how they are told.
"""

from typing import Final

from tallygate.domain.catalog import UNLIMITED
from tallygate.domain.decision import LimitReading, LimitState
from tallygate.domain.ids import scope_of, tenant_of
from tallygate.domain.request import ConsumeResult
from tallygate.domain.varint import micros, number, sized, text, varint
from tallygate.gen.v1 import limit_pb2

# Accounts times limits: some hundred bytes each.
PARTS_MAX: Final = 20_000
ENDS_MAX: Final = 1_000

_STATES: Final = {
    LimitState.OK: limit_pb2.LIMIT_STATE_OK,
    LimitState.WARNING: limit_pb2.LIMIT_STATE_WARNING,
    LimitState.EXCEEDED: limit_pb2.LIMIT_STATE_EXCEEDED,
    LimitState.SHADOW_EXCEEDED: limit_pb2.LIMIT_STATE_SHADOW_EXCEEDED,
}
_TRUE: Final = b"\x01"

_Key = tuple[str, str, str, LimitState, int]


class Replies:
    """Encodes replies. What it keeps is made anew when it is too much."""

    def __init__(self) -> None:
        # What a limit's status begins with, has in its middle, and ends with.
        self._parts: dict[_Key, tuple[bytes, bytes, bytes]] = {}
        # When limits reset.
        self._ends: dict[int, bytes] = {}

    def consumed(self, result: ConsumeResult) -> bytes:
        """Return the `CheckAndConsumeResponse` of a decision."""
        decision = result.decision
        parts: list[bytes] = [b"\x08\x01"] if decision.allowed else []
        parts += [self._status(reading) for reading in decision.readings]
        if decision.refused_by:
            parts.append(text(b"\x1a", decision.refused_by))
        if decision.retry_after_us is not None:
            parts.append(micros(b"\x22", decision.retry_after_us))
        if decision.replayed:
            parts.append(b"\x28" + _TRUE)
        if result.durability:
            parts.append(b"\x30" + varint(result.durability))
        parts += [sized(b"\x3a", event_id.encode()) for event_id in result.event_ids]
        if decision.degraded:
            parts.append(b"\x40" + _TRUE)
        return b"".join(parts)

    def _status(self, reading: LimitReading) -> bytes:
        """Return a limit's status, as a field of the reply."""
        state = reading.state
        key = (reading.account, reading.limit_id, reading.meter, state, reading.limit)
        found = self._parts.get(key)
        if found is None:
            if len(self._parts) >= PARTS_MAX:
                self._parts.clear()
            found = self._parts[key] = _parts_of(reading)
        head, middle, tail = found
        used, remaining, resets_at_us = reading.used, reading.remaining, reading.resets_at_us
        content = head + b"\x18" + varint(used) + middle if used else head + middle
        if remaining:
            content += b"\x28" + varint(remaining)
        if resets_at_us:
            # Windows of many accounts end at the same moment.
            ends = self._ends.get(resets_at_us)
            content += ends if ends is not None else self._end(resets_at_us)
        content += tail
        return b"\x12" + varint(len(content)) + content

    def _end(self, at_us: int) -> bytes:
        if len(self._ends) >= ENDS_MAX:
            self._ends.clear()
        made = self._ends[at_us] = micros(b"\x32", at_us)
        return made


def _parts_of(reading: LimitReading) -> tuple[bytes, bytes, bytes]:
    head = text(b"\x0a", reading.limit_id) + number(b"\x10", _STATES[reading.state])
    tail = text(b"\x3a", reading.meter) + text(b"\x42", tenant_of(reading.account))
    tail += text(b"\x4a", scope_of(reading.account))
    if reading.limit == UNLIMITED:
        tail += b"\x50" + _TRUE
    return head, number(b"\x20", reading.limit), tail
