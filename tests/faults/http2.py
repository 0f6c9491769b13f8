"""A client that speaks HTTP/2 as rudely as a test asks: frames by hand, over one connection.

Guarantees: what is sent is what a test says, byte for byte. Refuses to know gRPC's statuses.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS = 1, 4
ACK: Final = 1
STREAM_MAX: Final = 2**31 - 1
CANCEL: Final = 8
FRAME_MAX: Final = 16_384
READ_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Frame:
    """What came: the frame's kind, its flags, its stream, and its payload."""

    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass(slots=True)
class Rude:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    next_stream: int = 1

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        """Send a frame."""
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
        self.writer.write(head + payload)

    def ask(self, path: str, **headers: str) -> int:
        """Begin a call, without its message; return its stream."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        named = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
        named |= {"content-type": "application/grpc", "te": "trailers"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.send(HEADERS, END_HEADERS, stream, b"".join(map(literal, named, named.values())))
        return stream

    def message(self, stream: int, message: bytes, *, compressed: bool = False) -> None:
        """Send a call's message, in frames as large as they may be, and no more of it."""
        data = bytes([compressed]) + len(message).to_bytes(4, "big") + message
        for start in range(0, len(data), FRAME_MAX):
            last = start + FRAME_MAX >= len(data)
            self.send(DATA, END_STREAM if last else 0, stream, data[start : start + FRAME_MAX])

    async def frame(self) -> Frame | None:
        """Return the next frame, None at the connection's end."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)

    async def ended(self, stream: int) -> bool:
        """Wait until the server has ended a call; say whether it did and not the connection."""
        while (frame := await self.frame()) is not None:
            over = frame.flags & END_STREAM or frame.kind == RST_STREAM
            if frame.stream == stream and over:
                return True
        return False

    async def told_to_go(self) -> int:
        """Wait until the server has named the last call that it takes; return its stream.

        First it says that it will, for calls that are on their way, and asks whether that was
        heard.
        """
        last = STREAM_MAX
        while last == STREAM_MAX:
            frame = await self.frame()
            assert frame is not None, "the connection has ended"
            if frame.kind == PING and not frame.flags:
                self.send(PING, ACK, 0, frame.payload)
            if frame.kind == GOAWAY:
                last = int.from_bytes(frame.payload[:4], "big")
        return last

    async def read_by_server(self) -> None:
        """Wait until the server has read all that was sent."""
        self.send(PING, 0, 0, b"all read")
        while (frame := await self.frame()) is not None and frame.kind != PING:
            pass

    async def closed(self) -> list[Frame]:
        """Wait until the server has closed; return what came before."""
        found: list[Frame] = []
        while (frame := await self.frame()) is not None:
            found.append(frame)
        return found


def literal(name: str, value: str) -> bytes:
    """Return a header field as a literal that no table remembers."""
    assert max(len(name), len(value)) < 127
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


@asynccontextmanager
async def rude(address: str, *, hello: bool = True) -> AsyncIterator[Rude]:
    """Connect to `host:port`; without `hello` nothing is said."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    client = Rude(reader, writer)
    if hello:
        writer.write(PREFACE)
        client.send(SETTINGS, 0, 0)
    try:
        yield client
    finally:
        writer.transport.abort()
