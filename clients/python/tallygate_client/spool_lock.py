"""One holder per spool directory: clients of any language, in this process or another."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import Final

from .errors import SpoolInUse
from .forks import begin_anew_when_forked

NAME: Final = "lock"
LINE_BYTES_MAX: Final = 64
# Fields of /proc/PID/stat after the command's name, of which field 22 is when it started.
TICKS_AT: Final = 19


class _Held:
    """The directories that this process holds, as POSIX locks do not exclude their own process."""

    def __init__(self) -> None:
        self.forked()
        begin_anew_when_forked(self)

    def forked(self) -> None:
        """Hold none: what is held is the parent's."""
        self.lock = threading.Lock()
        self.directories: set[tuple[int, int]] = set()


_HELD = _Held()


class DirectoryLock:
    """The `lock` file of a directory, held from `take` to `free`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._directory = directory
        self._file = -1
        self._held: tuple[int, int] | None = None

    def take(self) -> None:
        """Hold the directory.

        Raises:
            SpoolInUse: somebody else does.
        """
        status = self._directory.stat()
        held = (status.st_dev, status.st_ino)
        with _HELD.lock:
            if held in _HELD.directories:
                raise _locked(self._directory, "another client of this process")
            while self._file < 0:
                self._file = self._try()
            _HELD.directories.add(held)
            self._held = held

    def free(self) -> None:
        """Hold it no more."""
        if self._held is None:
            return
        with _HELD.lock:
            _HELD.directories.discard(self._held)
            self._held = None
            # A process that lives on would otherwise seem to hold it, to those who read the line.
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = -1

    def forked(self) -> None:
        """Leave it to the parent, whose lock it stays."""
        if self._held is not None:
            self._held = None
            os.close(self._file)
            self._file = -1

    def _try(self) -> int:
        """Lock the file and return it; -1 where it was replaced meanwhile."""
        file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise _locked(self._directory, _holder(_read(file))) from None
            line = _read(file)
            if _lives_elsewhere(line):
                raise _locked(self._directory, _holder(line))
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()} {start_ticks(os.getpid())}\n".encode(), 0)
            if not self._is(file):
                os.close(file)
                return -1
        except BaseException:
            os.close(file)
            raise
        return file

    def _is(self, file: int) -> bool:
        try:
            return self._path.stat().st_ino == os.fstat(file).st_ino
        except FileNotFoundError:
            return False


def start_ticks(pid: int) -> int:
    """Return when a process began, which tells it from a later one of its number; 0 if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        return int(stat.rpartition(")")[2].split()[TICKS_AT])
    except (OSError, ValueError, IndexError):
        return 0


def _read(file: int) -> str:
    return os.pread(file, LINE_BYTES_MAX, 0).decode("ascii", "replace")


def _lives_elsewhere(line: str) -> bool:
    parts = line.split()
    if len(parts) != 2 or not all(each.isdecimal() for each in parts):
        return False
    pid, ticks = int(parts[0]), int(parts[1])
    if pid == os.getpid() or pid == 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    now_ticks = start_ticks(pid)
    return ticks == 0 or now_ticks in {0, ticks}


def _holder(line: str) -> str:
    pid = line.split(maxsplit=1)[0] if line.split() else ""
    return f"process {pid}" if pid.isdecimal() else "another process"


def _locked(directory: Path, holder: str) -> SpoolInUse:
    return SpoolInUse(
        f"the spool {directory} is held by {holder}; give each client a directory of its own",
        field="spool_dir",
    )
