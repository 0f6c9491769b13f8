"""Callers that come whether they are answered or not, at a sidecar whose Redis is real.

Guarantees: every call has its end noted; callers that are refused keep to the pushback, or do not,
as a test says. Refuses to know what is too slow.
"""

import asyncio
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from tallygate.gen.v1 import quota_pb2_grpc
from tallygate.settings import Settings
from tallygate.wiring import Role, Running, running
from tests.e2e import catalogs
from tests.faults.proxy import Proxy, proxied
from tests.servers import eventually
from tests.sidecar import channel, charge
from tests.transports import TRANSPORT

BATCH = 4
ROOM = 24
LATE_S = 0.04
BUSY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(slots=True)
class Taken:
    """What became of some calls: ends by code, the seconds of those answered, and tries."""

    ends: Counter[str] = field(default_factory=Counter)
    answered_s: list[float] = field(default_factory=list)
    tries: int = 0
    pushbacks_ms: list[int] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """How many were answered."""
        return len(self.answered_s)

    def quantile_s(self, share: float) -> float:
        """Return the time within which so large a share of those answered was."""
        return sorted(self.answered_s)[int(share * (len(self.answered_s) - 1))]


async def call(stub: "quota_pb2_grpc.QuotaServiceAsyncStub", tenant: str, into: Taken) -> bool:
    """Call once; say whether there was an answer."""
    began = time.monotonic()
    into.tries += 1
    try:
        await stub.CheckAndConsume(charge(tenant=tenant), timeout=1.0)
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


async def closed_loop(
    stubs: Sequence["quota_pb2_grpc.QuotaServiceAsyncStub"],
    tenants: Sequence[str],
    callers: int,
    seconds: float,
    *,
    listens: bool = False,
) -> Taken:
    """Have so many callers call one after the other for a while, minding pushbacks or not."""
    into, ends = Taken(), time.monotonic() + seconds

    async def one(number: int) -> None:
        turn = number
        while time.monotonic() < ends:
            answered = await call(stubs[number % len(stubs)], tenants[turn % len(tenants)], into)
            if listens and not answered:
                await asyncio.sleep((into.pushbacks_ms or [100])[-1] / 1000)
            turn += callers

    await asyncio.gather(*(one(number) for number in range(callers)))
    return into


@dataclass(frozen=True, slots=True)
class Busy:
    """A sidecar of known capacity: so many operations in a pipeline, each pipeline so late."""

    process: Running
    stubs: list["quota_pb2_grpc.QuotaServiceAsyncStub"]
    proxy: Proxy

    def health(self) -> tuple[int, str]:
        """Ask the ops listener whether it lives and is ready. Blocks: call it in a thread."""
        url = f"http://127.0.0.1:{self.process.ops_port}"
        with urllib.request.urlopen(f"{url}/livez", timeout=5) as live:
            lives = live.status
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as ready:
            return lives + ready.status, "SERVING" if self.process.ready() else "not ready"


@asynccontextmanager
async def busy(url: str, folder: Path, channels: int) -> AsyncIterator[Busy]:
    """Serve at about a hundred decisions a second, with room for a few that wait."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(proxied(url))
        settings = Settings(
            transport=TRANSPORT.value,
            grpc_address=("127.0.0.1:0",),
            ops_address="127.0.0.1:0",
            redis_url=proxy.url,  # type: ignore[arg-type]  # parsed by the library
            catalog=catalogs.write(folder, catalogs.OPEN),
            data_dir=folder,
            counter_rebuild="none",
            admit_queue_max=ROOM,
            admit_batch_max=BATCH,
            redis_timeout_ms=20_000,
            breaker_hang_ms=20_000,
        )
        process = await stack.enter_async_context(running(settings, frozenset({Role.SERVE})))
        await eventually(process.ready, 30.0, what="a catalog")
        opened = [
            await stack.enter_async_context(channel(process.grpc_addresses[0]))
            for _ in range(channels)
        ]
        stubs = [quota_pb2_grpc.QuotaServiceStub(each) for each in opened]
        await call(stubs[0], "first", Taken())
        proxy.late_s = LATE_S
        yield Busy(process, stubs, proxy)
