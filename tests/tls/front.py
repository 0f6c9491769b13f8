"""TLS in front of a server that has none: for the embedded Redis and Postgres.

Guarantees: real handshakes, by the protocol that each database has for them. Refuses to know what
is said afterwards. It shows and believes the certificates that its files hold at each handshake.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

# What a client of Postgres sends first when it wants TLS, and the answer that grants it.
SSL_REQUEST = bytes.fromhex("0000000804d2162f")
GRANTED = b"S"
COPY_BYTES = 65_536


@dataclass
class Front:
    """A front that is up: its port, and the names of those who came in."""

    cert: Path
    key: Path
    client_ca: Path
    port: int = 0
    names: list[str] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def context(self) -> ssl.SSLContext:
        """Return what the next handshake is made with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        context.load_verify_locations(self.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def cut(self) -> None:
        """End every connection."""
        for each in self.writers:
            each.close()
        self.writers.clear()


@asynccontextmanager
async def fronted(front: Front, socket: str, *, postgres: bool = False) -> AsyncIterator[Front]:
    """Listen with TLS in front of a server's Unix socket."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if postgres:
                assert await reader.readexactly(len(SSL_REQUEST)) == SSL_REQUEST
                writer.write(GRANTED)
                await writer.drain()
            await writer.start_tls(front.context())
            subject = dict(x[0] for x in writer.get_extra_info("peercert")["subject"])
            front.names.append(subject["commonName"])
            inner, out = await asyncio.open_unix_connection(socket)
            front.writers += [writer, out]
            await asyncio.gather(_copy(reader, out), _copy(inner, writer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        front.cut()
        server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await reader.read(COPY_BYTES):
            writer.write(part)
            await writer.drain()
    writer.close()
