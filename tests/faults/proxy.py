"""A bad network before one server: late, in crumbs, slow, one-way, cut off, or a black hole.

Guarantees: what it passes on it passes in order and unchanged. Refuses to know what it carries.
"""

import asyncio
import random
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

_CHUNK: Final = 65_536
# Chunks of replies that wait to be due: beyond them the server feels that nobody reads.
_AHEAD_MAX: Final = 16
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing says so by a reset, as a crashed machine's successor does."""


def _opened() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True)
class Proxy:
    """Faults that a test sets while it runs; each holds from the next bytes on.

    `target` is a Unix socket's path or `host:port`; a new one holds from the next connection on.
    """

    target: str
    url: str = ""
    port: int = 0
    # Seconds by which each chunk of a reply is late from when it came, and up to how many more, by
    # chance.
    late_s: float = 0.0
    jitter_s: float = 0.0
    # Bytes per write, 0 for as they come.
    crumb: int = 0
    # Bytes per second of each connection and way, 0 for as fast as they come.
    bytes_per_s: int = 0
    # Replies of which only so many bytes arrive, then the connection is reset.
    cuts: int = 0
    cut_after: int = 5
    # Whether connections are taken at all: one that is not is reset at once.
    refusing: bool = False
    # Whether requests pass, and replies; cleared, they wait here.
    open: asyncio.Event = field(default_factory=_opened)
    answering: asyncio.Event = field(default_factory=_opened)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def heal(self) -> None:
        """End every fault; what waited goes on."""
        self.late_s = self.jitter_s = 0.0
        self.crumb = self.bytes_per_s = self.cuts = 0
        self.refusing = False
        self.open.set()
        self.answering.set()

    def reset(self) -> int:
        """Reset every connection there is; return how many sides were cut."""
        cut = list(self.writers)
        for each in cut:
            _abort(each)
        return len(cut)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection, until either side ends it."""
        to_server: asyncio.StreamWriter | None = None
        try:
            if self.refusing:
                return
            from_server, to_server = await self._connect()
            self.writers |= {writer, to_server}
            async with asyncio.TaskGroup() as both:
                both.create_task(self._requests(reader, to_server))
                both.create_task(self._replies(from_server, writer))
        except* (OSError, EOFError):
            # One side has gone, so the other is to go too.
            pass
        finally:
            for each in (writer, to_server):
                if each is not None:
                    _abort(each)
                    self.writers.discard(each)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, colon, port = self.target.rpartition(":")
        if colon and port.isdigit():
            return await asyncio.open_connection(host, int(port))
        return await asyncio.open_unix_connection(self.target)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            await self.open.wait()
            await self._write(chunk, writer)
        raise EOFError

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_AHEAD_MAX)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._read(reader, came))
            while (arrived := await came.get())[1]:
                due, chunk = arrived
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self.answering.wait()
                if self.cuts:
                    self.cuts -= 1
                    writer.write(chunk[: self.cut_after])
                    await writer.drain()
                    raise EOFError
                await self._write(chunk, writer)
            raise EOFError

    async def _read(
        self, reader: asyncio.StreamReader, came: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        """Read chunks, and when each is due: what comes in two of them is late once, not twice."""
        chunk = b"any"
        while chunk:
            chunk = await reader.read(_CHUNK)
            late_s = self.late_s + self.jitter_s * self.chance.random()
            await came.put((time.monotonic() + late_s, chunk))

    async def _write(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        step = self.crumb or len(chunk)
        for start in range(0, len(chunk), step):
            part = chunk[start : start + step]
            writer.write(part)
            await writer.drain()
            if self.bytes_per_s:
                await asyncio.sleep(len(part) / self.bytes_per_s)
            elif self.crumb:
                await asyncio.sleep(0)


def _abort(writer: asyncio.StreamWriter) -> None:
    held: socket.socket | None = writer.get_extra_info("socket")
    if held is not None and held.fileno() >= 0 and held.family != socket.AF_UNIX:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@asynccontextmanager
async def proxied(url: str, *, seed: int = 0) -> AsyncIterator[Proxy]:
    """Stand between callers and the server at an address: `unix://PATH`, a path or `host:port`.

    `seed` says which jitter there is. `url` of what is lent is a Redis' address.
    """
    proxy = Proxy(url.removeprefix("unix://").removeprefix("redis://"), chance=random.Random(seed))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    host, proxy.port = server.sockets[0].getsockname()[:2]
    proxy.url = f"redis://{host}:{proxy.port}/0"
    try:
        yield proxy
    finally:
        server.close()
        proxy.heal()
        for each in list(proxy.writers):
            each.transport.abort()
        await server.wait_closed()
