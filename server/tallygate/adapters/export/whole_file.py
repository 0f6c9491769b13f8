"""A file that is there whole or not at all.

Guarantees: until it is finished it has another name, in the same folder; finished, it is on the
disk before it has its own name, and its name before anybody is told.
Refuses to know: what is written.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tallygate.ports.export import FileRefused, Written


class WholeFile:
    """Bytes on their way to a file, with their digest."""

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        """Begin a file. Raises `FileRefused` where there is one, unless it may be replaced."""
        if path.exists() and not replace:
            raise FileRefused(f"{path} is there already", field="--out")
        self._path = path
        self._part = path.with_name(f".{path.name}.part-{os.getpid()}")
        self._digest = hashlib.sha256()
        self._size = 0
        with _refusing(path):
            self._file: BinaryIO = self._part.open("xb")

    def write(self, data: bytes) -> int:
        """Add bytes; return how many. Raises `FileRefused`."""
        with _refusing(self._path):
            self._file.write(data)
        self._digest.update(data)
        self._size += len(data)
        return len(data)

    def finish(self) -> Written:
        """Put the file in its place. Raises `FileRefused`."""
        with _refusing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.rename(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return Written(str(self._path), self._size, self._digest.hexdigest())

    def abandon(self) -> None:
        """Take away what is not finished."""
        self._file.close()
        self._part.unlink(missing_ok=True)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex. Raises `FileRefused` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FileRefused(f"{path} cannot be read: {reason}", field="--dir") from error


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Say of which file the system complains, without a traceback."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FileRefused(f"{path} cannot be written: {reason}", field="--out") from error
