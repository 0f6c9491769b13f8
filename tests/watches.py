"""Watches over readings that a test sets, and a server that offers them.

Owns a reader without a store, and the few readings of it. Refuses to know decisions.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import grpc

from tallygate.api.edge import EdgeOptions
from tallygate.api.quota import QuotaFlows, QuotaServicer
from tallygate.api.server import Server, ServerOptions
from tallygate.domain.decision import LimitReading, LimitState
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import AccountId, LimitId, MeterName, PlanName
from tallygate.domain.request import QuotaRequest, QuotaResult
from tallygate.flow.admit import Admit
from tallygate.flow.refund import Refunds
from tallygate.flow.reserve import Reserve
from tallygate.flow.watch import Watches, WatchOptions, WatchParts
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.sidecar import MESSAGE_BYTES_MAX, QUOTA, channel
from tests.transports import TRANSPORT

STALE_MS = 5_000
FOREVER = float("inf")
GRACE_S = 10.0
ACME = quota_pb2.WatchQuotaRequest(tenant_id="acme")


def standing(used: int = 0, state: LimitState = LimitState.OK, **fields: object) -> QuotaResult:
    """Return where a tenant stands against one limit of 100, with fields of it replaced."""
    reading = LimitReading(
        account=AccountId("acme"),
        limit_id=LimitId("monthly"),
        meter=MeterName("requests"),
        state=state,
        used=used,
        limit=100,
        remaining=100 - used,
        resets_at_us=1,
    )
    return QuotaResult((replace(reading, **fields),), PlanName("free"), 1)  # type: ignore[arg-type]


@dataclass(slots=True)
class Readings:
    """The `Reads` port over what a test sets; an error stands for all that cannot be read."""

    result: QuotaResult | TallygateError = field(default_factory=standing)
    asked: list[list[QuotaRequest]] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def quotas(
        self, requests: Sequence[QuotaRequest], expires_at: float = FOREVER
    ) -> list[QuotaResult | TallygateError]:
        """Answer each request alike; let once happen what happens before the answer arrives."""
        self.asked.append(list(requests))
        answers = [self.result for _ in requests]
        if self.meanwhile is not None:
            happen, self.meanwhile = self.meanwhile, None
            await happen()
        return answers


@dataclass(slots=True)
class Hand:
    """A clock that a test moves."""

    seconds: float = 0.0

    def now_us(self) -> int:
        """Return microseconds since the clock's start."""
        return int(self.seconds * 1_000_000)

    def monotonic(self) -> float:
        """Return seconds since the clock's start."""
        return self.seconds


@dataclass(slots=True)
class Told:
    """Keeps what watching tells of itself."""

    watches: int = 0
    questions: int = 0
    polls: dict[str, int] = field(default_factory=dict)

    def watching(self, watches: int, questions: int) -> None:
        """Keep the newest."""
        self.watches, self.questions = watches, questions

    def polled(self, outcome: str, count: int) -> None:
        """Add up."""
        self.polls[outcome] = self.polls.get(outcome, 0) + count


@dataclass(slots=True)
class Rig:
    """Watches with all that they work with."""

    readings: Readings = field(default_factory=Readings)
    clock: Hand = field(default_factory=Hand)
    told: Told = field(default_factory=Told)
    watches_max: int = 1_000
    questions_max: int = 1_000
    watches: Watches = field(init=False)

    def __post_init__(self) -> None:
        parts = WatchParts(self.readings, self.clock, self.told)
        self.watches = Watches(parts, WatchOptions(self.watches_max, self.questions_max, STALE_MS))

    async def show(self, result: QuotaResult | TallygateError) -> None:
        """Set what is read from now on, and have it read once."""
        self.readings.result = result
        await self.watches.run_once()


@dataclass(slots=True)
class Calls:
    """Keeps how calls end."""

    open: int = 0
    codes: list[str] = field(default_factory=list)

    def calls_started(self, calls: int) -> None:
        """Count it in."""
        self.open += calls

    def call_shed(self) -> None:
        """Ignore it."""

    def calls_ended(self, method: str, code: str, seconds: Sequence[float]) -> None:
        """Count it out."""
        self.open -= len(seconds)
        self.codes += [code] * len(seconds)


@dataclass(slots=True)
class Side:
    """A server whose readings a test sets."""

    rig: Rig
    server: Server
    calls: Calls
    channel: grpc.aio.Channel

    def watch(
        self, timeout_s: float | None = None
    ) -> "grpc.aio.UnaryStreamCall[quota_pb2.WatchQuotaRequest, quota_pb2.WatchQuotaResponse]":
        """Open a watch."""
        quota = quota_pb2_grpc.QuotaServiceStub(self.channel)
        return quota.WatchQuota(ACME, timeout=timeout_s)


@asynccontextmanager
async def serving(rig: Rig, address: str = "127.0.0.1:0") -> AsyncIterator[Side]:
    """Serve watches alone, and open a channel."""
    calls = Calls()
    # Nothing here decides.
    servicer = QuotaServicer(  # type: ignore[abstract]
        QuotaFlows(cast(Admit, None), cast(Reserve, None), cast(Refunds, None), rig.watches), 1.0
    )
    server = Server(
        ServerOptions([address], MESSAGE_BYTES_MAX, EdgeOptions(0.2, calls), transport=TRANSPORT),
        {QUOTA: partial(quota_pb2_grpc.add_QuotaServiceServicer_to_server, servicer)},
    )
    await server.start()
    try:
        async with channel(server.addresses[0]) as opened:
            yield Side(rig, server, calls, opened)
    finally:
        await server.stop(GRACE_S)
