"""What the script answers to an operation, read.

Guarantees: what is read here is exactly what the header of `admit.lua` says.
Refuses to know: what was asked of Redis, and how.
"""

import struct
from typing import Final

from tallygate.domain.answer import accounts_of
from tallygate.domain.decision import (
    Broken,
    Changed,
    Crowded,
    Decided,
    Fenced,
    Known,
    LimitReading,
    Mode,
    Moved,
    Operation,
    Outcome,
    Overflowed,
    RefundExceeds,
    ReservationState,
    Reused,
    Stale,
    TooLate,
    Unresolved,
)
from tallygate.domain.ids import AccountId, LimitId, MeterName, SourceId
from tallygate.domain.readings import STATES, Readings, Row

# A letter and three numbers: of an answer its verdict, its time in us and two by verdict, then of
# each reading its state, units used, limit, and when it resets in us.
_ROW: Final = struct.Struct("<cddd")
_SIZE: Final = struct.Struct("<H")

_BROKEN: Final = Broken("a stored counter or operation record cannot be read")
_PLAIN: Final[dict[bytes, Outcome]] = {
    b"U": Reused(),
    b"M": Changed(),
    b"H": Crowded(),
    b"V": Moved(),
    b"F": Fenced(),
    b"B": _BROKEN,
}
_DECIDED: Final = frozenset((b"G", b"Q", b"R"))
# An enumeration's members are slow to find, and this is asked of every answer.
_RESET: Final = Mode.RESET


def outcome(answer: bytes, operation: Operation, source_id: SourceId) -> Outcome:
    """Return what an answer to an operation says. `source_id` is whose call it was."""
    verdict = answer[:1]
    if verdict in _DECIDED:
        return _decided(answer, operation, source_id)
    match verdict:
        case b"P" | b"p":
            return _replayed(answer, operation, source_id)
        case b"S":
            return Stale(int(answer[2:]))
        case b"O":
            return Overflowed(operation.charges[int(answer[2:])].limit_id)
        case b"T":
            return Unresolved(ReservationState(answer[2:].decode()))
        case b"X":
            return RefundExceeds(int(answer[2:]))
        case b"K":
            told = (part.split(",") for part in answer[2:].decode().split(";"))
            return Known(tuple((int(place), how) for place, how in told))
        case b"D":
            return TooLate(int(answer[2:]))
        case verdict:
            return _PLAIN.get(verdict, _BROKEN)


def _decided(answer: bytes, operation: Operation, source_id: SourceId) -> Decided:
    (verdict, at_us, first, second), *rows = _ROW.iter_unpack(answer)
    charges = operation.charges
    if operation.mode is _RESET:
        charges = tuple(charge for charge in charges for _ in range(2))
    if len(rows) != len(charges):
        raise ValueError(f"{len(rows)} readings of {len(charges)} limits")
    readings = Readings(charges, rows)
    if verdict == b"R":
        return Decided(
            allowed=False,
            at_us=int(at_us),
            readings=readings,
            refused_by=charges[int(first)].limit_id,
            retry_after_us=int(second) if second >= 0 else None,
            source_id=source_id,
        )
    refused_by = charges[int(second)].limit_id if verdict == b"Q" else None
    return Decided(
        True, int(at_us), readings, refused_by, None, int(first), False, False, False, source_id
    )


def _replayed(answer: bytes, operation: Operation, source_id: SourceId) -> Decided:
    """Read the first answer, which may have been given to another sidecar, under its numbers."""
    numbered, rest = _sized(answer[1:])
    labels, rest = _sized(rest)
    (verdict, at_us, first, second), *rows = _ROW.iter_unpack(rest)
    names = [label.partition(",") for label in labels.decode().split(";")] if labels else []
    accounts = accounts_of([limit_id for limit_id, _, _ in names], operation)
    readings = tuple(
        _reading(account, LimitId(limit_id), MeterName(meter), row)
        for account, (limit_id, _, meter), row in zip(accounts, names, rows, strict=True)
    )
    return Decided(
        allowed=True,
        at_us=int(at_us),
        readings=readings,
        refused_by=readings[int(second)].limit_id if verdict == b"Q" else None,
        first_seq=int(first),
        replayed=True,
        source_id=SourceId(numbered.decode()) or source_id,
    )


def _reading(account: AccountId, limit_id: LimitId, meter: MeterName, row: Row) -> LimitReading:
    state, used, limit, resets_at_us = row
    return LimitReading(
        account=account,
        limit_id=limit_id,
        meter=meter,
        state=STATES[state],
        used=int(used),
        limit=int(limit),
        remaining=max(0, int(limit - used)),
        resets_at_us=int(resets_at_us),
    )


def _sized(text: bytes) -> tuple[bytes, bytes]:
    """Return what a size of two bytes announces, and the rest."""
    end = _SIZE.size + _SIZE.unpack_from(text)[0]
    return text[_SIZE.size : end], text[end:]
