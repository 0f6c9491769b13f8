"""Two sidecars over one Redis as the tests of reservations and refunds call them.

Owns the requests and a look into the stream. Refuses to know what is promised.
"""

import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import grpc
from google.protobuf.duration_pb2 import Duration

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import decode_entry
from tallygate.domain.event import UsageEvent
from tallygate.gen.v1 import limit_pb2, quota_pb2, quota_pb2_grpc, usage_pb2, usage_pb2_grpc
from tallygate.ports import CatalogView
from tests.builders import SHARDS
from tests.sidecar import Tuning, channel, sidecar

Entries = list[tuple[bytes, dict[bytes, bytes]]]

COMMITTED = quota_pb2.RESERVATION_OUTCOME_COMMITTED
PARTIALLY = quota_pb2.RESERVATION_OUTCOME_COMMITTED_PARTIALLY
RELEASED = quota_pb2.RESERVATION_OUTCOME_RELEASED
EXTENDED = quota_pb2.RESERVATION_OUTCOME_EXTENDED
ALREADY_COMMITTED = quota_pb2.RESERVATION_OUTCOME_ALREADY_COMMITTED
ALREADY_RELEASED = quota_pb2.RESERVATION_OUTCOME_ALREADY_RELEASED
EXPIRED = quota_pb2.RESERVATION_OUTCOME_EXPIRED


@dataclass(slots=True)
class Shift:
    """The time of a store: the machine's, moved by a test."""

    by_us: int = 0

    def now_us(self) -> int:
        """Return the store's time."""
        return time.time_ns() // 1000 + self.by_us


def zero() -> int:
    """Return the time that has Redis' own clock decide."""
    return 0


@dataclass(frozen=True)
class Pair:
    """Two sidecars, `a` and `b`; most tests ask the first."""

    url: str
    shift: Shift
    channels: Sequence[grpc.aio.Channel]
    a: "quota_pb2_grpc.QuotaServiceAsyncStub" = field(init=False)
    b: "quota_pb2_grpc.QuotaServiceAsyncStub" = field(init=False)
    usage: "usage_pb2_grpc.UsageServiceAsyncStub" = field(init=False)

    def __post_init__(self) -> None:
        one, two = self.channels
        object.__setattr__(self, "a", quota_pb2_grpc.QuotaServiceStub(one))
        object.__setattr__(self, "b", quota_pb2_grpc.QuotaServiceStub(two))
        object.__setattr__(self, "usage", usage_pb2_grpc.UsageServiceStub(one))

    async def reserve(
        self, *amounts: int, name: str = "", ttl_ms: int = 0, **fields: object
    ) -> quota_pb2.ReserveResponse:
        """Reserve one item per amount."""
        return await self.a.Reserve(reserving(*amounts, name=name, ttl_ms=ttl_ms, **fields))

    async def commit(
        self, of: quota_pb2.ReserveResponse, *amounts: int, **fields: object
    ) -> quota_pb2.CommitResponse:
        """Commit what was reserved."""
        return await self.a.Commit(committing(of, *amounts, **fields))

    async def release(
        self, of: quota_pb2.ReserveResponse, name: str = "", tenant: str = "acme"
    ) -> quota_pb2.ReleaseResponse:
        """Release what was reserved."""
        return await self.a.Release(
            quota_pb2.ReleaseRequest(
                tenant_id=tenant, reservation_id=of.reservation_id, operation_id=name
            )
        )

    async def extend(
        self, of: quota_pb2.ReserveResponse, ttl_ms: int = 0, tenant: str = "acme"
    ) -> quota_pb2.ExtendReservationResponse:
        """Extend what was reserved."""
        return await self.a.ExtendReservation(
            quota_pb2.ExtendReservationRequest(
                tenant_id=tenant,
                reservation_id=of.reservation_id,
                ttl=milliseconds(ttl_ms) if ttl_ms else None,
            )
        )

    async def record(self, amount: int, name: str, meter: str = "requests") -> str:
        """Record usage; return the event's id."""
        reply = await self.usage.RecordUsage(
            usage_pb2.RecordUsageRequest(
                tenant_id="acme", meter=meter, amount=amount, event_id=name
            )
        )
        return reply.event_id

    async def refund(
        self, event_id: str, amount: int = 0, **fields: object
    ) -> "quota_pb2.RefundResponse":
        """Refund an event."""
        return await self.a.Refund(refunding(event_id, amount, **fields))

    async def used(
        self, tenant: str = "acme", dimensions: Mapping[str, str] | None = None
    ) -> dict[str, int]:
        """Return what every limit shows as used, by `TENANT/LIMIT` for those of parents."""
        asked = quota_pb2.GetQuotaRequest(tenant_id=tenant, dimensions=dimensions)
        return by_limit((await self.b.GetQuota(asked)).limits, tenant)

    async def events(self) -> list[UsageEvent]:
        """Return every event in the streams, in the order of each."""
        client = connect(self.url, 2_000)
        try:
            found: list[UsageEvent] = []
            for shard in range(SHARDS):
                entries = cast(Entries, await client.xrange(keys.stream(shard)))
                for entry_id, fields in entries:
                    found.extend(decode_entry(shard, entry_id.decode(), fields).events)
            return found
        finally:
            await client.aclose()

    async def amounts(self) -> list[int]:
        """Return the amounts of all events."""
        return [event.amount for event in await self.events()]


@asynccontextmanager
async def pair(url: str, view: CatalogView, *, shifting: bool = False) -> AsyncIterator[Pair]:
    """Serve twice over one Redis; with `shifting`, by a time that the test moves."""
    shift = Shift()
    async with AsyncExitStack() as stack:
        channels: list[grpc.aio.Channel] = []
        for source in ("a", "b"):
            now_us = shift.now_us if shifting else zero
            address = await stack.enter_async_context(sidecar(url, view, Tuning(source), now_us))
            channels.append(await stack.enter_async_context(channel(address)))
        yield Pair(url, shift, channels)


def by_limit(limits: Iterable[limit_pb2.LimitStatus], tenant: str) -> dict[str, int]:
    """Return the units used by limit."""
    return {
        each.limit_id
        if each.tenant_id in ("", tenant)
        else f"{each.tenant_id}/{each.limit_id}": each.used
        for each in limits
    }


def item(
    amount: int, meter: str = "requests", dimensions: Mapping[str, str] | None = None
) -> quota_pb2.Item:
    """Return one item."""
    return quota_pb2.Item(meter=meter, amount=amount, dimensions=dimensions)


def reserving(
    *amounts: int, name: str = "", ttl_ms: int = 0, **fields: object
) -> quota_pb2.ReserveRequest:
    """Return a request to reserve one item per amount, with other fields replaced."""
    values: dict[str, object] = {
        "tenant_id": "acme",
        "operation_id": name,
        "items": [item(amount) for amount in amounts],
        "ttl": milliseconds(ttl_ms) if ttl_ms else None,
    }
    return quota_pb2.ReserveRequest(**{**values, **fields})  # type: ignore[arg-type]


def committing(
    of: quota_pb2.ReserveResponse, *amounts: int, **fields: object
) -> quota_pb2.CommitRequest:
    """Return a request to commit, with other fields replaced."""
    values: dict[str, object] = {
        "tenant_id": "acme",
        "reservation_id": of.reservation_id,
        "amounts": amounts,
    }
    return quota_pb2.CommitRequest(**{**values, **fields})  # type: ignore[arg-type]


def refunding(event_id: str, amount: int = 0, **fields: object) -> quota_pb2.RefundRequest:
    """Return a request to refund, with other fields replaced."""
    values: dict[str, object] = {
        "tenant_id": "acme",
        "event_id": event_id,
        "amount": amount,
        "operation_id": f"refund-{event_id}-{amount}",
    }
    return quota_pb2.RefundRequest(**{**values, **fields})  # type: ignore[arg-type]


def milliseconds(count: int) -> Duration:
    """Return a duration."""
    duration = Duration()
    duration.FromMilliseconds(count)
    return duration
