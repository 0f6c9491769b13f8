"""The right to a TCP address at which several processes of one group listen with SO_REUSEPORT.

Guarantees: of two groups on one address the second is refused, also at the same moment, and until
the last process of the first has ended in whatever way; whoever listens there without SO_REUSEPORT
is refused too, and refuses us. Port 0 becomes a port that stays ours.
Refuses to know: who listens.

SO_REUSEPORT alone guards nothing: a second group of the same user would be let in by the kernel,
and would take a part of the clients unseen. So the port is bound before anybody may share it, which
finds everybody who listens; and a name in the kernel, of the same network namespace as the port, is
taken for those who do not listen yet. Both are sockets, which the kernel gives back when the last
process that has them is gone; no file is left behind.
"""

import socket
from collections.abc import Sequence
from typing import Final

from tallygate.api.socket_lock import AddressInUse

NAME: Final = "\0tallygate/{host}/{port}"


class SharedPort:
    """The right to an address, from `take` to `give_back`. A process that inherits `fds` has it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._sockets: list[socket.socket] = []

    @property
    def fds(self) -> Sequence[int]:
        """What a process has to inherit, so that the right lasts as long as it does."""
        return [each.fileno() for each in self._sockets]

    def take(self) -> str:
        """Take the address; return it with its port. Raises `AddressInUse`."""
        host, _, wanted = self._address.rpartition(":")
        port = int(wanted)
        try:
            found = socket.getaddrinfo(
                host.removeprefix("[").removesuffix("]"),
                port,
                type=socket.SOCK_STREAM,
                flags=socket.AI_PASSIVE,
            )
            for family, _, _, _, where in dict.fromkeys(found):
                port = self._claim(family, str(where[0]), port)
        except OSError as error:
            self.give_back()
            message = f"cannot listen on {self._address}"
            if isinstance(error, AlreadyShared):
                message = f"other processes share {self._address}"
            raise AddressInUse(message) from error
        return f"{host}:{port}"

    def give_back(self) -> None:
        """Let go of the address; harmless when repeated."""
        for each in self._sockets:
            each.close()
        self._sockets.clear()

    def _claim(self, family: socket.AddressFamily, host: str, port: int) -> int:
        """Bind the port alone, take its name, then let those in who share; return the port."""
        bound = socket.socket(family)
        self._sockets.append(bound)
        # Connections of a server that has just ended do not count as somebody who listens.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
        taken = int(bound.getsockname()[1])
        name = socket.socket(socket.AF_UNIX)
        self._sockets.append(name)
        try:
            name.bind(NAME.format(host=host, port=taken))
        except OSError as error:
            raise AlreadyShared from error
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return taken


class AlreadyShared(OSError):
    """Another group has the address."""
