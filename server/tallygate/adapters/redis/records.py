"""What the script remembers, read back: reservations, and the events of operations.

Guarantees: what the script wrote is read as it was meant, whatever signs its names hold.
Refuses to know: where records lie, and when they end.
"""

import re
import struct
from collections.abc import Callable

from tallygate.domain.decision import Reservation, ReservationState
from tallygate.domain.detail import Share
from tallygate.domain.errors import StorageFault
from tallygate.domain.hold import pieces_from_text
from tallygate.domain.ids import AccountId, OperationId
from tallygate.domain.made import made_ids, place_of, stem_of

_RESERVATION = re.compile(rb"([hcl]);(\d+);(\d+);\d+;(\d+):")
# How an older version wrote them, as text.
_TEXT = re.compile(rb"[^;]*;\d+;[^;]*;[GQ];(\d+);[^\n]*\n")
_OPERATION = b"\1"
_WHOLE_STEM = b"\3"
# Its end, time, first event's number, bytes of each call, events of each, calls.
_STEM = struct.Struct("<cddddHH")
_ENDS = struct.Struct("<d")
_SIZE = struct.Struct("<H")
# The answer begins with its verdict and its time in us.
_ANSWER = struct.Struct("<cd")


def reservation_from_record(record: bytes) -> Reservation:
    """Return the reservation of a record. Raises `StorageFault`."""
    head = _RESERVATION.match(record)
    if head is None:
        raise StorageFault("a stored reservation cannot be read")
    end = head.end() + int(head[4])
    try:
        shares = _shares(record[head.end() : end])
    except ValueError as error:
        raise StorageFault("a stored reservation's shares cannot be read") from error
    return Reservation(
        state=ReservationState(head[1].decode()),
        reserved_at_us=int(head[3]),
        expires_us=int(head[2]),
        shares=shares,
        payload=record[end:],
    )


def with_shares_of(record: bytes, kept: Callable[[AccountId], bool]) -> bytes:
    """Return the record of a reservation that holds of these accounts only.

    Raises `StorageFault`.
    """
    reservation_from_record(record)
    head = _RESERVATION.match(record)
    assert head is not None, "it was just read"
    end = head.end() + int(head[4])
    text, shares = record[head.end() : end], b""
    while text:
        account, rest = _sized(text)
        _, rest = _sized(rest)
        if kept(AccountId(account.decode())):
            shares += text[: len(text) - len(rest)]
        text = rest
    return record[: head.start(4)] + b"%d:" % len(shares) + shares + record[end:]


def events_of_record(record: bytes) -> tuple[bytes, int]:
    """Return the events of an operation, and when they were accepted. Raises `StorageFault`."""
    if not record.startswith(_OPERATION):
        text = _TEXT.match(record)
        if text is None:
            raise StorageFault("a stored operation cannot be read")
        return record[text.end() :], int(text[1])
    try:
        place = len(_OPERATION) + _ENDS.size
        for _ in ("fingerprint", "source id", "labels"):
            place += _SIZE.size + _SIZE.unpack_from(record, place)[0]
        (size,) = _SIZE.unpack_from(record, place)
        place += _SIZE.size
        _, at_us = _ANSWER.unpack_from(record, place)
    except struct.error as error:
        raise StorageFault("a stored operation cannot be read") from error
    return record[place + size :], int(at_us)


def events_of_stem(record: bytes, of: OperationId) -> tuple[bytes, int]:
    """Return the events of an operation of a stem, and when they were accepted.

    Nothing and 0 where the record has not that one. Raises `StorageFault`.
    """
    if not record.startswith(_WHOLE_STEM):
        return b"", 0
    try:
        _, _, at_us, _, size, _, calls = _STEM.unpack_from(record)
    except struct.error as error:
        raise StorageFault("a stored operation cannot be read") from error
    if place_of(of) >= calls:
        return b"", 0
    (first,) = made_ids(stem_of(of), 0, 1)
    # Nothing else in a record looks like an id that the service made, at random.
    return record[len(record) - int(size) :].replace(first.encode(), of.encode()), int(at_us)


def _shares(text: bytes) -> tuple[Share, ...]:
    shares: list[Share] = []
    while text:
        account, text = _sized(text)
        pieces, text = _sized(text)
        shares.append(Share(AccountId(account.decode()), pieces_from_text(pieces.decode())))
    return tuple(shares)


def _sized(text: bytes) -> tuple[bytes, bytes]:
    """Return what a length and a comma announce, and the rest."""
    size, comma, rest = text.partition(b",")
    if not comma or len(rest) < int(size):
        raise ValueError("shorter than announced")
    return rest[: int(size)], rest[int(size) :]
