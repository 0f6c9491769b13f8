"""Groups of processes under test: which there are, and calls that reach every one of them.

Guarantees that connections are many, so that each process has some.
Refuses to know: what is asked.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TypeVar

import grpc
import psutil

from tallygate.gen.v1 import quota_pb2_grpc, usage_pb2_grpc
from tests.e2e.processes import Server
from tests.servers import eventually

CONNECTIONS = 30
"""The kernel divides connections by their ports: that one of three gets none is one in 60,000."""

WORKER = "tallygate.commands.worker"
READY_S = 60.0
OPTIONS = [
    # Else all channels to one address share a connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.initial_reconnect_backoff_ms", 50),
]

Result = TypeVar("Result")


def workers(server: Server) -> list[psutil.Process]:
    """Return the processes of a group, but for the one that watches."""
    watching = psutil.Process(server.process.child.pid)
    found = []
    for each in watching.children():
        # One that ends at this moment has no command line any more.
        with suppress(psutil.NoSuchProcess):
            if WORKER in each.cmdline():
                found.append(each)
    return found


def serving(server: Server) -> list[psutil.Process]:
    """Return those that have connections of callers."""
    port = int(server.address.rpartition(":")[2])
    return [
        each
        for each in workers(server)
        if any(
            connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port
            for connection in each.net_connections("tcp")
        )
    ]


async def ready(server: Server) -> None:
    """Wait until all of a group's processes are ready."""

    async def answers() -> bool:
        return (await server.page("/readyz"))[0] == 200

    await eventually(answers, READY_S, what="a ready group")


@asynccontextmanager
async def channels(address: str, count: int = CONNECTIONS) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Lend so many connections, each its own."""
    async with AsyncExitStack() as stack:
        lent = [grpc.aio.insecure_channel(address, options=OPTIONS) for _ in range(count)]
        for each in lent:
            await stack.enter_async_context(each)
        await asyncio.gather(*(each.channel_ready() for each in lent))
        yield lent


@asynccontextmanager
async def quotas(
    address: str, count: int = CONNECTIONS
) -> AsyncIterator["list[quota_pb2_grpc.QuotaServiceAsyncStub]"]:
    """Lend the quota service over so many connections."""
    async with channels(address, count) as lent:
        yield [quota_pb2_grpc.QuotaServiceStub(each) for each in lent]


@asynccontextmanager
async def usages(
    address: str, count: int = CONNECTIONS
) -> AsyncIterator["list[usage_pb2_grpc.UsageServiceAsyncStub]"]:
    """Lend the usage service over so many connections."""
    async with channels(address, count) as lent:
        yield [usage_pb2_grpc.UsageServiceStub(each) for each in lent]


async def each(count: int, call: Callable[[int], Awaitable[Result]]) -> Counter[Result]:
    """Make so many calls at once; return how often each result came."""
    return Counter(await asyncio.gather(*(call(number) for number in range(count))))


async def labelled(server: Server, name: str) -> dict[str, float]:
    """Return a metric's values by their labels as they are written."""
    _, text = await server.page("/metrics")
    found = {}
    for line in text.splitlines():
        if line.startswith(f"{name}{{"):
            labels, _, value = line.removeprefix(name).rpartition(" ")
            found[labels] = float(value)
    return found
