"""The folder of an embedded server: its lock, its socket's place, its log and its last process.

Guarantees: at most one owner per folder, by a lock that the kernel drops when the owner dies; and
that a server left behind by a killed owner is ended before the next one starts.
Refuses to know which server lives here.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tallygate.adapters.embedded.errors import FolderInUse, FolderUnusable

SOCKET_PATH_MAX_BYTES = 100
"""sun_path holds 108 bytes on Linux and 104 on macOS, with the closing zero."""

LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 8192

ORPHAN_POLL_S = 0.02


class ServerFolder:
    """A folder that one embedded server owns while it is locked."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.log_path = self.path / "server.log"
        self._pid_path = self.path / "server.pid"
        self._lock_fd: int | None = None

    def lock(self) -> None:
        """Create the folder and take its lock; raise FolderInUse or FolderUnusable."""
        with unusable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise FolderUnusable(f"{self.path}: {error}") from error
            raise FolderInUse(
                f"{self.path} is in use by process {owner}: stop it, or choose another folder"
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd

    def unlock(self) -> None:
        """Give the folder back; the lock file stays, as removing it would race with a taker."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def socket_folder(self, socket_name: str) -> Path:
        """Return a private folder in which the path of `socket_name` fits; make it if need be.

        Long data folders are common (CI, macOS), so a short folder named after this one stands
        in then: the same at every start, and refused when somebody else made it.
        """
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        stand_in = f"tallygate-{os.geteuid()}-{digest}"
        for place in (
            self.path / "run",
            Path(tempfile.gettempdir()) / stand_in,
            Path("/tmp") / stand_in,  # noqa: S108 - its owner is looked at below
        ):
            if len(os.fsencode(place / socket_name)) <= SOCKET_PATH_MAX_BYTES:
                with unusable(place):
                    place.mkdir(mode=0o700, exist_ok=True)
                    status = place.lstat()
                if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
                    raise FolderUnusable(f"{place} must be a folder that its owner alone may enter")
                if os.geteuid() not in {0, status.st_uid}:
                    raise FolderUnusable(f"{place} belongs to another account")
                return place
        raise FolderUnusable(f"no folder is short enough for a socket beside {self.path}")

    def log_tail(self) -> str:
        """Return the last lines of the server's log, or a remark that there are none."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - LOG_TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join(lines[-LOG_TAIL_LINES:]) or "(the server logged nothing)"

    def remember_process(self, pid: int) -> None:
        """Note the server's process, so that a later owner can end it if this one is killed."""
        mark = process_mark(pid)
        if mark is not None:
            self._pid_path.write_text(f"{pid} {mark}\n")

    def forget_process(self) -> None:
        """Drop the note: the server has ended."""
        self._pid_path.unlink(missing_ok=True)

    async def end_orphan(self, stop_signal: signal.Signals, timeout_s: float) -> None:
        """End the server that a killed owner left behind, if it still runs; needs the lock."""
        try:
            pid_text, _, mark = self._pid_path.read_text().strip().partition(" ")
            pid = int(pid_text)
        except (OSError, ValueError):
            return
        for each in (stop_signal, signal.SIGKILL):
            deadline = time.monotonic() + timeout_s
            if process_mark(pid) == mark:
                with suppress(ProcessLookupError):
                    os.kill(pid, each)
            while process_mark(pid) == mark and time.monotonic() < deadline:
                await asyncio.sleep(ORPHAN_POLL_S)
        self.forget_process()


def process_mark(pid: int) -> str | None:
    """Return what tells this process from a later one of the same number: when it started.

    None when there is no such process, or only its unread exit code.
    """
    proc = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # The name in brackets may hold spaces and brackets itself; the rest may not.
            fields = proc.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        state, started_ticks = fields[0], fields[19]
        return None if state in {"Z", "X"} else started_ticks
    listing = subprocess.run(  # noqa: S603 - a number is the only argument
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        timeout=5,
        check=False,
    )
    return listing.stdout.strip() or None


@contextmanager
def unusable(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals about `path` into FolderUnusable."""
    try:
        yield
    except OSError as error:
        raise FolderUnusable(f"{path}: {error.strerror or error}") from error
