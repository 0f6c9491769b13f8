"""A gRPC server: addresses, health, reflection, and its end in good order.

Guarantees: a Unix socket admits its owner and group only; what is bound is given back whatever
fails.
Refuses to know: which services it serves, and how bytes are carried.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from tallygate.api.batched import BatchMethods
from tallygate.api.edge import Edge, Registry
from tallygate.api.socket_lock import AddressInUse, SocketLock, path_of
from tallygate.api.transport import ServerOptions, TransportName
from tallygate.api.transport_choice import chosen

__all__ = ["Register", "Server", "ServerOptions"]

# A stop in good order lets callers find out: it closes when none has come for so long ...
QUIET_S: Final = 0.1
# ... or, where they come on and on, so long after the last of the calls in flight has ended.
LINGER_S: Final = 1.0

Register = Callable[[Registry], None]


class Server:
    """A gRPC server with some services, health and reflection."""

    def __init__(
        self,
        options: ServerOptions,
        services: dict[str, Register],
        batched: BatchMethods | None = None,
    ) -> None:
        self._options = options
        self._health = health.aio.HealthServicer()
        self._names = [*services]
        registry = Registry(batched)
        for register in services.values():
            register(registry)
        registry.edged = False
        # They ask of a server what a registry has.
        plain = cast(Any, registry)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, plain)
        names = [*services, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflected = reflection.aio.ReflectionServicer(service_names=names)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, plain)
        edge = Edge(options.edge)
        self._gate = edge.gate
        self.transport: TransportName
        self.transport, make = chosen(options)
        self._transport = make(options, registry.methods, edge)
        self.addresses: list[str] = []
        self._locks: list[SocketLock] = []

    async def start(self) -> None:
        """Listen and serve. Raises `AddressInUse` naming the address."""
        try:
            for address in self._options.addresses:
                self.addresses.append(self._listen(address))
            await self._transport.start()
        except BaseException:
            self._gate.close()
            await self._transport.abandon()
            self._unlock()
            raise
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Turn health, refuse new calls and end streams as UNAVAILABLE, wait for calls, then close.

        A transport's own stop cancels calls that it has received and not yet handed over. So it
        comes only when callers have been told to wait and nothing has come for a moment, or when
        they do not listen.
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
        await self._transport.stop(max(0.0, ends_at - loop.time()))
        self._unlock()

    def _listen(self, address: str) -> str:
        path = path_of(address)
        if path is not None:
            lock = SocketLock(path, self._options.owner)
            lock.take()
            self._locks.append(lock)
        try:
            port = self._transport.listen(address)
            if path is not None:
                # Before anything is served there.
                self._options.owner.give(path)
                return address
        except OSError as error:
            raise AddressInUse(f"cannot listen on {address}") from error
        return f"{address.rpartition(':')[0]}:{port}"

    def _unlock(self) -> None:
        for lock in self._locks:
            lock.give_back()
        self._locks.clear()

    async def _set_health(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        for name in ("", *self._names):
            await self._health.set(name, status)
