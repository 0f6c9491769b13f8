"""The native transport: HTTP/2 in Rust, outside Python's lock, and calls handed over in batches.

Guarantees: the same methods behind the same edge as on grpcio. What it has no way to carry, which
is requests that stream, goes to a grpcio server behind it, on a socket that only we can reach.
Refuses to know: what methods do.
"""

import asyncio
import contextlib
import shutil
import tempfile
from inspect import signature
from pathlib import Path
from typing import Any, Final

from pygrpc_native import NativeGrpcFront

from tallygate.api.edge import Edge
from tallygate.api.native_front import Front, FrontOptions
from tallygate.api.native_traced import TracedFront
from tallygate.api.transport import (
    AGE_GRACE_MS,
    IDLE_S,
    KEEPALIVE_MS,
    KEEPALIVE_TIMEOUT_MS,
    Methods,
    ServerOptions,
)
from tallygate.api.transport_grpcio import GrpcioTransport

IO_THREADS: Final = 1
# What the front is able to beyond its first release, by the parameters that it takes.
ABLE: Final = frozenset(signature(NativeGrpcFront).parameters)
BOUNDED: Final = "bare_methods" in ABLE


def amiss(options: ServerOptions) -> str | None:
    """Return what is asked for that this transport cannot do, None if it can do it all."""
    if options.tls is not None:
        return "it cannot speak TLS (tls_cert_file)"
    if options.knows_callers:
        return "it cannot tell who calls (tls_identities)"
    if BOUNDED:
        return None
    if options.connection_age_s:
        return "it cannot close connections by their age (connection_age_ms)"
    if options.connection_idle_s != IDLE_S:
        return "it cannot close connections that are idle (connection_idle_ms)"
    return None


def unbounded() -> str | None:
    """Return what the installed front leaves unbounded, None for nothing."""
    if BOUNDED:
        return None
    return (
        "this build of pygrpc-native reads messages of any size before they can be refused, "
        "sends no grpc-retry-pushback-ms and never closes idle connections"
    )


class NativeTransport:
    """A `Transport`: a front for each address, and grpcio behind them."""

    def __init__(self, options: ServerOptions, methods: Methods, edge: Edge) -> None:
        self._options = options
        self._edge = edge
        carried = {path: each for path, each in methods.items() if not _takes_many(each.handler)}
        self._paths = [
            (path, bool(each.handler.response_streaming)) for path, each in carried.items()
        ]
        self._bare = [path for path, each in carried.items() if each.batch is not None]
        self._methods = [*carried.values()]
        rest = {path: each for path, each in methods.items() if path not in carried}
        self._behind = GrpcioTransport(options, rest, edge)
        self._folder = Path(tempfile.mkdtemp(prefix="tallygate-"))
        self._fronts: list[Front] = []
        edge.gate.closing.append(self._end_streams)

    def listen(self, address: str) -> int:
        """Bind an address; return its port. Raises OSError."""
        native = NativeGrpcFront(
            address,
            self._paths,
            io_threads=IO_THREADS,
            call_details=True,
            delay_stream_headers=True,
            keepalive_time_ms=KEEPALIVE_MS,
            keepalive_timeout_ms=KEEPALIVE_TIMEOUT_MS,
            max_concurrent_streams=self._options.streams_max,
            max_metadata_size=self._options.metadata_bytes_max,
            reuse_port=self._options.reuse_port,
            **(self._bounds() if BOUNDED else {}),
        )
        size_max = self._options.message_bytes_max
        spans = self._edge.options.spans
        bare = BOUNDED and spans is None
        options = FrontOptions(self._methods, size_max, patched=BOUNDED, bare=bare)
        if spans is None:
            self._fronts.append(Front(native, options, self._edge))
        else:
            self._fronts.append(TracedFront(native, options, self._edge, spans))
        return int(native.bound_port)

    def _bounds(self) -> dict[str, Any]:
        options, edge = self._options, self._options.edge
        age_ms = int(options.connection_age_s * 1000)
        return {
            "max_message_bytes": options.message_bytes_max,
            "max_calls": edge.calls_max,
            "message_timeout_ms": int(edge.default_deadline_s * 1000),
            "handshake_timeout_ms": int(options.handshake_s * 1000),
            "max_connection_idle_ms": int(options.connection_idle_s * 1000),
            "max_connection_age_ms": age_ms or None,
            "max_connection_age_grace_ms": AGE_GRACE_MS,
            "wakes": True,
            # Their calls come without metadata and peer, which only traces ask them for.
            "bare_methods": self._bare if edge.spans is None else [],
        }

    async def start(self) -> None:
        """Serve what is bound."""
        behind = str(self._folder / "behind.sock")
        self._behind.listen(f"unix:{behind}")
        await self._behind.start()
        for front in self._fronts:
            front.start(behind)

    async def stop(self, grace_s: float) -> None:
        """Wait so long for calls that are inside, end the others, and close."""
        async with asyncio.TaskGroup() as all_of_them:
            all_of_them.create_task(self._behind.stop(grace_s))
            for front in self._fronts:
                all_of_them.create_task(front.stop(grace_s))
        self._forget()

    async def abandon(self) -> None:
        """Give back what is bound."""
        for front in self._fronts:
            await front.stop(0.0)
        await self._behind.abandon()
        self._forget()

    def _end_streams(self) -> None:
        for front in self._fronts:
            front.end_streams()

    def _forget(self) -> None:
        with contextlib.suppress(ValueError):
            self._edge.gate.closing.remove(self._end_streams)
        shutil.rmtree(self._folder, ignore_errors=True)


def _takes_many(handler: Any) -> bool:  # noqa: ANN401  a handler of any request
    return bool(handler.request_streaming)
