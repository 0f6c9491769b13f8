"""What hostile callers send: every string in every field, and bytes without sense.

Each is refused with a reason, or stored and read back exactly as it was sent.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import grpc
import pytest
from google.protobuf.message import Message
from redis.asyncio import Redis

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import decode_entry
from tallygate.domain.event import UsageEvent
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc, usage_pb2, usage_pb2_grpc
from tests.builders import SHARDS, CatalogInMemory, catalog, window
from tests.faults.world import world
from tests.servers import connection, eventually
from tests.sidecar import QUOTA, USAGE, channel, charge, failure, sidecar

HOSTILE = (
    "'; drop table tallygate.usage_event; --",
    "$1 {0} %s %n ${jndi:ldap://x} {{7*7}}",
    "a\r\n$4\r\nPING\r\n*1\r\n",
    "+OK\r\n-ERR x\r\n:1\r\n",
    "return redis.call('flushall') --[[ ]] \"",
    "{tg:00}:m",
    "}{tg:07}:s",
    "tenant operation",
    "tenant\u00a0x\u202eabc",
    "\uff41cme",
    "\u0430cme",
    "../../etc/passwd\\..\\",
    "<script>alert(1)</script>",
    '{"a": [1, "\\u0000"]}',
    "\x00",
    "\x1b[2J\x07",
    "\ufeffx",
    "x" * 5_000,
    "",
    " ",
    "=2+5",
    "1|2|3",
    "u1+1",
)
FINE = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
SEED = 44


@dataclass(frozen=True, slots=True)
class Side:
    """A sidecar's both services, and its Redis."""

    quota: "quota_pb2_grpc.QuotaServiceAsyncStub"
    usage: "usage_pb2_grpc.UsageServiceAsyncStub"
    channel: grpc.aio.Channel
    redis: Redis

    async def events(self) -> list[UsageEvent]:
        """Return all events in the streams."""
        found: list[UsageEvent] = []
        for shard in range(SHARDS):
            entries = await self.redis.xrange(keys.stream(shard))
            for entry_id, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], entries):
                found += decode_entry(shard, entry_id.decode(), fields).events
        return found


@pytest.fixture
async def side(redis_url: str) -> AsyncIterator[Side]:
    """A sidecar on a default plan, so that any name may be a tenant's."""
    client = connect(redis_url, 5_000)
    view = CatalogInMemory(catalog(window(limit=10**6)))
    async with sidecar(redis_url, view) as address, channel(address) as opened:
        yield Side(
            quota_pb2_grpc.QuotaServiceStub(opened),
            usage_pb2_grpc.UsageServiceStub(opened),
            opened,
            client,
        )
    await client.aclose()


def usages(text: str) -> Iterator[usage_pb2.RecordUsageRequest]:
    """Return an event for each field that takes a string, with the text in it."""
    plain = {"tenant_id": "acme", "meter": "requests", "amount": 1}
    for name in ("tenant_id", "event_id", "meter"):
        yield usage_pb2.RecordUsageRequest(**{**plain, name: text})  # type: ignore[arg-type]
    context = usage_pb2.RecordUsageRequest.DESCRIPTOR.fields_by_name["context"].message_type
    assert context is not None
    for each in context.fields:
        if each.type == each.TYPE_STRING:
            request = usage_pb2.RecordUsageRequest(**plain)  # type: ignore[arg-type]
            setattr(request.context, each.name, text)
            yield request
    for key, value in ((text, "v"), ("key", text)):
        request = usage_pb2.RecordUsageRequest(**plain)  # type: ignore[arg-type]
        request.dimensions[key] = value
        yield request


async def sent(call: Any) -> Any:  # a call of any method, and its reply
    """Return the reply, None if the call is refused, which must be for what it says."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() not in FINE:
            raise
        return None


@pytest.mark.slow
async def test_hostile_text_is_refused_or_stored_as_it_is(
    side: Side, redis_url: str, postgres_dsn: str
) -> None:
    """From the call through Redis to Postgres, no character is lost, and none does anything."""
    kept: list[tuple[usage_pb2.RecordUsageRequest, str]] = []
    for text in HOSTILE:
        for request in usages(text):
            reply = await sent(side.usage.RecordUsage(request))
            if reply is not None:
                kept.append((request, reply.event_id))
        for consumed in (charge(text), charge(tenant=text), charge(meter=text)):
            await sent(side.quota.CheckAndConsume(consumed))
    assert len(kept) > 3 * len(HOSTILE)
    # Everything that is there is ours: nothing else was written, nothing was emptied.
    names = [name.decode() async for name in side.redis.scan_iter()]
    assert names
    assert all(name.startswith(("{tg:0", "{tg:catalog}")) for name in names)
    async with world(redis_url, postgres_dsn, SHARDS) as it:
        ingest = it.ingest("a")
        events = await side.events()

        async def stored() -> bool:
            await ingest.run_once()
            return (await it.sums())[0] == len(events)

        await eventually(stored, 30.0, what="all events in the ledger")
    async with connection(postgres_dsn) as opened:
        rows = await opened.fetch(
            "select tenant_id, event_id, meter, dimensions::text from tallygate.usage_event"
        )
    found = {
        (row["tenant_id"], row["event_id"], row["meter"]): json.loads(row["dimensions"] or "{}")
        for row in rows
    }
    assert len(found) == len(events)
    for request, event_id in kept:
        dimensions = found[request.tenant_id, event_id, request.meter]
        assert dimensions == dict(request.dimensions)


def mutated(message: Message, dice: random.Random) -> bytes:
    """Return a message's bytes with some changed, left out or doubled."""
    data = bytearray(message.SerializeToString())
    for _ in range(dice.randint(1, 6)):
        place = dice.randrange(len(data) + 1)
        match dice.randrange(4):
            case 0:
                data[place:place] = dice.randbytes(dice.randint(1, 8))
            case 1:
                del data[place : place + dice.randint(1, 8)]
            case 2:
                data[place : place + 1] = bytes([dice.randrange(256)])
            case _:
                data[place:place] = data[: dice.randint(0, len(data))]
    return bytes(data)


@pytest.mark.parametrize(
    "count", [300, pytest.param(20_000, marks=pytest.mark.faults_long)], ids=str
)
@pytest.mark.timeout(900)
async def test_bytes_without_sense_get_a_mapped_status(side: Side, count: int) -> None:
    """Whatever bytes come, at whatever method: an answer or a reason, never UNKNOWN or INTERNAL."""
    dice = random.Random(SEED)
    seeds: list[tuple[str, Message]] = [
        (f"/{QUOTA}/CheckAndConsume", charge("op", 1, 2)),
        (f"/{QUOTA}/Check", quota_pb2.CheckRequest(tenant_id="acme", items=charge("", 1).items)),
        (f"/{QUOTA}/GetQuota", quota_pb2.GetQuotaRequest(tenant_id="acme")),
        (f"/{QUOTA}/Reserve", quota_pb2.ReserveRequest(tenant_id="acme", items=charge().items)),
        (f"/{QUOTA}/Commit", quota_pb2.CommitRequest(tenant_id="acme", reservation_id="r")),
        (f"/{QUOTA}/Refund", quota_pb2.RefundRequest(tenant_id="acme", event_id="e", amount=1)),
        (
            f"/{USAGE}/RecordUsage",
            usage_pb2.RecordUsageRequest(tenant_id="acme", meter="requests", amount=1),
        ),
    ]
    bad = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
    codes = set()
    for start in range(0, count, 50):
        calls = []
        for _ in range(min(50, count - start)):
            method, message = dice.choice(seeds)
            raw: Any = side.channel.unary_unary(method)
            calls.append(raw(mutated(message, dice), timeout=20.0))
        codes |= set(await asyncio.gather(*(call.code() for call in calls)))
    assert not codes & bad, codes
    assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT} <= codes


async def test_seventeen_dimensions_are_one_too_many(side: Side) -> None:
    """Sixteen are kept, seventeen are refused by field."""
    request = usage_pb2.RecordUsageRequest(tenant_id="acme", meter="requests", amount=1)
    for number in range(16):
        request.dimensions[f"k{number}"] = "v"
    await side.usage.RecordUsage(request)
    request.dimensions["k16"] = "v"
    found = await failure(side.usage.RecordUsage(request))
    assert (found.code, found.fields[0].split("[")[0]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "dimensions",
    )
    assert len(await side.events()) == 1
