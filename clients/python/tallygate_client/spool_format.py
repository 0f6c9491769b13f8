"""How entries lie on the disk: the same for the clients of every language.

A segment is a file of records: the payload's length and its CRC-32, both little-endian and of four
bytes, and the payload. A payload is a byte that says its kind, and what that kind holds.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from .gen.v1 import quota_pb2, usage_pb2

HEADER: Final = struct.Struct("<II")
COUNT: Final = struct.Struct("<I")
USAGE: Final = 1
COMMIT: Final = 2
# A commit, and what to record should its reservation be gone by the time it is sent.
COMMIT_OR_USAGE: Final = 3
SUFFIX: Final = ".spool"
SET_ASIDE: Final = ".bad"
NUMBER_DIGITS: Final = 16


class Broken(Exception):
    """A record is cut off, or is not what was written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to be sent: an event, or a commit with what to record in its stead."""

    message: usage_pb2.RecordUsageRequest | quota_pb2.CommitRequest
    instead: tuple[usage_pb2.RecordUsageRequest, ...] = ()


def name_of(number: int) -> str:
    """Return the name of a segment."""
    return f"{number:0{NUMBER_DIGITS}d}{SUFFIX}"


def number_of(name: str) -> int | None:
    """Return the number of a segment; None for any other file."""
    stem = name.removesuffix(SUFFIX)
    is_segment = name.endswith(SUFFIX) and len(stem) == NUMBER_DIGITS
    return int(stem) if is_segment and stem.isascii() and stem.isdigit() else None


def encode(entry: Entry) -> bytes:
    """Return an entry's record."""
    message = entry.message.SerializeToString()
    if isinstance(entry.message, usage_pb2.RecordUsageRequest):
        payload = bytes([USAGE]) + message
    else:
        instead = usage_pb2.BatchRecordUsageRequest(requests=entry.instead).SerializeToString()
        payload = bytes([COMMIT_OR_USAGE]) + COUNT.pack(len(message)) + message + instead
    return HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def decode(content: bytes) -> Iterator[tuple[int, Entry]]:
    """Yield each entry of a segment with where its record ends.

    Raises:
        Broken: the next record is not whole.
    """
    at = 0
    while at < len(content):
        begins = at + HEADER.size
        if begins > len(content):
            raise Broken
        length, crc = HEADER.unpack_from(content, at)
        at = begins + length
        payload = content[begins:at]
        if len(payload) != length or not payload or zlib.crc32(payload) != crc:
            raise Broken
        yield at, _entry(payload)


def _entry(payload: bytes) -> Entry:
    kind, held = payload[0], payload[1:]
    try:
        if kind == USAGE:
            return Entry(usage_pb2.RecordUsageRequest.FromString(held))
        if kind == COMMIT:
            return Entry(quota_pb2.CommitRequest.FromString(held))
        if kind == COMMIT_OR_USAGE:
            (length,) = COUNT.unpack_from(held)
            ends = COUNT.size + length
            instead = usage_pb2.BatchRecordUsageRequest.FromString(held[ends:])
            commit = quota_pb2.CommitRequest.FromString(held[COUNT.size : ends])
            return Entry(commit, tuple(instead.requests))
    except (DecodeError, struct.error) as error:
        raise Broken from error
    raise Broken
