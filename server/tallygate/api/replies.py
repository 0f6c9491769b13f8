"""Replies to charges as bytes, put together from parts that are the same in reply after reply.

Guarantees: the bytes are those of the message that the protos describe.
Refuses to know: decisions, but how they are told.
"""

from collections.abc import Sequence
from typing import Final

from tallygate.domain.catalog import UNLIMITED
from tallygate.domain.decision import Charge, LimitReading, LimitState
from tallygate.domain.ids import scope_of, tenant_of
from tallygate.domain.readings import Readings
from tallygate.domain.request import ConsumeResult
from tallygate.domain.varint import micros, number, sized, text, varint
from tallygate.gen.v1 import limit_pb2

# Accounts times limits: some hundred bytes each.
PARTS_MAX: Final = 20_000
ENDS_MAX: Final = 1_000
KEPT_MAX: Final = 2_000
# Of one set of charges: some states of each limit, and limits that change, as balances do.
LIMITS_KEPT_MAX: Final = 200

_STATES: Final = {
    LimitState.OK: limit_pb2.LIMIT_STATE_OK,
    LimitState.WARNING: limit_pb2.LIMIT_STATE_WARNING,
    LimitState.EXCEEDED: limit_pb2.LIMIT_STATE_EXCEEDED,
    LimitState.SHADOW_EXCEEDED: limit_pb2.LIMIT_STATE_SHADOW_EXCEEDED,
}
_TRUE: Final = b"\x01"

_Key = tuple[str, str, str, LimitState, int]
_Parts = tuple[bytes, bytes, bytes]
# By the place of a charge, the state of its limit, and what it allows.
_Known = dict[tuple[int, bytes, float], _Parts]


class Replies:
    """Encodes replies. What it keeps is made anew when it is too much."""

    def __init__(self) -> None:
        # What a limit's status begins with, has in its middle, and ends with.
        self._parts: dict[_Key, _Parts] = {}
        # The same by the charges that are kept for calls alike (`flow/place.py`).
        self._kept: dict[int, tuple[Sequence[Charge], _Known]] = {}
        # When limits reset.
        self._ends: dict[float, bytes] = {}

    def consumed(self, result: ConsumeResult) -> bytes:
        """Return the `CheckAndConsumeResponse` of a decision."""
        decision = result.decision
        parts: list[bytes] = [b"\x08\x01"] if decision.allowed else []
        readings = decision.readings
        if type(readings) is Readings:
            self._add_rows(parts, readings)
        else:
            parts += [self._status(reading) for reading in readings]
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
        at_us = reading.resets_at_us
        return filled(
            self._found(reading),
            reading.used,
            reading.remaining,
            self._ends.get(at_us) or self._end(at_us),
        )

    def _found(self, reading: LimitReading) -> _Parts:
        state = reading.state
        key = (reading.account, reading.limit_id, reading.meter, state, reading.limit)
        found = self._parts.get(key)
        if found is None:
            if len(self._parts) >= PARTS_MAX:
                self._parts.clear()
            found = self._parts[key] = parts_of(reading)
        return found

    def _add_rows(self, parts: list[bytes], readings: Readings) -> None:
        """Add the status of each limit, as a field of the reply, without a reading of it."""
        charges = readings.charges
        kept = self._kept.get(id(charges))
        if kept is None:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            # Kept too: their identity must not be another's.
            kept = self._kept[id(charges)] = (charges, {})
        known, ends = kept[1], self._ends
        for place, (state, used, limit, resets_at_us) in enumerate(readings.rows):
            found = known.get((place, state, limit))
            if found is None:
                if len(known) >= LIMITS_KEPT_MAX:
                    known.clear()
                found = known[place, state, limit] = self._found(readings[place])
            left = int(limit - used) if limit > used else 0
            # Windows of many accounts end at the same moment.
            end = ends.get(resets_at_us) or self._end(int(resets_at_us))
            parts.append(filled(found, int(used), left, end))

    def _end(self, at_us: int) -> bytes:
        if not at_us:
            return b""
        if len(self._ends) >= ENDS_MAX:
            self._ends.clear()
        made = self._ends[at_us] = micros(b"\x32", at_us)
        return made


def filled(found: _Parts, used: int, remaining: int, end: bytes) -> bytes:
    """Return a status with its figures between the parts that are always the same."""
    head, middle, tail = found
    content = head + b"\x18" + varint(used) + middle if used else head + middle
    content += b"\x28" + varint(remaining) + end + tail if remaining else end + tail
    return b"\x12" + varint(len(content)) + content


def parts_of(reading: LimitReading) -> _Parts:
    """Return what a status begins with, has in its middle, and ends with."""
    head = text(b"\x0a", reading.limit_id) + number(b"\x10", _STATES[reading.state])
    tail = text(b"\x3a", reading.meter) + text(b"\x42", tenant_of(reading.account))
    tail += text(b"\x4a", scope_of(reading.account))
    if reading.limit == UNLIMITED:
        tail += b"\x50" + _TRUE
    return head, number(b"\x20", reading.limit), tail
