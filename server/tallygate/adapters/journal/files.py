"""The files of a journal, as few calls as it needs: a seam where tests make disks fail.

Guarantees: a file that was created is found again after a loss of power; `write` has written all
or has raised.
Refuses to know: what is in the files.
"""

import fcntl
import os
from mmap import mmap
from pathlib import Path
from typing import Protocol

from tallygate.domain.errors import JournalInUse


class AppendFile(Protocol):
    """A file that grows at its end. Each method raises OSError when the disk fails."""

    def write(self, data: bytes) -> None:
        """Append all of the data."""
        ...

    def sync(self) -> None:
        """Return once what was written survives a loss of power."""
        ...

    def cut(self, length: int) -> None:
        """Drop what lies beyond that many bytes."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Files(Protocol):
    """A folder of files. Each method raises OSError when the disk fails."""

    def names(self) -> list[str]:
        """Return the names of all files, in order."""
        ...

    def create(self, name: str) -> AppendFile:
        """Make an empty file."""
        ...

    def read(self, name: str) -> bytes | mmap:
        """Return all of a file; parts of it are bytes."""
        ...

    def keep(self, name: str, data: bytes) -> None:
        """Write a whole file, aside from the others: `names` does not tell of it."""
        ...

    def cut(self, name: str, length: int) -> None:
        """Drop what lies beyond that many bytes, for good."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file."""
        ...

    def close(self) -> None:
        """Let go of the folder."""
        ...


class DiskFile:
    """An open file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> None:
        """Append all of the data."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def sync(self) -> None:
        """Return once what was written survives a loss of power."""
        os.fdatasync(self._fd)

    def cut(self, length: int) -> None:
        """Drop what lies beyond."""
        os.ftruncate(self._fd, length)
        os.lseek(self._fd, length, os.SEEK_SET)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


class DiskFiles:
    """A folder on disk, which one process has at a time. Raises `JournalInUse`, and OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._aside = folder / "quarantine"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # The system lets go of it when the process dies, however it dies.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise JournalInUse(f"another process has the journal in {folder}") from error

    def names(self) -> list[str]:
        """Return the names of all segments, in order."""
        return sorted(path.name for path in self._folder.glob("*.seg"))

    def create(self, name: str) -> DiskFile:
        """Make an empty file, found again after a loss of power."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(self._folder / name, flags, 0o600)
        try:
            self._sync_folder()
        except OSError:
            os.close(fd)
            raise
        return DiskFile(fd)

    def read(self, name: str) -> bytes | mmap:
        """Return all of a file, in memory that goes back to the system once it is let go.

        The allocator would keep it: a buffer as large as a segment for each thread that ever read
        one. The file itself is not mapped, as a disk that fails would then end the process.
        """
        with (self._folder / name).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                return b""
            data = mmap(-1, size)
            at = 0
            while at < size:
                with memoryview(data) as whole, whole[at:] as rest:
                    taken = file.readinto(rest)
                if not taken:
                    break
                at += taken
            # What was cut off meanwhile reads as zeros, which no record begins with.
            return data

    def keep(self, name: str, data: bytes) -> None:
        """Write a whole file, aside from the others."""
        self._aside.mkdir(exist_ok=True)
        (self._aside / name).write_bytes(data)

    def cut(self, name: str, length: int) -> None:
        """Drop what lies beyond, for good."""
        fd = os.open(self._folder / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, length)
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._lock)

    def _sync_folder(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
