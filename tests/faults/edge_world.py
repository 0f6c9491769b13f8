"""A server whose one method is held by a test: what the edge does, with nothing behind it.

Guarantees: edge and transport are what is shipped. Refuses to know Redis.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc

from tallygate.api.edge import EdgeOptions
from tallygate.api.server import Server, ServerOptions
from tallygate.api.transport import TransportName
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.sidecar import MESSAGE_BYTES_MAX, QUOTA
from tests.transports import TRANSPORT

METHOD = f"/{QUOTA}/CheckAndConsume"


class Told:
    """Keeps what the edge tells."""

    def __init__(self) -> None:
        self.inside = 0
        self.shed = 0
        self.codes: Counter[str] = Counter()

    def calls_started(self, calls: int) -> None:
        """Count it in."""
        self.inside += calls

    def calls_ended(self, method: str, code: str, seconds: Sequence[float]) -> None:
        """Count it out."""
        self.inside -= len(seconds)
        self.codes[code] += len(seconds)

    def call_shed(self) -> None:
        """Count it."""
        self.shed += 1


@dataclass(slots=True)
class Held(quota_pb2_grpc.QuotaServiceServicer):
    """Answers when it is let, and keeps who asked from where."""

    let: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)
    peers: set[str] = field(default_factory=set)

    async def CheckAndConsume(  # noqa: N802  the name is the proto's
        self,
        request: quota_pb2.CheckAndConsumeRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> quota_pb2.CheckAndConsumeResponse:
        """Wait to be let."""
        self.asked.append(request.operation_id)
        self.peers.add(context.peer())
        await self.let.wait()
        return quota_pb2.CheckAndConsumeResponse(allowed=True)


@dataclass(slots=True)
class Door:
    """The server, its method, and what it told."""

    server: Server
    held: Held
    told: Told
    address: str

    def stub(self, channel: grpc.aio.Channel) -> "quota_pb2_grpc.QuotaServiceAsyncStub":
        """Return a caller's end."""
        return quota_pb2_grpc.QuotaServiceStub(channel)


@asynccontextmanager
async def door(
    address: str = "127.0.0.1:0",
    *also: str,
    default_deadline_s: float = 30.0,
    calls_max: int = 1_000,
    calls_max_bytes: int = 1024 * 1024,
    transport: TransportName = TRANSPORT,
    **options: Any,  # of ServerOptions, by name
) -> AsyncIterator[Door]:
    """Serve; nothing is answered before `held.let` is set."""
    # The other methods are nobody's affair here.
    held, told = Held(), Told()  # type: ignore[abstract]
    edge = EdgeOptions(
        default_deadline_s, told, calls_max=calls_max, calls_max_bytes=calls_max_bytes
    )
    server = Server(
        ServerOptions([address, *also], MESSAGE_BYTES_MAX, edge, transport=transport, **options),
        {QUOTA: partial(quota_pb2_grpc.add_QuotaServiceServicer_to_server, held)},
    )
    await server.start()
    try:
        yield Door(server, held, told, server.addresses[0])
    finally:
        held.let.set()
        await server.stop(5.0)
