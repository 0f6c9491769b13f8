"""One segment of the journal as bytes: a head, then records, each with its own checksum.

Guarantees: a record is read as it was written or not at all; what cannot be read is told as a span,
and the records after it are found all the same.
Refuses to know: what records mean, and files.

A head is three copies of: `TGJ1`, the journal's salt, CRC-32 of these. A record is: four bytes of
sync, the length of the body, CRC-32 over the mark and the body that begins with the salt, the mark,
the body. The salt is secret: no client can have a record forged within what it has stored.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from mmap import mmap
from typing import Final

MAGIC: Final = b"TGJ1"
SYNC: Final = b"\xf5\x9dTg"
BODY_BYTES_MAX: Final = 64 * 1024 * 1024
_HEAD: Final = struct.Struct(">4sII")
_RECORD: Final = struct.Struct(">4sIIQ")
_MARK: Final = struct.Struct(">Q")
HEAD_COPIES: Final = 3
HEAD_BYTES: Final = HEAD_COPIES * _HEAD.size
RECORD_BYTES: Final = _RECORD.size


@dataclass(slots=True)
class Scanned:
    """What a segment holds. `torn_at` is where an unfinished end begins, or the whole length."""

    records: list[tuple[int, bytes]] = field(default_factory=list)
    corrupt: list[tuple[int, int]] = field(default_factory=list)
    torn_at: int = 0


def head(salt: int) -> bytes:
    """Return the head of a segment."""
    copy = _HEAD.pack(MAGIC, salt, zlib.crc32(_MARK.pack(salt)))
    return copy * HEAD_COPIES


def salt_of(data: bytes | mmap) -> int | None:
    """Return the salt of a segment, None when no copy of its head can be read."""
    for start in range(0, HEAD_BYTES, _HEAD.size):
        part = data[start : start + _HEAD.size]
        if len(part) == _HEAD.size:
            magic, salt, checksum = _HEAD.unpack(part)
            if magic == MAGIC and checksum == zlib.crc32(_MARK.pack(salt)):
                return int(salt)
    return None


def record(mark: int, body: bytes, salt: int) -> bytes:
    """Return the record of a body, which must not be empty."""
    checksum = zlib.crc32(body, zlib.crc32(_MARK.pack(mark), salt))
    return _RECORD.pack(SYNC, len(body), checksum, mark) + body


def walk(data: bytes | mmap, salt: int) -> Iterator[tuple[int, int, int]]:
    """Iterate over the marks of a segment's records, with where each record begins and ends."""
    at = HEAD_BYTES
    while at < len(data):
        taken = _at(data, at, salt)
        if taken is None:
            following = data.find(SYNC, at + 1)
            at = following if following >= 0 else len(data)
            continue
        mark, end = taken
        yield mark, at, end
        at = end


def scan(data: bytes | mmap, salt: int) -> Scanned:
    """Return the records of a segment, and where it cannot be read."""
    found = Scanned()
    reached = HEAD_BYTES
    for mark, start, end in walk(data, salt):
        if start > reached:
            found.corrupt.append((reached, start))
        found.records.append((mark, data[start + RECORD_BYTES : end]))
        reached = end
    found.torn_at = min(reached, len(data))
    return found


def _at(data: bytes | mmap, at: int, salt: int) -> tuple[int, int] | None:
    """Return the mark and the end of the record that begins there, None where none does."""
    if len(data) - at < RECORD_BYTES:
        return None
    sync, length, checksum, mark = _RECORD.unpack_from(data, at)
    end = at + RECORD_BYTES + length
    if sync != SYNC or not 0 < length <= BODY_BYTES_MAX or end > len(data):
        return None
    body = memoryview(data)[at + RECORD_BYTES : end]
    if zlib.crc32(body, zlib.crc32(_MARK.pack(mark), salt)) != checksum:
        return None
    return mark, end
