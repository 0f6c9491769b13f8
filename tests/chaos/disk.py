"""A disk of a few megabytes under one process's folder, to be filled.

Guarantees: filled, no further byte can be written; cleared, all that was there is there. Where a
file system cannot be mounted, as that needs root, there is no such disk.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SIZE_MB: Final = 32
_BALLAST: Final = "ballast"
_CHUNK: Final = b"\0" * 65_536


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A folder on a file system of its own."""

    folder: Path

    def fill(self) -> None:
        """Take all room that is left."""
        descriptor = os.open(self.folder / _BALLAST, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for chunk in (_CHUNK, _CHUNK[:512], _CHUNK[:1]):
                while _written(descriptor, chunk):
                    pass
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Give the room back."""
        (self.folder / _BALLAST).unlink(missing_ok=True)


def _written(descriptor: int, chunk: bytes) -> bool:
    try:
        return os.write(descriptor, chunk) > 0
    except OSError:
        return False


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk | None]:
    """Mount a small disk at a folder; lend None where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = os.geteuid() == 0 and _run(
        "mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)
    )
    try:
        yield SmallDisk(folder) if mounted else None
    finally:
        if mounted:
            _run("umount", "-l", str(folder))


def _run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
