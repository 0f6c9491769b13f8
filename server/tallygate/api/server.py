"""A gRPC server over grpc.aio: addresses, bounds, health, reflection.

Guarantees: every bound that grpcio leaves open is set here; a Unix socket admits its owner and
group only.
Refuses to know: which services it serves.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tallygate.api.edge import EdgeOptions, Registry
from tallygate.api.socket_lock import AddressInUse, SocketLock, path_of

SOCKET_MODE: Final = 0o660
METADATA_BYTES_MAX: Final = 16 * 1024
# One connection's calls in flight; past this it waits in its client. These are ahead of any other
# connection's next call: as many as keep pipelines full, and no more.
STREAMS_MAX: Final = 128
# A stop in good order lets callers find out: it closes when none has come for so long ...
QUIET_S: Final = 0.1
# ... or, where they come on and on, so long after the last of the calls in flight has ended.
LINGER_S: Final = 1.0
# A connection on which nothing happens is closed after so long; its client opens another.
IDLE_S: Final = 600
# For a connection's first bytes: a client that is there sends them at once.
HANDSHAKE_S: Final = 10
# For the calls on a connection whose age is over: longer than any call's default deadline.
AGE_GRACE_MS: Final = 60_000

Register = Callable[[Registry], None]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where a server listens and how it is bounded."""

    addresses: Sequence[str]
    message_bytes_max: int
    edge: EdgeOptions
    metadata_bytes_max: int = METADATA_BYTES_MAX
    streams_max: int = STREAMS_MAX
    # Seconds after which a connection is closed in good order; 0 for never.
    connection_age_s: float = 0.0
    connection_idle_s: float = IDLE_S
    handshake_s: float = HANDSHAKE_S
    # Whether processes of one group listen there together; `api/shared_port.py` guards the port.
    reuse_port: bool = False


class Server:
    """A gRPC server with some services, health and reflection."""

    def __init__(self, options: ServerOptions, services: dict[str, Register]) -> None:
        self._options = options
        self._server = grpc.aio.server(options=_channel_options(options))
        self._health = health.aio.HealthServicer()
        self._names = [*services]
        registry = Registry(self._server, options.edge)
        self._gate = registry.gate
        for register in services.values():
            register(registry)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [*services, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        registry.refuse_unknown_methods()
        self.addresses: list[str] = []
        self._locks: list[SocketLock] = []

    async def start(self) -> None:
        """Listen and serve. Raises `AddressInUse` naming the address."""
        try:
            for address in self._options.addresses:
                self.addresses.append(self._listen(address))
            await self._server.start()
        except BaseException:
            await self._abandon()
            raise
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Turn health, refuse new calls and end streams as UNAVAILABLE, wait for calls, then close.

        grpcio's own stop cancels calls that it has received and not yet handed over. So it comes
        only when callers have been told to wait and nothing has come for a moment, or when they
        do not listen.
        """
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        gate = self._gate
        gate.close()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + grace_s
        quiet_since = empty_since = loop.time()
        came = gate.came
        while loop.time() < min(ends_at, quiet_since + QUIET_S, empty_since + LINGER_S):
            await asyncio.sleep(QUIET_S / 10)
            if gate.inside:
                quiet_since = empty_since = loop.time()
            elif gate.came != came:
                came, quiet_since = gate.came, loop.time()
        await self._server.stop(max(0.0, ends_at - loop.time()))
        self._unlock()

    def _listen(self, address: str) -> str:
        path = path_of(address)
        if path is not None:
            lock = SocketLock(path)
            lock.take()
            self._locks.append(lock)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise AddressInUse(f"cannot listen on {address}") from error
        if path is not None:
            # Before anything is served there.
            Path(path).chmod(SOCKET_MODE)
            return address
        return f"{address.rpartition(':')[0]}:{port}"

    async def _abandon(self) -> None:
        """Give back what was bound before a start failed: grpcio does so only once it has begun."""
        self._gate.close()
        with contextlib.suppress(RuntimeError):
            await self._server.start()
        await self._server.stop(None)
        self._unlock()

    def _unlock(self) -> None:
        for lock in self._locks:
            lock.give_back()
        self._locks.clear()

    async def _set_health(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        for name in ("", *self._names):
            await self._health.set(name, status)


def _channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    chosen = []
    if options.connection_age_s:
        # Calls that are inside when a connection's time is over end on it all the same.
        chosen = [
            ("grpc.max_connection_age_ms", int(options.connection_age_s * 1000)),
            ("grpc.max_connection_age_grace_ms", AGE_GRACE_MS),
        ]
    return [
        *chosen,
        ("grpc.max_connection_idle_ms", int(options.connection_idle_s * 1000)),
        ("grpc.server_handshake_timeout_ms", int(options.handshake_s * 1000)),
        ("grpc.max_receive_message_length", options.message_bytes_max),
        ("grpc.max_send_message_length", options.message_bytes_max),
        ("grpc.max_metadata_size", options.metadata_bytes_max),
        # Between the two a share of the calls would be refused, by chance.
        ("grpc.absolute_max_metadata_size", options.metadata_bytes_max),
        ("grpc.max_concurrent_streams", options.streams_max),
        # It counts calls that have ended and are not yet forgotten: an honest client with as many
        # calls as it may have lost a quarter of them. What is begun is bounded at the edge.
        ("grpc.http.overload_protection", 0),
        # Two servers on one port would split the clients between them unseen.
        ("grpc.so_reuseport", int(options.reuse_port)),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 5),
    ]
