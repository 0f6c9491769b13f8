"""Who may listen at a path: a Unix socket's lock file, and what a killed owner has left there.

Guarantees: of two servers on one path the second is refused, also at the same moment, as the kernel
gives the lock to one and takes it back when its process ends in whatever way; a socket that nobody
listens on any more is removed, and nothing else ever is.
Refuses to know: what is served there.

Binding alone guards nothing: grpcio removes a socket that it finds, and its owner never hears.
"""

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from typing import Final

from tallygate.api.socket_owner import OWN, SocketOwner
from tallygate.domain.errors import TallygateError

UNIX: Final = "unix:"
LOCK_MODE: Final = 0o660
# Whoever may write to the folder could have left a link there, to a file that we would empty.
LOCK_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
PROBE_TIMEOUT_S: Final = 1.0


class AddressInUse(TallygateError):
    """The address cannot be listened on."""

    reason = "INTERNAL"


class SocketLock:
    """The right to a path, from `take` to `give_back`."""

    def __init__(self, path: str, owner: SocketOwner = OWN) -> None:
        self._path = path
        self._owner = owner
        self._lock_path = Path(f"{path}.lock")
        self._file: int | None = None

    def take(self) -> None:
        """Lock the path and clear it of an abandoned socket. Raises `AddressInUse`."""
        try:
            self._owner.prepare(self._path)
            self._file = self._locked()
            self._file_says_who()
            self._remove_abandoned()
        except OSError as error:
            self.give_back()
            raise AddressInUse(f"cannot listen on {UNIX}{self._path}") from error
        except AddressInUse:
            self.give_back()
            raise

    def give_back(self) -> None:
        """Remove the lock file, then the lock; harmless when repeated."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._lock_path.unlink()
        os.close(self._file)
        self._file = None

    def _locked(self) -> int:
        while True:
            file = os.open(self._lock_path, LOCK_FLAGS, LOCK_MODE)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file).st_ino == self._lock_path.stat().st_ino:
                    return file
            except BlockingIOError as error:
                os.close(file)
                message = f"another process listens on {UNIX}{self._path}"
                raise AddressInUse(message) from error
            except FileNotFoundError:
                pass  # its owner removed it between the two steps: what we locked is no file's
            os.close(file)

    def _file_says_who(self) -> None:
        """Write our process id, for whoever looks."""
        assert self._file is not None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def _remove_abandoned(self) -> None:
        path = Path(self._path)
        if not path.is_socket():
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PROBE_TIMEOUT_S)
            try:
                probe.connect(self._path)
            except ConnectionRefusedError:
                path.unlink()
                return
        # Whoever it is does not know of locks.
        raise AddressInUse(f"another process listens on {UNIX}{self._path}")


def path_of(address: str) -> str | None:
    """Return the path of a Unix socket's address, None for any other."""
    return address.removeprefix(UNIX) if address.startswith(UNIX) else None
