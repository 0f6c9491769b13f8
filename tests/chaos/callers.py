"""Apps that ask and tell, each of its own sidecar, and ask again by the same id until answered.

Owns the mix of calls. Guarantees that no call is left without an answer unless the run is given
up. Refuses to know what befalls the servers.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import grpc

from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc, usage_pb2, usage_pb2_grpc
from tests.chaos.book import Book, Reply, asked
from tests.oracle.facts import Answer, Call, Kind

TIMEOUT_S: Final = 2.0
WAIT_S: Final = 0.1
WRITE_FAILED: Final = "Internal error from Core"
"""What grpcio's client says of a call that ended under its write, in the place of how it ended."""

WAIT_MAX_S: Final = 1.0
METER: Final = "requests"
BATCH_ITEMS: Final = 25
HOLD_MS: Final = 4_000

KINDS: Final[Mapping[str, int]] = {
    "open": 30,
    "strict": 20,
    "budget": 8,
    "allow": 8,
    "record": 14,
    "batch": 4,
    "hold": 10,
    "refund": 6,
}
"""How often each kind of call is made, in percent."""


@dataclass(slots=True)
class Line:
    """A channel to one sidecar."""

    sidecar: str
    quota: "quota_pb2_grpc.QuotaServiceAsyncStub"
    usage: "usage_pb2_grpc.UsageServiceAsyncStub"


@asynccontextmanager
async def line(sidecar: str, address: str) -> AsyncIterator[Line]:
    """Open a channel that finds a restarted sidecar at once and never retries by itself."""
    options = [
        ("grpc.max_reconnect_backoff_ms", 200),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Line(
            sidecar,
            quota_pb2_grpc.QuotaServiceStub(channel),
            usage_pb2_grpc.UsageServiceStub(channel),
        )


@dataclass(slots=True)
class App:
    """One caller, which does one thing after the other. `tenants` says whose calls it makes now."""

    name: str
    line: Line
    book: Book
    chance: random.Random
    tenants: Callable[[str], str]
    given_up: asyncio.Event = field(default_factory=asyncio.Event)
    serial: int = 0
    again: float = 0.03

    async def run(self, until: asyncio.Event, per_s: float) -> None:
        """Make calls at about so many a second until told to end; the last is answered first."""
        steps: Mapping[str, Callable[[], Awaitable[None]]] = {
            "record": self.record,
            "batch": self.batch,
            "hold": self.hold,
            "refund": self.refund,
        }
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not until.is_set():
            [kind] = self.chance.choices([*KINDS], [*KINDS.values()])
            await (steps[kind]() if kind in steps else self.consume(kind))
            # Behind its time it goes on at once, but does not make up for an outage afterwards.
            due = max(due + self.chance.expovariate(per_s), loop.time() - 1)
            if due > loop.time():
                await asyncio.sleep(due - loop.time())

    async def consume(self, kind: str) -> Call:
        """Ask for units, and now and then once more by the same id."""
        amount = self.chance.randint(1, 5)
        request = quota_pb2.CheckAndConsumeRequest(
            tenant_id=self.tenants(kind), operation_id=self._named(kind)
        )
        request.items.add(meter=METER, amount=amount)
        send = self._sender(self.line.quota.CheckAndConsume, request)
        call = await self._insist(Kind.CONSUME, request, send, amount)
        if call.answer is Answer.GRANTED and self.chance.random() < self.again:
            await self._insist(Kind.CONSUME, request, send, amount)
        return call

    async def record(self) -> None:
        """Tell of one use."""
        amount = self.chance.randint(1, 5)
        name = self._named("record")
        request = usage_pb2.RecordUsageRequest(
            tenant_id=self.tenants("record"),
            meter=METER,
            amount=amount,
            event_id=name,
            operation_id=name,
        )
        send = self._sender(self.line.usage.RecordUsage, request)
        await self._insist(Kind.RECORD, request, send, amount, gated=False)
        if self.chance.random() < self.again:
            await self._insist(Kind.RECORD, request, send, amount, gated=False)

    async def batch(self) -> None:
        """Tell of many uses at once, in a list or on a stream; those not taken are told again."""
        left: list[usage_pb2.RecordUsageRequest] = []
        for _ in range(BATCH_ITEMS):
            name = self._named("batch")
            left.append(
                usage_pb2.RecordUsageRequest(
                    tenant_id=self.tenants("batch"),
                    meter=METER,
                    event_id=name,
                    operation_id=name,
                    amount=self.chance.randint(1, 5),
                )
            )
        wait_s, streamed = WAIT_S, self.chance.random() < 0.5
        while left and not self.given_up.is_set():
            left = await self._tell(left, streamed=streamed)
            if left:
                wait_s = await self._pause(wait_s)

    async def hold(self) -> None:
        """Reserve units, then use some, give them back, or forget about them."""
        amount, tenant = self.chance.randint(2, 8), self.tenants("hold")
        request = quota_pb2.ReserveRequest(tenant_id=tenant, operation_id=self._named("hold"))
        request.items.add(meter=METER, amount=amount)
        request.ttl.FromMilliseconds(HOLD_MS)
        replies: list[Reply] = []
        send = self._sender(self.line.quota.Reserve, request, replies)
        await self._insist(Kind.RESERVE, request, send, amount)
        held = replies[-1] if replies else None
        if not isinstance(held, quota_pb2.ReserveResponse) or not held.allowed:
            return
        match self.chance.choice(["less", "more", "release", "forget"]):
            case "less" | "more" as way:
                used = self.chance.randint(1, amount) + (amount if way == "more" else 0)
                commit = quota_pb2.CommitRequest(
                    tenant_id=tenant,
                    reservation_id=held.reservation_id,
                    amounts=[used],
                    operation_id=self._named("commit"),
                    excess=quota_pb2.EXCESS_RECORD,
                )
                send = self._sender(self.line.quota.Commit, commit)
                await self._insist(Kind.COMMIT, commit, send, used)
            case "release":
                release = quota_pb2.ReleaseRequest(
                    tenant_id=tenant,
                    reservation_id=held.reservation_id,
                    operation_id=self._named("release"),
                )
                send = self._sender(self.line.quota.Release, release)
                await self._insist(Kind.RELEASE, release, send, 0)

    async def refund(self) -> None:
        """Use units, and take some of them back."""
        call = await self.consume("refund")
        if call.answer is not Answer.GRANTED:
            return
        units = dict(call.units)[METER]
        request = quota_pb2.RefundRequest(
            tenant_id=call.tenant,
            event_id=call.events[0],
            amount=self.chance.randint(1, units),
            operation_id=self._named("back"),
        )
        send = self._sender(self.line.quota.Refund, request)
        await self._insist(Kind.REFUND, request, send, -request.amount, gated=False)

    async def _listed(
        self, requests: Sequence[usage_pb2.RecordUsageRequest]
    ) -> usage_pb2.BatchRecordUsageResponse:
        return await self.line.usage.BatchRecordUsage(
            usage_pb2.BatchRecordUsageRequest(requests=requests), timeout=TIMEOUT_S
        )

    async def _streamed(
        self, requests: Sequence[usage_pb2.RecordUsageRequest]
    ) -> usage_pb2.StreamRecordUsageResponse:
        # Its stub says nothing of the calls that an open stream has.
        call = cast(Any, self.line.usage.StreamRecordUsage)(timeout=TIMEOUT_S)
        reply: usage_pb2.StreamRecordUsageResponse | None = None
        try:
            await call.write(usage_pb2.StreamRecordUsageRequest(requests=requests))
            reply = await call.read()
            await call.done_writing()
        except asyncio.InvalidStateError:
            # It had ended before all was written: how, its status says.
            pass
        except grpc.aio.AioRpcError as error:
            if error.details() != WRITE_FAILED:
                raise
        if not isinstance(reply, usage_pb2.StreamRecordUsageResponse):
            ended_under_write = await call.details() == WRITE_FAILED
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE if ended_under_write else await call.code(),
                await call.initial_metadata(),
                await call.trailing_metadata(),
                details=await call.details(),
            )
        return reply

    async def _tell(
        self, requests: Sequence[usage_pb2.RecordUsageRequest], *, streamed: bool
    ) -> list[usage_pb2.RecordUsageRequest]:
        calls = [
            asked(
                Kind.RECORD,
                each.tenant_id,
                each.operation_id,
                self.line.sidecar,
                {METER: each.amount},
                gated=False,
            )
            for each in requests
        ]
        try:
            reply = await (self._streamed(requests) if streamed else self._listed(requests))
        except grpc.aio.AioRpcError as error:
            kept = [self.book.failed(call, error) for call in calls]
        else:
            kept = [
                self.book.item_failed(call, each.error)
                if each.HasField("error")
                else self.book.answered(call, each.response)
                for call, each in zip(calls, reply.results, strict=True)
            ]
        return [
            request
            for request, call in zip(requests, kept, strict=True)
            if call.answer is Answer.OPEN
        ]

    async def _insist(
        self,
        kind: Kind,
        request: "_Named",
        send: Callable[[], Awaitable[Reply]],
        units: int,
        *,
        gated: bool = True,
    ) -> Call:
        """Send until there is an answer."""
        wait_s = WAIT_S
        while True:
            call = asked(
                kind,
                request.tenant_id,
                request.operation_id,
                self.line.sidecar,
                {METER: units},
                gated=gated,
            )
            try:
                call = self.book.answered(call, await send())
            except grpc.aio.AioRpcError as error:
                call = self.book.failed(call, error)
            if call.answer is not Answer.OPEN or self.given_up.is_set():
                return call
            wait_s = await self._pause(wait_s)

    def _sender(
        self,
        method: Callable[..., Awaitable[Reply]],
        request: object,
        replies: list[Reply] | None = None,
    ) -> Callable[[], Awaitable[Reply]]:
        async def send() -> Reply:
            reply = await method(request, timeout=TIMEOUT_S)
            if replies is not None:
                replies.append(reply)
            return reply

        return send

    async def _pause(self, wait_s: float) -> float:
        await asyncio.sleep(wait_s * (0.5 + self.chance.random()))
        return min(2 * wait_s, WAIT_MAX_S)

    def _named(self, kind: str) -> str:
        self.serial += 1
        return f"{kind}-{self.name}-{self.serial}"


_Named = (
    quota_pb2.CheckAndConsumeRequest
    | quota_pb2.ReserveRequest
    | quota_pb2.CommitRequest
    | quota_pb2.ReleaseRequest
    | quota_pb2.RefundRequest
    | usage_pb2.RecordUsageRequest
)
