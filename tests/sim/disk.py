"""A disk of the simulator: what was not synced is lost with the power, and the disk may fail.

Owns the bytes of one sidecar's journal, over all of its lives. Guarantees: what a sync that
succeeded has covered is there after a loss of power, unless an earlier sync of the file failed:
the system has dropped those bytes then, and says so only once. Refuses to know what is written.
"""

import errno
import random
from dataclasses import dataclass, field
from typing import Final

FLIPPED: Final = 0x40


@dataclass(slots=True)
class _Bytes:
    """A file: what is in it, and how much of that survives."""

    data: bytearray = field(default_factory=bytearray)
    synced: int = 0
    # A sync has failed: later ones say that they succeed, and keep nothing.
    dropped: bool = False


class Disk:
    """The folder of a journal: the `Files` port."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._files: dict[str, _Bytes] = {}
        self.aside: dict[str, bytes] = {}
        self.full = False
        self.failing = False

    def heal(self) -> None:
        """Have room, and fail no more."""
        self.full = self.failing = False

    def lose_power(self) -> None:
        """Lose what was not synced, or any part of it."""
        for file in self._files.values():
            if file.synced < len(file.data):
                left = self._chance.randint(file.synced, len(file.data))
                del file.data[left:]
                if left > file.synced and self._chance.random() < 0.5:
                    # A block that was half written.
                    file.data[left - 1] ^= FLIPPED
            file.synced = len(file.data)
            file.dropped = False

    def names(self) -> list[str]:
        """Return the names of all segments, in order."""
        return sorted(self._files)

    def create(self, name: str) -> "File":
        """Make an empty file."""
        self._fail()
        self._files[name] = _Bytes()
        return File(self, self._files[name])

    def read(self, name: str) -> bytes:
        """Return all of a file."""
        return bytes(self._files[name].data)

    def keep(self, name: str, data: bytes) -> None:
        """Write a whole file, aside from the others."""
        self.aside[name] = data

    def cut(self, name: str, length: int) -> None:
        """Drop what lies beyond, for good."""
        self._fail()
        file = self._files[name]
        del file.data[length:]
        file.synced = length

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._files.pop(name, None)

    def close(self) -> None:
        """Let go of the folder."""

    def write(self, file: _Bytes, data: bytes) -> None:
        """Append to a file; a full disk takes a part."""
        if self.full:
            file.data += data[: len(data) // 2]
            raise OSError(errno.ENOSPC, "no space left")
        self._fail()
        file.data += data

    def sync(self, file: _Bytes) -> None:
        """Have what was written survive."""
        if self.failing:
            file.dropped = True
        self._fail()
        if not file.dropped:
            file.synced = len(file.data)

    def _fail(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left")
        if self.failing:
            raise OSError(errno.EIO, "input/output error")


class File:
    """An open file: the `AppendFile` port."""

    def __init__(self, disk: Disk, held: _Bytes) -> None:
        self._disk = disk
        self._held = held

    def write(self, data: bytes) -> None:
        """Append all of the data."""
        self._disk.write(self._held, data)

    def sync(self) -> None:
        """Return once what was written survives a loss of power."""
        self._disk.sync(self._held)

    def cut(self, length: int) -> None:
        """Drop what lies beyond."""
        del self._held.data[length:]
        self._held.synced = min(self._held.synced, length)

    def close(self) -> None:
        """Let go of the file."""
