"""Calls to processes under test, and what the ledger then holds.

Guarantees that a call that is answered was answered once, and that a call that failed says why.
Refuses to know how processes are started.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2, status_pb2

from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.servers import connection

CALL_TIMEOUT_S = 10.0
TENANTS = 20
CALLERS = 16
LOST = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    # What gRPC makes of a call that has reached a server which then ends.
    grpc.StatusCode.CANCELLED,
)
"""After these nobody knows whether the call was decided, so that it is sent again as it was."""


@asynccontextmanager
async def quota(address: str) -> AsyncIterator["quota_pb2_grpc.QuotaServiceAsyncStub"]:
    """Lend the quota service at an address."""
    # A restarted server is met at once, and not after the channel's own patience.
    options = [
        ("grpc.max_reconnect_backoff_ms", 200),
        ("grpc.initial_reconnect_backoff_ms", 50),
        # Callers of several processes on one port are to reach them all.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield quota_pb2_grpc.QuotaServiceStub(channel)


def consume(operation: str, amount: int = 1, tenant: str = "") -> quota_pb2.CheckAndConsumeRequest:
    """Return a charge of some requests; the tenant follows from the operation if none is given."""
    number = sum(operation.encode()) % TENANTS
    request = quota_pb2.CheckAndConsumeRequest(
        tenant_id=tenant or f"tenant-{number}", operation_id=operation
    )
    request.items.add(meter="requests", amount=amount)
    return request


def reason(error: grpc.aio.AioRpcError) -> str:
    """Return the reason in an error's ErrorInfo, which must be there and ours."""
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            status = status_pb2.Status.FromString(value)
            info = error_details_pb2.ErrorInfo()
            assert any(detail.Unpack(info) for detail in status.details)
            assert info.domain == "tallygate"
            return str(info.reason)
    raise AssertionError(f"no details: {error}")


@dataclass(slots=True)
class Load:
    """Operations that callers send, each again with the same id until it is answered."""

    address: str
    prefix: str
    tenant: str = ""
    answered: list[str] = field(default_factory=list)
    failures: Counter[grpc.StatusCode] = field(default_factory=Counter)
    last_failure: dict[str, grpc.StatusCode] = field(default_factory=dict)
    decided_after: Counter[grpc.StatusCode] = field(default_factory=Counter)
    sent: int = 0

    async def send(self, count: int) -> None:
        """Send so many operations from several callers at once, until each is answered."""
        numbers = range(self.sent, self.sent + count)
        self.sent += count
        names = iter([f"{self.prefix}-{number}" for number in numbers])
        async with quota(self.address) as stub, asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._call_all(stub, names))

    async def _call_all(
        self, stub: "quota_pb2_grpc.QuotaServiceAsyncStub", names: Iterable[str]
    ) -> None:
        for name in names:
            while not await self._call(stub, name):
                pass

    async def _call(self, stub: "quota_pb2_grpc.QuotaServiceAsyncStub", name: str) -> bool:
        try:
            reply = await stub.CheckAndConsume(
                consume(name, 1, self.tenant), timeout=CALL_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            if error.code() not in LOST:
                raise
            self.failures[error.code()] += 1
            self.last_failure[name] = error.code()
            return False
        assert reply.allowed
        if reply.replayed:
            # It had been decided all the same, though the caller was told of a failure.
            self.decided_after[self.last_failure[name]] += 1
        self.answered.append(name)
        return True


@dataclass(frozen=True, slots=True)
class Ledger:
    """Reads a database's ledger, not through the product."""

    dsn: str

    async def operations(self) -> list[str]:
        """Return the operation of each event."""
        async with connection(self.dsn) as opened:
            rows = await opened.fetch("select operation_id from tallygate.usage_event")
        return [row["operation_id"] for row in rows]

    async def count(self) -> int:
        """Return how many events there are."""
        async with connection(self.dsn) as opened:
            return int(await opened.fetchval("select count(*) from tallygate.usage_event"))

    async def rolled_up(self) -> int:
        """Return the sum over the rollup by day, which counts each event once, or is wrong."""
        async with connection(self.dsn) as opened:
            total = await opened.fetchval("select sum(sum) from tallygate.usage_day")
        return int(total or 0)

    async def dead_letters(self) -> dict[str, int]:
        """Return how many dead letters there are by reason."""
        async with connection(self.dsn) as opened:
            rows = await opened.fetch(
                "select reason, count(*) from tallygate.dead_letter group by reason"
            )
        return {row["reason"]: row["count"] for row in rows}
