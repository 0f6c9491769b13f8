"""Who may connect to a Unix socket: its permissions, its group, and the folder that it lies in.

Guarantees: a socket admits nobody else before it is served; a folder that is missing is made for
its owner and group alone. A folder where anybody may put another socket in its place is told.
Refuses to know: what is served there, and who holds the path.

A socket says nothing of who is at its other end, so its permissions are all that proves him.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

# Owner and group come in; others do not even see what is there.
FOLDER_MODE: Final = 0o750

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SocketOwner:
    """The permissions and the group that sockets get; no group leaves the process's own."""

    mode: int = 0o660
    group: int | None = None

    def prepare(self, path: str) -> None:
        """Make the socket's folder where it is missing, and look at it. Raises OSError."""
        folder = Path(path).parent
        try:
            folder.mkdir(mode=FOLDER_MODE)
        except FileExistsError:
            found = folder.stat().st_mode
            if found & stat.S_IWOTH and not found & stat.S_ISVTX:
                log.warning("socket_folder_is_open", folder=str(folder), mode=f"{found & 0o7777:o}")
            return
        if self.group is not None:
            os.chown(folder, -1, self.group)
        # Whatever the process's mask has left of it.
        folder.chmod(FOLDER_MODE)

    def give(self, path: str) -> None:
        """Give a socket that is bound, and not served yet, to its group. Raises OSError."""
        if self.group is not None:
            os.chown(path, -1, self.group)
        # Last, as a change of the group may take permissions away.
        Path(path).chmod(self.mode)


OWN: Final = SocketOwner()
"""The process's own group, and nobody else."""
