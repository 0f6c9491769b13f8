"""A bad network between a sidecar and its Redis: late, in crumbs, cut off, or a black hole.

Guarantees: what it passes on it passes in order and unchanged. Refuses to know what it carries.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

_CHUNK: Final = 65_536


@dataclass(slots=True)
class Proxy:
    """Faults that a test sets while it runs; each holds from the next bytes on."""

    target: str
    url: str = ""
    # Seconds by which each chunk of a reply is late.
    late_s: float = 0.0
    # Up to so many more, at random.
    jitter_s: float = 0.0
    # Bytes per write, 0 for as they come.
    crumb: int = 0
    # Replies of which only so many bytes arrive, then the connection is reset.
    cuts: int = 0
    cut_after: int = 5
    # Whether requests pass; cleared, they wait here.
    open: asyncio.Event = field(default_factory=asyncio.Event)
    # Whether replies pass; cleared, what Redis did is not heard of.
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    dice: random.Random = field(default_factory=lambda: random.Random(14))
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection, until either side ends it."""
        to_redis: asyncio.StreamWriter | None = None
        try:
            from_redis, to_redis = await asyncio.open_unix_connection(self.target)
            self.writers |= {writer, to_redis}
            async with asyncio.TaskGroup() as both:
                both.create_task(self._requests(reader, to_redis))
                both.create_task(self._replies(from_redis, writer))
        except* (OSError, EOFError):
            # One side has gone, so the other is to go too.
            pass
        finally:
            for each in (writer, to_redis):
                if each is not None:
                    each.transport.abort()
                    self.writers.discard(each)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            await self.open.wait()
            writer.write(chunk)
            await writer.drain()
        raise EOFError

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            if self.late_s or self.jitter_s:
                await asyncio.sleep(self.late_s + self.dice.random() * self.jitter_s)
            await self.heard.wait()
            if self.cuts:
                self.cuts -= 1
                writer.write(chunk[: self.cut_after])
                await writer.drain()
                raise EOFError
            step = self.crumb or len(chunk)
            for start in range(0, len(chunk), step):
                writer.write(chunk[start : start + step])
                await writer.drain()
                if self.crumb:
                    await asyncio.sleep(0)
        raise EOFError


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """Stand between callers and the Redis at a Unix socket's address."""
    proxy = Proxy(url.removeprefix("unix://"))
    proxy.open.set()
    proxy.heard.set()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    proxy.url = f"redis://{host}:{port}/0"
    try:
        yield proxy
    finally:
        server.close()
        proxy.open.set()
        proxy.heard.set()
        for each in list(proxy.writers):
            each.transport.abort()
        await server.wait_closed()
