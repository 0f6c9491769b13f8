"""A proxy that speaks gRPC before a sidecar, and does to calls and connections what a case says.

client ──TCP, Unix socket, TLS──▶ front ──▶ gRPC server here ──▶ sidecar

Owns the listeners, the attempts taken down, and the connections. Guarantees that messages pass
unchanged, that being away refuses connections as a process that has ended does, and that its ports
stay its own meanwhile. Refuses to know which faults make sense.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import grpc

from clients.conformance.faults import CODES, REQUESTS, Attempt, Fault, Faults

BACKLOG: Final = 128
CHUNK: Final = 65_536
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing says so by a reset."""

FORWARD_TIMEOUT_S: Final = 10.0
"""For calls without a deadline of their own."""


@dataclass(slots=True)
class FaultProxy(grpc.GenericRpcHandler):
    """What listens before a sidecar, for one case."""

    upstream: grpc.aio.Channel
    folder: Path
    tls: ssl.SSLContext | None = None
    faults: Faults = field(default_factory=Faults)
    attempts: list[Attempt] = field(default_factory=list)
    port: int = 0
    tls_port: int = 0
    _held: list[socket.socket] = field(default_factory=list)
    _listening: list[asyncio.Server] = field(default_factory=list)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _charging: set["asyncio.Task[None]"] = field(default_factory=set)

    @property
    def path(self) -> Path:
        """Its Unix socket."""
        return self.folder / "s"

    @property
    def inner(self) -> Path:
        """The Unix socket between its two halves."""
        return self.folder / "i"

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """Carry any unary method as bytes."""
        method = handler_call_details.method
        name = method.rpartition("/")[2]
        if name not in REQUESTS:
            return None
        metadata = dict(handler_call_details.invocation_metadata)

        async def carry(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            left = _left(context)
            attempt = Attempt(
                name,
                REQUESTS[name].FromString(request),
                int(metadata.get("grpc-previous-rpc-attempts", 0)),
                None if left is None else round(left * 1000),
                str(metadata.get("user-agent", "")),
            )
            self.attempts.append(attempt)
            try:
                return await self._carry(method, request, attempt, context)
            except asyncio.CancelledError:
                attempt.ended = attempt.ended or "CANCELLED"
                raise
            finally:
                attempt.ended_s = attempt.ended_s or time.monotonic()

        return grpc.unary_unary_rpc_method_handler(carry)

    async def _carry(
        self,
        method: str,
        request: bytes,
        attempt: Attempt,
        context: grpc.aio.ServicerContext[bytes, bytes],
    ) -> bytes:
        fault = self.faults.take(attempt.method)
        if fault is None:
            return await self._forward(method, request, attempt, context)
        if fault.answer:
            await self._say(fault, fault.answer, attempt, context)
        if fault.items:
            attempt.ended = "ITEMS"
            return fault.item_errors(len(getattr(attempt.request, "requests", ())))
        if fault.hang:
            await _never()
        await asyncio.sleep(fault.delay_ms / 1000)
        if fault.lose or fault.mute:
            # To the end, whatever becomes of the caller: its answer is what is lost.
            charged = asyncio.create_task(self._charge(method, request))
            self._charging.add(charged)
            charged.add_done_callback(self._charging.discard)
            await asyncio.shield(charged)
            if fault.mute:
                await _never()
            await self._say(fault, fault.lose, attempt, context)
        reply = await self._forward(method, request, attempt, context)
        if fault.cut:
            attempt.ended = "CUT"
            self.reset()
        return reply

    async def _charge(self, method: str, request: bytes) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._ask(method, request, FORWARD_TIMEOUT_S)

    def _ask(
        self, method: str, request: bytes, timeout_s: float
    ) -> "grpc.aio.UnaryUnaryCall[bytes, bytes]":
        asked: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.upstream.unary_unary(method)
        return asked(request, timeout=timeout_s)

    async def _forward(
        self,
        method: str,
        request: bytes,
        attempt: Attempt,
        context: grpc.aio.ServicerContext[bytes, bytes],
    ) -> bytes:
        left = _left(context)
        try:
            reply = await self._ask(method, request, FORWARD_TIMEOUT_S if left is None else left)
        except grpc.aio.AioRpcError as error:
            attempt.ended = error.code().name
            trailers = tuple(error.trailing_metadata())
            await context.abort(error.code(), error.details() or "", trailers)
        attempt.ended = "OK"
        return reply

    async def _say(
        self,
        fault: Fault,
        code: str,
        attempt: Attempt,
        context: grpc.aio.ServicerContext[bytes, bytes],
    ) -> None:
        attempt.ended = code
        # Before it is said: a client may be back before this line would run after it.
        attempt.ended_s = time.monotonic()
        await context.abort(CODES[code], f"{code} by the proxy", tuple(fault.trailers(code)))

    async def away(self) -> None:
        """Refuse connections, and reset those that there are."""
        for each in self._listening:
            each.close()
        self._listening.clear()
        self.path.unlink(missing_ok=True)
        self.reset()

    async def back(self) -> None:
        """Listen again where it listened before."""
        if self._listening:
            return
        for number, context in enumerate((None, self.tls)):
            if number and context is None:
                continue
            made = _bound(self._held[number].getsockname()[1])
            self._listening.append(
                await asyncio.start_server(self._front, sock=made, backlog=BACKLOG, ssl=context)
            )
        self._listening.append(await asyncio.start_unix_server(self._front, self.path))

    def reset(self) -> None:
        """Reset every connection."""
        for each in list(self._writers):
            _abort(each)

    async def _front(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._listening:
            # It was taken just before the doors were closed.
            writer.transport.abort()
            return
        inward: asyncio.StreamWriter | None = None
        try:
            self._writers.add(writer)
            outward, inward = await asyncio.open_unix_connection(self.inner)
            await asyncio.gather(_copy(reader, inward), _copy(outward, writer))
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            for each in (writer, inward):
                if each is not None:
                    each.transport.abort()

    async def open(self) -> None:
        """Take the ports, and listen."""
        self._held = [_bound(0), _bound(0)]
        self.port, self.tls_port = (each.getsockname()[1] for each in self._held)
        await self.back()

    async def close(self) -> None:
        """Give the ports back."""
        await self.away()
        await asyncio.gather(*self._charging)
        for each in self._held:
            each.close()

    def of(self, method: str) -> list[Attempt]:
        """Return the attempts of a method; `*` is any."""
        return [each for each in self.attempts if method in ("*", each.method)]


def _left(context: grpc.aio.ServicerContext[bytes, bytes]) -> float | None:
    """Return the seconds until a call's deadline; the stubs do not know that it may have none."""
    return cast(float | None, context.time_remaining())


async def _never() -> None:
    """Wait for as long as the caller does."""
    await asyncio.get_running_loop().create_future()


def _bound(port: int) -> socket.socket:
    """Take a port without listening: it then refuses connections, and nobody else gets it."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def _abort(writer: asyncio.StreamWriter) -> None:
    held: socket.socket | None = writer.get_extra_info("socket")
    if held is not None and held.fileno() >= 0 and held.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while part := await reader.read(CHUNK):
            writer.write(part)
            await writer.drain()
    finally:
        # Either side that ends, ends both.
        writer.transport.abort()


@asynccontextmanager
async def fault_proxy(
    upstream: grpc.aio.Channel, folder: Path, tls: ssl.SSLContext | None = None
) -> AsyncIterator[FaultProxy]:
    """Lend a proxy before a sidecar; its sockets lie in the folder, whose path has to be short."""
    proxy = FaultProxy(upstream, folder, tls)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((proxy,))
    server.add_insecure_port(f"unix:{proxy.inner}")
    await server.start()
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
        await server.stop(None)
