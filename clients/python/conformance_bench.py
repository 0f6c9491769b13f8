"""What a call takes, by the client and by the stub alone: the driver's `bench`."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from itertools import chain
from typing import Any

import tallygate_client as tg
from conformance_words import Json, items_of, now
from tallygate_client.gen.v1 import quota_pb2, quota_pb2_grpc

Work = Callable[[], Coroutine[Any, Any, Any]]


class Benching(ABC):
    """The clients that a driver has, and what a call of them takes."""

    def __init__(self) -> None:
        self.clients: dict[str, Any] = {}

    async def do_bench(self, asked: Json) -> Json:
        """Measure what a call takes, by the client or by the bare stub."""
        workers = asked["concurrency"]
        call = self.bare(asked) if asked["how"] == "bare" else self.charging(asked)

        async def work(calls: int) -> list[float]:
            taken = []
            for _ in range(calls):
                began = time.perf_counter()
                await now(call())
                taken.append(time.perf_counter() - began)
            return taken

        await self.every([lambda: work(asked.get("warmup", 0) // workers)] * workers)
        began = time.perf_counter()
        lists = await self.every([lambda: work(asked["calls"] // workers)] * workers)
        seconds = time.perf_counter() - began
        ordered = sorted(chain.from_iterable(lists))
        return {
            "seconds": seconds,
            "mean_us": statistics.fmean(ordered) * 1e6,
            "p99_us": ordered[int(len(ordered) * 0.99)] * 1e6,
        }

    def client(self, asked: Json) -> Any:
        """Return the client that a request names."""
        return self.clients[asked["client"]]

    def charging(self, asked: Json) -> Callable[[], Any]:
        """Return a charge through the client, to be measured."""
        client, tenant = self.client(asked), asked.get("tenant", "bench")
        items = items_of(asked) if "items" in asked else [tg.Item("requests", 1)]
        return lambda: client.check_and_consume(tenant, items)

    def bare(self, asked: Json) -> Callable[[], Any]:
        """Return the same charge by the stub alone."""
        items = items_of(asked) if "items" in asked else [tg.Item("requests", 1)]
        sent = [quota_pb2.Item(meter=each.meter, amount=each.amount) for each in items]
        stub: Any = quota_pb2_grpc.QuotaServiceStub(self.channel(self.client(asked).target))
        tenant = asked.get("tenant", "bench")
        return lambda: stub.CheckAndConsume(
            quota_pb2.CheckAndConsumeRequest(tenant_id=tenant, items=sent), timeout=1.0
        )

    @abstractmethod
    def channel(self, target: str) -> Any:
        """Open a channel for the bare stub."""

    @abstractmethod
    async def every(self, works: Sequence[Work]) -> list[Any]:
        """Do all at once."""
