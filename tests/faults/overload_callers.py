"""Callers that come whether they are answered or not, in a process of their own.

Guarantees: every call has its end noted; callers that are refused keep to the pushback, or do not,
as a test says; what they cost is not taken from the sidecar's event loop.
Refuses to know what is too slow.

Run as `python -m tests.faults.overload_callers ADDRESS`: says `ready` when all its connections have
been answered once; then does each order on its input, and says in JSON what became of it.
"""

import asyncio
import json
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, fields

import grpc

from tallygate.gen.v1 import quota_pb2_grpc
from tests.sidecar import channel, charge

CHANNELS = 8
HEALTH_TIMEOUT_S = 5.0
# What is said of turns and shares does not hang on whose second is over first on a slow machine.
PATIENCE_S = 20.0
# Those who do not listen are back so soon: a tenth of the least that they are told, or less. With
# no pause at all they would show how fast a machine refuses, and not what refusing does to others.
DEAF_S = 0.01
BUSY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
# What became of a minute of refusals is a line of some megabytes.
LINE_BYTES_MAX = 64 * 1024 * 1024


@dataclass(slots=True)
class Taken:
    """What became of some calls: ends by code, the seconds of those answered, and tries.

    `healthy` is how often the sidecar was asked meanwhile whether it is well, and said so.
    """

    ends: Counter[str] = field(default_factory=Counter)
    answered_s: list[float] = field(default_factory=list)
    tries: int = 0
    pushbacks_ms: list[int] = field(default_factory=list)
    healthy: int = 0

    @property
    def answered(self) -> int:
        """How many were answered."""
        return len(self.answered_s)

    def quantile_s(self, share: float) -> float:
        """Return the time within which so large a share of those answered was."""
        return sorted(self.answered_s)[int(share * (len(self.answered_s) - 1))]


@dataclass(frozen=True, slots=True)
class Order:
    """So many callers, who call one after the other for a while, minding pushbacks or not.

    Where there is an `ops_port`, health is asked there all the time: it has to be well.
    """

    tenants: Sequence[str]
    callers: int
    seconds: float
    listens: bool
    ops_port: int
    patience_s: float


@dataclass(frozen=True, slots=True)
class Callers:
    """The process, as its test sees it. It does one order at a time."""

    process: asyncio.subprocess.Process

    async def load(
        self,
        tenants: Sequence[str],
        callers: int,
        seconds: float,
        *,
        listens: bool = False,
        ops_port: int = 0,
        patience_s: float = PATIENCE_S,
    ) -> Taken:
        """Have so many call for a while; return what became of it."""
        assert self.process.stdin is not None
        order = json.dumps(asdict(Order(tenants, callers, seconds, listens, ops_port, patience_s)))
        self.process.stdin.write(order.encode() + b"\n")
        found = json.loads(await self.said())
        return Taken(Counter(found.pop("ends")), **found)

    async def said(self) -> str:
        """Return its next line. Raises AssertionError if it has ended."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "the callers' process has ended; what it said is above"
        return line.decode().strip()


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Callers]:
    """Lend a process of callers, connected."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.overload_callers", address),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    try:
        callers = Callers(process)
        assert await callers.said() == "ready"
        yield callers
    finally:
        # A test that has failed does not wait for a load that is under way.
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def connected(
    address: str,
) -> AsyncIterator[list["quota_pb2_grpc.QuotaServiceAsyncStub"]]:
    """Lend callers' ends, a connection each, which have been answered before."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(channel(address)) for _ in range(CHANNELS)]
        stubs = [quota_pb2_grpc.QuotaServiceStub(each) for each in opened]
        first = Taken()
        assert all([await call(stub, "first", first, PATIENCE_S) for stub in stubs])
        yield stubs


async def call(
    stub: "quota_pb2_grpc.QuotaServiceAsyncStub", tenant: str, into: Taken, patience_s: float
) -> bool:
    """Call once; say whether there was an answer."""
    began = time.monotonic()
    into.tries += 1
    try:
        await stub.CheckAndConsume(charge(tenant=tenant), timeout=patience_s)
    except grpc.aio.AioRpcError as error:
        if error.code() not in BUSY:
            raise
        into.ends[error.code().name] += 1
        told = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
        if told is not None:
            into.pushbacks_ms.append(int(told))
        return False
    into.ends["OK"] += 1
    into.answered_s.append(time.monotonic() - began)
    return True


async def done(order: Order, stubs: Sequence["quota_pb2_grpc.QuotaServiceAsyncStub"]) -> Taken:
    """Do an order; return what became of it."""
    into, ends = Taken(), time.monotonic() + order.seconds

    async def one(number: int) -> None:
        turn = number
        while time.monotonic() < ends:
            tenant = order.tenants[turn % len(order.tenants)]
            answered = await call(stubs[number % len(stubs)], tenant, into, order.patience_s)
            if not answered:
                told_s = (into.pushbacks_ms or [100])[-1] / 1000
                await asyncio.sleep(told_s if order.listens else DEAF_S)
            turn += order.callers

    over = threading.Event()
    watching = asyncio.create_task(asyncio.to_thread(watched, order.ops_port, over))
    await asyncio.gather(*(one(number) for number in range(order.callers)))
    over.set()
    into.healthy = await watching
    return into


def watched(ops_port: int, over: threading.Event) -> int:
    """Ask whether it lives and is ready until all is over; return how often. Raises if not."""
    asked = 0
    while ops_port and not over.is_set():
        for page in ("livez", "readyz"):
            url = f"http://127.0.0.1:{ops_port}/{page}"
            with urllib.request.urlopen(url, timeout=HEALTH_TIMEOUT_S) as reply:
                assert reply.status == 200
        asked += 1
    return asked


async def main(address: str) -> None:
    """Connect, say so, and do what is ordered until there is no more."""
    async with connected(address) as stubs:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while line := await asyncio.to_thread(sys.stdin.readline):
            taken = await done(Order(**json.loads(line)), stubs)
            # Not by `asdict`, which makes a counter of a counter's pairs.
            found = {each.name: getattr(taken, each.name) for each in fields(taken)}
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
