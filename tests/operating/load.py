"""Callers who keep their own books: what they sent, what was accepted, how long they waited.

Owns the load of a rehearsal. Guarantees that what is accepted is known from replies alone, and that
each call is sent again under its id until it is answered. Refuses to know what befalls the servers.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import grpc

from tallygate.gen.v1 import quota_pb2, usage_pb2
from tests.chaos.callers import METER, Line
from tests.e2e.calls import LOST

TOGETHER: Final = 10
AGAIN_TOGETHER: Final = 500
TIMEOUT_S: Final = 10.0
RETRY_S: Final = 0.1
RETRY_MAX_S: Final = 1.0
TENANTS: Final = 40
STRICT: Final = 4
"""Tenants whose limit is reached: they show whether a disaster lets one pass it."""

UNDER_WAY_MAX: Final = 60
"""Lists at once: a machine that cannot keep up is given less, and not ever more."""

PATIENT: Final = {"breaker_hang_ms": 10_000, "redis_timeout_ms": 20_000}
"""On a machine full of other work a Redis that is there must not be taken for one that is not."""

ANSWER_S: Final = 300.0
LOST_CODES: Final = frozenset(code.value[0] for code in LOST)

Request = quota_pb2.CheckAndConsumeRequest | usage_pb2.RecordUsageRequest
Result = quota_pb2.BatchCheckAndConsumeResult | usage_pb2.BatchRecordUsageResult
Reply = quota_pb2.BatchCheckAndConsumeResponse | usage_pb2.BatchRecordUsageResponse


@dataclass(frozen=True, slots=True)
class Sold:
    """An event as its caller knows it: enough to hand it in again. Times in us since 1970."""

    tenant: str
    amount: int
    at_us: int
    accepted_us: int


@dataclass(slots=True)
class Books:
    """The callers' own books. `waits` are seconds from a list's first try to its last answer."""

    accepted: dict[str, Sold] = field(default_factory=dict)
    refused: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)
    waits: list[tuple[float, float]] = field(default_factory=list)
    sent: int = 0

    def granted(self) -> Counter[str]:
        """Return the units that each tenant was granted or told of."""
        units: Counter[str] = Counter()
        for each in self.accepted.values():
            units[each.tenant] += each.amount
        return units

    def longest_wait_s(self, since: float) -> float:
        """Return how long a caller waited at most, of the lists begun or open since an instant."""
        return max((ended - began for began, ended in self.waits if ended >= since), default=0.0)


def us_now() -> int:
    """Return microseconds since the Unix epoch, of the clock that the servers share."""
    return time.time_ns() // 1_000


@dataclass(slots=True)
class Load:
    """Begins list after list at a rate, whatever has become of those before."""

    lines: Sequence[Line]
    seed: int
    per_s: float
    books: Books = field(default_factory=Books)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Send until told to end; return when every list is answered."""
        chance, loop = random.Random(self.seed), asyncio.get_running_loop()
        due = loop.time()
        while not self.over.is_set():
            if len(self._tasks) >= UNDER_WAY_MAX:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            line = self.lines[self.books.sent // TOGETHER % len(self.lines)]
            task = asyncio.create_task(self._insist(line, self._drawn(chance)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due = max(due + TOGETHER / self.per_s, loop.time() - 1)
            await asyncio.sleep(max(0.0, due - loop.time()))
        await asyncio.gather(*self._tasks)

    def give_up(self) -> None:
        """Ask for nothing any more."""
        for task in self._tasks:
            task.cancel()

    def _drawn(self, chance: random.Random) -> list[Request]:
        asks = chance.random() < 0.5
        drawn: list[Request] = []
        for _ in range(TOGETHER):
            self.books.sent += 1
            name, amount = f"r-{self.seed}-{self.books.sent}", chance.randint(1, 5)
            tenant = f"open-{chance.randrange(TENANTS)}"
            if asks:
                if chance.random() < 0.2:
                    tenant = f"strict-{chance.randrange(STRICT)}"
                ask = quota_pb2.CheckAndConsumeRequest(tenant_id=tenant, operation_id=name)
                ask.items.add(meter=METER, amount=amount)
                drawn.append(ask)
            else:
                told = usage_pb2.RecordUsageRequest(
                    tenant_id=tenant, meter=METER, amount=amount, event_id=name, operation_id=name
                )
                told.event_time.FromMicroseconds(us_now())
                drawn.append(told)
        return drawn

    async def _insist(self, line: Line, left: Sequence[Request]) -> None:
        began, wait_s = time.monotonic(), RETRY_S
        chance = random.Random(began)
        while left := await self._ask(line, left):
            await asyncio.sleep(wait_s * (0.5 + chance.random()))
            wait_s = min(2 * wait_s, RETRY_MAX_S)
        self.books.waits.append((began, time.monotonic()))

    async def _ask(self, line: Line, asked: Sequence[Request]) -> list[Request]:
        try:
            reply = await _sent(line, asked)
        except grpc.aio.AioRpcError as error:
            if error.code() not in LOST:
                raise
            self.books.unanswered[error.code().name] += len(asked)
            return [*asked]
        again: list[Request] = []
        results: list[Result] = [*reply.results]
        for request, result in zip(asked, results, strict=True):
            if result.HasField("error"):
                assert result.error.code in LOST_CODES, result.error
                self.books.unanswered["UNAVAILABLE"] += 1
                again.append(request)
            else:
                self._note(request, result.response)
        return again

    def _note(
        self,
        request: Request,
        reply: quota_pb2.CheckAndConsumeResponse | usage_pb2.RecordUsageResponse,
    ) -> None:
        now = us_now()
        if isinstance(request, usage_pb2.RecordUsageRequest):
            sold = Sold(request.tenant_id, request.amount, request.event_time.ToMicroseconds(), now)
            self.books.accepted[request.event_id] = sold
            return
        assert isinstance(reply, quota_pb2.CheckAndConsumeResponse)
        if not reply.allowed:
            self.books.refused += 1
            return
        for name, item in zip(reply.event_ids, request.items, strict=True):
            self.books.accepted[name] = Sold(request.tenant_id, item.amount, now, now)


async def _sent(line: Line, asked: Sequence[Request]) -> Reply:
    asks = [each for each in asked if isinstance(each, quota_pb2.CheckAndConsumeRequest)]
    if asks:
        batch = quota_pb2.BatchCheckAndConsumeRequest(requests=asks)
        return await line.quota.BatchCheckAndConsume(batch, timeout=TIMEOUT_S)
    told = [each for each in asked if isinstance(each, usage_pb2.RecordUsageRequest)]
    return await line.usage.BatchRecordUsage(
        usage_pb2.BatchRecordUsageRequest(requests=told), timeout=TIMEOUT_S
    )


@asynccontextmanager
async def loaded(load: Load) -> AsyncIterator[Books]:
    """Put load on for the length of a block, then wait until every call is answered."""
    running = asyncio.create_task(load.run())
    try:
        yield load.books
        load.over.set()
        async with asyncio.timeout(ANSWER_S):
            await running
    finally:
        running.cancel()
        load.give_up()


async def hand_in(line: Line, events: Mapping[str, Sold]) -> None:
    """Tell of events again, under the ids and with the times that they had."""
    left = [*events]
    while left:
        part, left = left[:AGAIN_TOGETHER], left[AGAIN_TOGETHER:]
        requests: list[Request] = []
        for name in part:
            sold = events[name]
            request = usage_pb2.RecordUsageRequest(
                tenant_id=sold.tenant, meter=METER, amount=sold.amount, event_id=name
            )
            request.event_time.FromMicroseconds(sold.at_us)
            requests.append(request)
        try:
            reply = await _sent(line, requests)
        except grpc.aio.AioRpcError as error:
            if error.code() not in LOST:
                raise
            again = part
        else:
            failed = zip(part, reply.results, strict=True)
            again = [name for name, result in failed if result.HasField("error")]
        left += again
        if again:
            await asyncio.sleep(RETRY_S)
