"""HTTP/2 as far as prepared gRPC calls need it: requests written once, ends of replies found.

Guarantees: what the server's windows and its streams at once allow is kept to; a call counts as
answered when a message came before its stream's end. Refuses to know: time, and the header fields
of replies, which stay compressed.
"""

import socket
from array import array
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD = 9
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 3, 4
WINDOW_MAX = 2**31 - 1
WINDOW = 65_535
# A message is one DATA frame of the size that every server takes, within a stream's first window.
MESSAGE_MAX = 16_384
# Where a call stands: sent or not yet, answered by a message, over.
ANSWERED, ENDED = 1, 2
READ_BYTES = 1 << 18
HANDSHAKE_TIMEOUT_S = 10


class ConnectionEnded(RuntimeError):
    """The server closed the connection, or said that it goes away."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def grpc_frame(message: bytes) -> bytes:
    """Return a message as gRPC frames it: not compressed, and its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def header_blocks(authority: str, method: str) -> tuple[bytes, bytes]:
    """Return the fields of a gRPC call, HPACK-coded: as a connection's first call has them, then.

    The first puts four fields into the table (RFC 7541, 6.2.1); later ones name their places.
    """
    first = b"\x83\x86"
    first += b"\x44" + _text("/" + method)
    first += b"\x41" + _text(authority)
    first += b"\x5f" + _text("application/grpc")
    first += b"\x40" + _text("te") + _text("trailers")
    return first, b"\x83\x86\xc1\xc0\xbf\xbe"


def _text(value: str) -> bytes:
    assert len(value) < 127, value
    return bytes((len(value),)) + value.encode()


class Requests:
    """All calls of one connection, given as gRPC frames: what goes out, and where each ends."""

    def __init__(self, authority: str, method: str, frames: Sequence[bytes]) -> None:
        first, later = header_blocks(authority, method)
        parts: list[bytes] = []
        self.ends = array("Q", [0])
        self.sizes = array("L", map(len, frames))
        total = 0
        for number, content in enumerate(frames):
            assert len(content) <= MESSAGE_MAX, f"{len(content)} bytes do not fit one frame"
            stream = 2 * number + 1
            part = frame(HEADERS, END_HEADERS, stream, later if number else first)
            part += frame(DATA, END_STREAM, stream, content)
            parts.append(part)
            total += len(part)
            self.ends.append(total)
        self.bytes = memoryview(b"".join(parts))
        self.count = len(frames)


class Connection:
    """A connection to a loopback port, on which a prepared list of calls is sent in its order."""

    def __init__(self, port: int, method: str, frames: Sequence[bytes]) -> None:
        self.requests = Requests(f"127.0.0.1:{port}", method, frames)
        self.released = 0
        self.ended = 0
        self.failed = 0
        self._states = bytearray(self.requests.count)
        self._window = WINDOW
        self._streams_max = WINDOW_MAX
        self._settled = False
        self._rest = b""
        self.pending = bytearray()
        self.socket = socket.create_connection(("127.0.0.1", port), HANDSHAKE_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._shake_hands()

    def fileno(self) -> int:
        """Return the socket's number, for select."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def release(self, calls: int, in_flight_max: int = WINDOW_MAX) -> None:
        """Send up to the `calls`th call, as far as windows and `in_flight_max` allow."""
        requests = self.requests
        room = min(self._streams_max, in_flight_max) - (self.released - self.ended)
        upto = min(calls, requests.count, self.released + max(room, 0))
        began = self.released
        while self.released < upto and self._window >= requests.sizes[self.released]:
            self._window -= requests.sizes[self.released]
            self.released += 1
        if self.released > began:
            self.pending += requests.bytes[requests.ends[began] : requests.ends[self.released]]

    def flush(self) -> None:
        """Write what waits, as far as the socket takes it."""
        if not self.pending:
            return
        try:
            sent = self.socket.send(self.pending)
        except BlockingIOError:
            return
        del self.pending[:sent]

    def receive(self) -> list[int]:
        """Read once; return the numbers of the calls that ended, those that failed among them.

        Raises ConnectionEnded.
        """
        try:
            read = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return []
        if not read:
            raise ConnectionEnded("the server closed the connection")
        buffer = self._rest + read if self._rest else read
        ended: list[int] = []
        place, size = 0, len(buffer)
        while size - place >= FRAME_HEAD:
            length = buffer[place] << 16 | buffer[place + 1] << 8 | buffer[place + 2]
            after = place + FRAME_HEAD + length
            if after > size:
                break
            kind, flags = buffer[place + 3], buffer[place + 4]
            if kind <= HEADERS:
                number = int.from_bytes(buffer[place + 5 : place + 9], "big") >> 1
                if kind == DATA:
                    self._states[number] = ANSWERED
                if flags & END_STREAM:
                    self._end(number, ended)
            else:
                self._control(kind, flags, buffer[place + 5 : after], ended)
            place = after
        self._rest = buffer[place:]
        return ended

    def _end(self, number: int, ended: list[int]) -> None:
        # A server may reset a stream that it has ended.
        if self._states[number] == ENDED:
            return
        self.failed += self._states[number] != ANSWERED
        self._states[number] = ENDED
        self.ended += 1
        ended.append(number)

    def _control(self, kind: int, flags: int, tail: bytes, ended: list[int]) -> None:
        """Take a frame that carries no reply; `tail` is its stream and its payload."""
        stream, payload = int.from_bytes(tail[:4], "big"), tail[4:]
        if kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == PING and not flags & ACK:
            self.pending += frame(PING, ACK, 0, payload)
        elif kind == SETTINGS and not flags & ACK:
            self._settle(payload)
        elif kind == RST_STREAM:
            self._end(stream >> 1, ended)
        elif kind == GOAWAY:
            raise ConnectionEnded(f"the server goes away: {payload[8:]!r}")

    def _settle(self, payload: bytes) -> None:
        for place in range(0, len(payload), 6):
            name = int.from_bytes(payload[place : place + 2], "big")
            value = int.from_bytes(payload[place + 2 : place + 6], "big")
            if name == MAX_CONCURRENT_STREAMS:
                self._streams_max = value
            # The four fields of our calls take less than 300 bytes of the table.
            assert name != HEADER_TABLE_SIZE or value >= 300, f"a header table of {value}"
            assert name != INITIAL_WINDOW_SIZE or value >= MESSAGE_MAX, f"a window of {value}"
        self.pending += frame(SETTINGS, ACK, 0, b"")
        self._settled = True

    def _shake_hands(self) -> None:
        ours = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + WINDOW_MAX.to_bytes(4, "big")
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, ours))
        self.socket.sendall(frame(WINDOW_UPDATE, 0, 0, (WINDOW_MAX - WINDOW).to_bytes(4, "big")))
        while not self._settled:
            self.receive()
        self.socket.sendall(self.pending)
        self.pending.clear()
        self.socket.setblocking(False)
