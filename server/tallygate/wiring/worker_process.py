"""A process of the group, as the one that watches sees it.

Guarantees: it ends when we do, in whatever way; what it says is heard whole.
Refuses to know: when to start and to end it.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence
from typing import Final, Self

from tallygate.wiring.worker_line import MESSAGE_BYTES_MAX, Message, Order, decode

MODULE: Final = "tallygate.commands.worker"
PAGE_TIMEOUT_S: Final = 1.0
"""A process answers from a thread in some milliseconds; one that is stopped never does."""
PAGE_BYTES: Final = 64 * 1024


class WorkerProcess:
    """A process that was started. Call `reaped` at last."""

    def __init__(self, child: asyncio.subprocess.Process, line: socket.socket) -> None:
        self._child = child
        self._line = line

    @classmethod
    async def start(cls, order: Order, kept: Sequence[int]) -> Self:
        """Start a process that inherits the descriptors `kept`. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            child = await asyncio.create_subprocess_exec(
                # Nothing of the working folder may take the place of a module.
                *(sys.executable, "-P", "-m", MODULE, str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *kept),
            )
            ours.send(order.encoded())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(child, ours)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._child.pid

    async def heard(self) -> Message | None:
        """Return what it says next, None when it is over."""
        loop = asyncio.get_running_loop()
        try:
            data = await loop.sock_recv(self._line, MESSAGE_BYTES_MAX)
        except ConnectionError:
            return None
        return decode(data) if data else None

    def tell_to_end(self) -> None:
        """Have it drain and end; harmless when repeated."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()

    async def reaped(self, grace_s: float) -> int:
        """Wait for its end, kill it where that takes longer than the grace; return its code."""
        try:
            async with asyncio.timeout(grace_s):
                return await self._child.wait()
        except TimeoutError:
            self.kill()
            return await self._child.wait()
        finally:
            self._line.close()


def page(path: str, name: str, accept: str = "*/*") -> str:
    """Return a page of the ops listener on a Unix socket. Blocks. Raises OSError and ValueError."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(PAGE_TIMEOUT_S)
        asking.connect(path)
        asking.sendall(f"GET {name} HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode())
        received = b"".join(iter(lambda: asking.recv(PAGE_BYTES), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ValueError(f"{name} is not answered")
    return body.decode()
