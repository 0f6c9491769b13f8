"""A gRPC server over grpc.aio: addresses, bounds, health, reflection.

Guarantees: every bound that grpcio leaves open is set here; a Unix socket admits its owner and
group only.
Refuses to know: which services it serves.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tallygate.api.edge import EdgeOptions, Registry
from tallygate.domain.errors import TallygateError

SOCKET_MODE: Final = 0o660
METADATA_BYTES_MAX: Final = 16 * 1024
# One client's calls in flight; past this it waits in its own stack.
STREAMS_MAX: Final = 1_000
# Callers are told to wait 200 ms: by then, those that keep to it have gone quiet.
QUIET_S: Final = 0.1

Register = Callable[[Registry], None]


class AddressInUse(TallygateError):
    """The address cannot be listened on."""

    reason = "INTERNAL"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where a server listens and how it is bounded."""

    addresses: Sequence[str]
    message_bytes_max: int
    edge: EdgeOptions
    metadata_bytes_max: int = METADATA_BYTES_MAX
    streams_max: int = STREAMS_MAX


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

    async def start(self) -> None:
        """Listen and serve. Raises `AddressInUse` naming the address."""
        for address in self._options.addresses:
            self.addresses.append(self._listen(address))
        await self._server.start()
        _admit_group(self.addresses)
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Turn health, refuse new calls and end streams as UNAVAILABLE, wait for calls, then close.

        grpcio's own stop cancels calls that it has received and not yet handed over. So it comes
        only when callers have been told to wait and nothing has come for a moment.
        """
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._gate.close()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + grace_s
        quiet_since = loop.time()
        while loop.time() < min(ends_at, quiet_since + QUIET_S):
            if self._gate.inside:
                quiet_since = loop.time()
            await asyncio.sleep(QUIET_S / 10)
        await self._server.stop(max(0.0, ends_at - loop.time()))

    def _listen(self, address: str) -> str:
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise AddressInUse(f"cannot listen on {address}") from error
        if address.startswith("unix:"):
            return address
        return f"{address.rpartition(':')[0]}:{port}"

    async def _set_health(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        for name in ("", *self._names):
            await self._health.set(name, status)


def _admit_group(addresses: Sequence[str]) -> None:
    for address in addresses:
        if address.startswith("unix:"):
            Path(address.removeprefix("unix:")).chmod(SOCKET_MODE)


def _channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", options.message_bytes_max),
        ("grpc.max_send_message_length", options.message_bytes_max),
        ("grpc.max_metadata_size", options.metadata_bytes_max),
        ("grpc.max_concurrent_streams", options.streams_max),
        # Two servers on one port would split the clients between them unseen.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 5),
    ]
