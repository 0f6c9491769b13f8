"""Facts about what a group of processes is made of: its port, its folders, its shares, its line."""

import os
import socket
from pathlib import Path

import pytest

from tallygate.api.shared_port import SharedPort
from tallygate.api.socket_lock import AddressInUse
from tallygate.settings import Settings
from tallygate.wiring.leftover import folder_of, left_over, note_done
from tallygate.wiring.place import ALONE, Place
from tallygate.wiring.roles import Role
from tallygate.wiring.worker_line import (
    Failed,
    Leaving,
    Order,
    Started,
    State,
    WorkerLine,
    decode,
    encode,
)

SECRET = "redis://user:hunter2@127.0.0.1:6379/0"


def listening(address: str, *, shared: bool) -> socket.socket:
    """Return a socket that listens, as a server does."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    host, _, port = address.rpartition(":")
    try:
        listener.bind((host, int(port)))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def test_a_free_port_is_kept() -> None:
    """Port 0 becomes a port at which several may listen together."""
    port = SharedPort("127.0.0.1:0")
    address = port.take()
    with listening(address, shared=True), listening(address, shared=True):
        pass
    port.give_back()


def test_of_two_groups_one_has_the_port() -> None:
    """The second is refused, before anybody listens and after; then the port is free again."""
    first = SharedPort("127.0.0.1:0")
    address = first.take()
    with pytest.raises(AddressInUse, match="share"):
        SharedPort(address).take()
    with listening(address, shared=True), pytest.raises(AddressInUse, match="listen"):
        SharedPort(address).take()
    first.give_back()
    first.give_back()
    again = SharedPort(address)
    assert again.take() == address
    again.give_back()


def test_the_port_is_kept_by_who_has_inherited_it() -> None:
    """The right lasts until the last process that has its descriptors is gone."""
    first = SharedPort("127.0.0.1:0")
    address = first.take()
    inherited = [os.dup(fd) for fd in first.fds]
    first.give_back()
    with pytest.raises(AddressInUse):
        SharedPort(address).take()
    for fd in inherited:
        os.close(fd)
    again = SharedPort(address)
    again.take()
    again.give_back()


def test_who_does_not_share_is_kept_away() -> None:
    """A server alone refuses a group, and is refused where a group listens."""
    with listening("127.0.0.1:0", shared=False) as alone:
        address = f"127.0.0.1:{alone.getsockname()[1]}"
        with pytest.raises(AddressInUse):
            SharedPort(address).take()
    group = SharedPort(address)
    group.take()
    with listening(address, shared=True), pytest.raises(OSError, match="in use"):
        listening(address, shared=False)
    group.give_back()


def test_shares_add_up() -> None:
    """What processes may spend of a budget together is the budget; one that hands in has none."""
    for count in (1, 2, 3, 7):
        for units in (0, 1, 5, 100):
            assert sum(Place(each, count).share_of(units) for each in range(count)) == units
    assert ALONE.share_of(5) == 5
    assert Place(4, 2, listens=False).share_of(100) == 0
    assert not ALONE.shares_port


def test_folders_of_a_larger_group_are_found(tmp_path: Path) -> None:
    """What has segments and no note of them is left over; what is written later is again."""
    assert folder_of(tmp_path, 0) == tmp_path
    assert left_over(tmp_path / "none", 1) == []
    for index in (1, 2, 3, 4):
        (folder_of(tmp_path, index) / "journal").mkdir(parents=True)
    for index in (1, 3):
        (folder_of(tmp_path, index) / "journal" / "1.seg").write_bytes(b"entries")
    (tmp_path / "process-x" / "journal").mkdir(parents=True)
    (tmp_path / "process-x" / "journal" / "1.seg").write_bytes(b"of somebody else")
    assert left_over(tmp_path, 1) == [1, 3]
    assert left_over(tmp_path, 2) == [3]
    note_done(folder_of(tmp_path, 3))
    assert left_over(tmp_path, 1) == [1]
    (folder_of(tmp_path, 3) / "journal" / "2.seg").write_bytes(b"more")
    assert left_over(tmp_path, 1) == [1, 3]


def test_orders_carry_all_settings(tmp_path: Path) -> None:
    """A process gets the settings as they are, secrets and all."""
    settings = Settings(
        redis_url=SECRET,  # type: ignore[arg-type]  # as the environment has it
        data_dir=tmp_path,
        grpc_address=("127.0.0.1:1", "127.0.0.1:2"),
        leases="on",
    )
    order = Order(settings, frozenset({Role.SERVE, Role.INGEST}), Place(1, 3))
    found = Order.decoded(order.encoded())
    assert found == order
    assert found.settings.redis_url is not None
    assert found.settings.redis_url.get_secret_value() == SECRET


@pytest.mark.parametrize(
    "message",
    [
        Started(["127.0.0.1:1"], [], ["127.0.0.1:2"]),
        State(False, {"catalog": "not loaded"}, 3),
        Failed("cannot", "redis_url"),
        Leaving(),
    ],
)
def test_messages_arrive_as_they_were(message: Started | State | Failed | Leaving) -> None:
    """What is said is what is heard."""
    assert decode(encode(message)) == message


def test_the_end_of_the_other_side_is_heard() -> None:
    """A process whose other side has died with something unread waits no longer, nor fails."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line = WorkerLine(theirs.detach())
    line.say(Leaving())
    ours.close()
    line.wait_for_end()
    line.say(Leaving())
    assert line.order() is None
    line.close()
