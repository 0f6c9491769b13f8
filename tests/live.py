"""A catalog that changes under sidecars: apply, carry and publish as control does, one real Redis.

Guarantees: everything from the document to the decision is what is shipped but Postgres; a change
reaches a sidecar when a test says so.
Refuses to know how long anything takes.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml
from redis.asyncio import Redis

from tallygate.adapters.catalog.document import YamlCatalogDocuments
from tallygate.adapters.catalog.file_view import FileCatalogView
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.carrier import RedisCounterCarrier
from tallygate.adapters.redis.catalog_publisher import RedisCatalogPublisher
from tallygate.adapters.redis.catalog_view import RedisCatalogView
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import decode_entry
from tallygate.domain.event import UsageEvent
from tallygate.flow.apply import Apply, ApplyOptions
from tallygate.flow.carry import Carry
from tallygate.flow.publish import Publish
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc, usage_pb2, usage_pb2_grpc
from tallygate.testing.catalog import FakeCatalogStore
from tests.builders import SHARDS
from tests.sidecar import Tuning, channel, sidecar

MONTHLY: Mapping[str, Any] = {"meter": "requests", "kind": "window", "period": "month"}


def document(
    *limits: Mapping[str, Any],
    tenants: Mapping[str, Any] | None = None,
    plans: Mapping[str, Any] | None = None,
    meters: tuple[str, ...] = ("requests",),
) -> str:
    """Return a catalog whose default plan `free` has these limits."""
    named = {"free": {"limits": list(limits)}, **(plans or {})}
    parts = {"version": 1, "default_plan": "free", "meters": {each: {} for each in meters}}
    return yaml.safe_dump({**parts, "plans": named, "tenants": dict(tenants or {})})


def monthly(limit: int | str = 10, **fields: Any) -> dict[str, Any]:
    """Return a monthly limit of so many requests."""
    return {"id": "monthly", **MONTHLY, "limit": limit, **fields}


@dataclass
class Stubs:
    """A sidecar as its callers have it, and the view that it decides by."""

    view: RedisCatalogView | FileCatalogView
    quota: "quota_pb2_grpc.QuotaServiceAsyncStub"
    usage: "usage_pb2_grpc.UsageServiceAsyncStub"

    async def consume(
        self, amount: int = 1, tenant: str = "acme", name: str = "", meter: str = "requests"
    ) -> quota_pb2.CheckAndConsumeResponse:
        """Charge."""
        item = quota_pb2.Item(meter=meter, amount=amount)
        return await self.quota.CheckAndConsume(
            quota_pb2.CheckAndConsumeRequest(tenant_id=tenant, items=[item], operation_id=name)
        )

    async def reserve(
        self, amount: int = 1, tenant: str = "acme", name: str = "", meter: str = "requests"
    ) -> quota_pb2.ReserveResponse:
        """Reserve."""
        item = quota_pb2.Item(meter=meter, amount=amount)
        return await self.quota.Reserve(
            quota_pb2.ReserveRequest(tenant_id=tenant, items=[item], operation_id=name)
        )

    async def commit(
        self, reservation: str, *amounts: int, tenant: str = "acme"
    ) -> quota_pb2.CommitResponse:
        """Commit."""
        return await self.quota.Commit(
            quota_pb2.CommitRequest(tenant_id=tenant, reservation_id=reservation, amounts=amounts)
        )

    async def release(self, reservation: str, tenant: str = "acme") -> quota_pb2.ReleaseResponse:
        """Release."""
        return await self.quota.Release(
            quota_pb2.ReleaseRequest(tenant_id=tenant, reservation_id=reservation)
        )

    async def record(self, amount: int, tenant: str = "acme", name: str = "e") -> None:
        """Record an event."""
        event = usage_pb2.RecordUsageRequest(
            tenant_id=tenant, meter="requests", amount=amount, event_id=name
        )
        await self.usage.RecordUsage(event)

    async def limits(self, tenant: str = "acme") -> dict[str, tuple[int, int]]:
        """Return what is used of each limit, by `TENANT/LIMIT SCOPE`, and the limit."""
        asked = quota_pb2.GetQuotaRequest(tenant_id=tenant)
        return {
            f"{each.tenant_id}/{each.limit_id}": (each.used, each.limit)
            for each in (await self.quota.GetQuota(asked)).limits
        }


@dataclass
class Live:
    """What applies and publishes, in Redis, and its sidecars."""

    url: str
    redis: Redis
    stack: AsyncExitStack
    store: FakeCatalogStore = field(default_factory=FakeCatalogStore)
    sidecars: list[Stubs] = field(default_factory=list)
    path: Path | None = None

    @property
    def publisher(self) -> RedisCatalogPublisher:
        """What hands catalogs to sidecars."""
        return RedisCatalogPublisher(self.redis)

    @property
    def carry(self) -> Carry:
        """What carries counters, on a memory of nothing."""
        return Carry(self.store, self.publisher, RedisCounterCarrier(self.redis), SHARDS)

    async def apply(self, text: str) -> None:
        """Apply a document as an operator does, and have every sidecar take it over."""
        if self.path is not None:
            draft = self.path.with_suffix(".new")
            draft.write_text(text)
            draft.replace(self.path)
        else:
            await self.write(text)
            await self.publish()
        await self.take_over()

    async def write(self, text: str) -> None:
        """Apply a document, of which nobody hears yet."""
        apply = Apply(self.store, YamlCatalogDocuments(), SystemClock())
        await apply.document(text, ApplyOptions())

    async def publish(self) -> int:
        """Carry and publish, as a process does that has just started."""
        return await Publish(self.store, self.publisher, SystemClock(), self.carry).run_once()

    async def take_over(self) -> None:
        """Have every sidecar look for changes."""
        for each in self.sidecars:
            await each.view.refresh()

    async def start(self) -> Stubs:
        """Start a sidecar on the newest catalog."""
        if self.path is None:
            view: RedisCatalogView | FileCatalogView = RedisCatalogView(self.redis)
        else:
            view = FileCatalogView(self.path)
        await view.refresh()
        source = Tuning(source=f"source-{len(self.sidecars)}")
        address = await self.stack.enter_async_context(sidecar(self.url, view, source))
        opened = await self.stack.enter_async_context(channel(address))
        stubs = Stubs(
            view, quota_pb2_grpc.QuotaServiceStub(opened), usage_pb2_grpc.UsageServiceStub(opened)
        )
        self.sidecars.append(stubs)
        return stubs

    async def events(self) -> list[UsageEvent]:
        """Return all events in the streams."""
        found: list[UsageEvent] = []
        for shard in range(SHARDS):
            entries = await self.redis.xrange(keys.stream(shard))
            for entry_id, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], entries):
                found += decode_entry(shard, entry_id.decode(), fields).events
        return found


@asynccontextmanager
async def live(url: str, text: str, path: Path | None = None) -> AsyncIterator[Live]:
    """Lend a control and one sidecar with a first catalog; with a path, from a file."""
    client = connect(url, 5_000)
    async with AsyncExitStack() as stack:
        found = Live(url, client, stack, path=path)
        await found.apply(text)
        await found.start()
        yield found
    await client.aclose()
