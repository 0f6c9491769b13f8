"""What a folder of segments holds, found at the start.

Guarantees: every record that can be read is taken in, also behind one that cannot; bytes that
cannot be read are kept aside, once, and told. A segment that is being written when the process
dies may have an unfinished end: it is cut off.
Refuses to know: who opens the journal.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Final

from tallygate.adapters.journal.entry_codec import decode
from tallygate.adapters.journal.files import Files
from tallygate.adapters.journal.index import Index
from tallygate.adapters.journal.segment import HEAD_BYTES, Scanned, salt_of, scan

SALT_BITS: Final = 32


@dataclass(frozen=True, slots=True)
class Found:
    """What is needed of the segments, and where to go on."""

    index: Index
    salt: int
    next_mark: int
    next_segment: int


def recover(files: Files, damaged: Callable[[str, int], None]) -> Found:
    """Return what the folder holds. `damaged` is told: torn or corrupt, and how many spans.

    Raises OSError when the disk fails.
    """
    names = files.names()
    salts = (salt_of(files.read(name)) for name in names)
    salt = next((each for each in salts if each is not None), None)
    if salt is None:
        salt = secrets.randbits(SALT_BITS)
    index, next_mark = Index(), 1
    for name in names:
        data = files.read(name)
        index.begin(name)
        index.grew(len(data))
        scanned = scan(data, salt)
        for mark, body in scanned.records:
            try:
                index.put(mark, decode(body))
            except ValueError:
                # Its checksum holds: a later version wrote it, or ours is at fault.
                files.keep(f"{name}.{mark}.undecoded", body)
                damaged("undecoded", 1)
            next_mark = max(next_mark, mark + 1)
        _put_aside(files, name, data, scanned, damaged)
    last = int(names[-1].partition(".")[0]) if names else 0
    return Found(index, salt, next_mark, last + 1)


def _put_aside(
    files: Files,
    name: str,
    data: bytes | mmap,
    scanned: Scanned,
    damaged: Callable[[str, int], None],
) -> None:
    for start, end in scanned.corrupt:
        files.keep(f"{name}.{start}.corrupt", data[start:end])
    if scanned.corrupt:
        damaged("corrupt", len(scanned.corrupt))
    if data and salt_of(data[:HEAD_BYTES]) is None:
        damaged("head", 1)
    if scanned.torn_at < len(data):
        rest = data[scanned.torn_at :]
        if rest.strip(b"\0"):
            files.keep(f"{name}.{scanned.torn_at}.torn", rest)
        damaged("torn", 1)
        files.cut(name, scanned.torn_at)
