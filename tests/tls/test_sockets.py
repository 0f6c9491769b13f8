"""Unix sockets: whom their permissions let in, and what lies where they are put."""

import asyncio
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tallygate.api.ops import listen
from tallygate.api.socket_lock import AddressInUse, SocketLock
from tallygate.api.socket_owner import SocketOwner
from tallygate.settings import Settings
from tallygate.wiring.securing import SocketGroupUnknown, socket_owner

# Nobody has it, so nothing else lets it in.
OTHER = 61_234
TEAM = 61_235

CALLER = """
import os, socket, sys
path, user, group = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
with socket.socket(socket.AF_UNIX) as caller:
    try:
        caller.connect(path)
    except OSError as error:
        print(error.strerror)
    else:
        print("connected")
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="tallygate-tests-") as name:
        found = Path(name)
        found.chmod(0o755)
        yield found


async def connecting(path: Path, user: int, group: int) -> str:
    """Connect as another account, in a process that gives up its own; return how that went."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CALLER, str(path), str(user), str(group)),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await child.communicate()
    return said.decode().strip()


# An ordinary account cannot become another; it can be kept out itself.
OWNERS = (
    [SocketOwner(0o660, TEAM)] if os.geteuid() == 0 else [SocketOwner(0o060)]
)  # fmt: skip


@pytest.mark.parametrize("owner", OWNERS)
async def test_another_account_is_kept_out(folder: Path, owner: SocketOwner) -> None:
    """Who is not in the socket's group gets EACCES; who is, and only he, is let in."""
    path = folder / "serve.sock"
    with listen(f"unix:{path}", owner):
        assert await connecting(path, OTHER, OTHER) == os.strerror(13)
        if os.geteuid() == 0:
            assert await connecting(path, OTHER, TEAM) == "connected"


def test_mode_and_group_are_the_settings(folder: Path) -> None:
    """A socket gets the mode that is set, and the group, by name or number."""
    own = os.getgid()
    owner = socket_owner(Settings(socket_mode="0600", socket_group=str(own)))
    path = folder / "serve.sock"
    with listen(f"unix:{path}", owner):
        found = path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o600, own)
    with pytest.raises(SocketGroupUnknown, match="TALLYGATE_SOCKET_GROUP"):
        socket_owner(Settings(socket_group="nobody-is-in-this-group"))


def test_missing_folder_is_made_for_the_group(folder: Path) -> None:
    """A folder that is not there is made, and others may not even look into it."""
    path = folder / "own" / "serve.sock"
    lock = SocketLock(str(path), SocketOwner(0o660, os.getgid()))
    lock.take()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    lock.give_back()
    far = SocketLock(str(folder / "a" / "b" / "serve.sock"))
    with pytest.raises(AddressInUse):
        far.take()


@pytest.mark.parametrize(("mode", "told"), [(0o777, True), (0o1777, False), (0o775, False)])
def test_folder_that_is_open_to_all_is_told(folder: Path, mode: int, told: bool) -> None:
    """Where anybody could put another socket in place of ours, the log says so."""
    folder.chmod(mode)
    with capture_logs() as logs:
        SocketOwner().prepare(str(folder / "serve.sock"))
    assert [each["event"] for each in logs] == ["socket_folder_is_open"] * told


def test_planted_link_is_not_followed(folder: Path) -> None:
    """A link where the lock file goes leads nowhere: what it points to keeps its content."""
    precious = folder / "precious"
    precious.write_text("as it was")
    (folder / "serve.sock.lock").symlink_to(precious)
    with pytest.raises(AddressInUse):
        SocketLock(str(folder / "serve.sock")).take()
    assert precious.read_text() == "as it was"


def test_abandoned_socket_is_bound_anew(folder: Path) -> None:
    """A socket that nobody listens on is no hindrance; a file that is no socket is left alone."""
    path = folder / "serve.sock"
    with socket.socket(socket.AF_UNIX) as before:
        before.bind(str(path))
    lock = SocketLock(str(path))
    lock.take()
    assert not path.exists()
    with pytest.raises(AddressInUse):
        SocketLock(str(path)).take()
    lock.give_back()
