"""What RecordUsage refuses, over a real channel; and what a dead Redis looks like to a caller."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import decode_entry
from tallygate.domain.event import StreamEntry
from tallygate.domain.ids import TenantId, shard_of
from tallygate.gen.v1 import event_pb2, quota_pb2_grpc, reason_pb2, usage_pb2, usage_pb2_grpc
from tests.builders import SHARDS, CatalogInMemory, catalog, window
from tests.sidecar import USAGE, Tuning, channel, charge, failure, sidecar

Code = grpc.StatusCode
INVALID = Code.INVALID_ARGUMENT
Request = usage_pb2.RecordUsageRequest
SHARD = shard_of(TenantId("acme"), SHARDS)
NOW_S = time.time_ns() // 10**9
YEAR_1_S, YEAR_10000_S = -62_135_596_800, 253_402_300_800


@dataclass(frozen=True)
class Side:
    """A sidecar that a test calls, and its Redis."""

    channel: grpc.aio.Channel
    usage: "usage_pb2_grpc.UsageServiceAsyncStub"
    url: str

    async def stored(self) -> list[StreamEntry]:
        """Return what the stream of `acme` holds."""
        client = connect(self.url, 2_000)
        try:
            raw = await client.xrange(keys.stream(SHARD))
        finally:
            await client.aclose()
        entries = cast(list[tuple[bytes, dict[bytes, bytes]]], raw)
        return [decode_entry(SHARD, name.decode(), fields) for name, fields in entries]


@pytest.fixture
async def side(redis_url: str) -> AsyncIterator[Side]:
    """A sidecar with one limit."""
    view = CatalogInMemory(catalog(window(limit=1_000)))
    async with sidecar(redis_url, view) as address, channel(address) as opened:
        yield Side(opened, usage_pb2_grpc.UsageServiceStub(opened), redis_url)


def request(**fields: object) -> Request:
    """Return a good event with other fields replaced."""
    values: dict[str, object] = {"tenant_id": "acme", "meter": "requests", "amount": 1}
    return Request(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


def at(seconds: int, nanos: int = 0) -> Timestamp:
    """Return a timestamp, also one that no clock shows."""
    return Timestamp(seconds=seconds, nanos=nanos)


def metadata(**fields: Any) -> Struct:
    """Return metadata."""
    made = Struct()
    made.update(fields)
    return made


# Per case: what it is about, the request, the code, the reason, the field.
BAD_EVENTS = [
    ("no tenant", request(tenant_id=""), INVALID, "INVALID_FIELD", "tenant_id"),
    ("no meter", request(meter=""), INVALID, "INVALID_FIELD", "meter"),
    ("an unknown meter", request(meter="nope"), Code.NOT_FOUND, "UNKNOWN_METER", "meter"),
    ("amount 0", request(amount=0), INVALID, "INVALID_FIELD", "amount"),
    ("the largest int64", request(amount=2**63 - 1), INVALID, "INVALID_FIELD", "amount"),
    ("the smallest int64", request(amount=-(2**63)), INVALID, "INVALID_FIELD", "amount"),
    ("a long event id", request(event_id="x" * 129), INVALID, "INVALID_FIELD", "event_id"),
    ("CRLF in an event id", request(event_id="a\r\n"), INVALID, "INVALID_FIELD", "event_id"),
    ("a long operation id", request(event_id="e", operation_id="x" * 129), INVALID,
     "INVALID_FIELD", "operation_id"),
    ("the year 10000", request(event_time=at(YEAR_10000_S)), INVALID, "INVALID_FIELD",
     "event_time"),
    ("the year 0", request(event_time=at(YEAR_1_S - 1)), INVALID, "INVALID_FIELD", "event_time"),
    ("the largest time", request(event_time=at(2**63 - 1)), INVALID, "INVALID_FIELD",
     "event_time"),
    ("the smallest time", request(event_time=at(-(2**63))), INVALID, "INVALID_FIELD",
     "event_time"),
    ("a second of nanoseconds", request(event_time=at(NOW_S, 10**9)), INVALID, "INVALID_FIELD",
     "event_time"),
    ("negative nanoseconds", request(event_time=at(NOW_S, -1)), INVALID, "INVALID_FIELD",
     "event_time"),
    ("six minutes ahead", request(event_time=at(NOW_S + 3_600)), INVALID, "EVENT_TIME_IN_FUTURE",
     "event_time"),
    ("the year 9999", request(event_time=at(YEAR_10000_S - 1)), INVALID, "EVENT_TIME_IN_FUTURE",
     "event_time"),
    ("metadata over 4 KiB", request(metadata=metadata(a="x" * 4_096)), INVALID, "INVALID_FIELD",
     "metadata"),
    ("NUL in metadata", request(metadata=metadata(a="\0")), INVALID, "INVALID_FIELD", "metadata"),
    ("NaN in metadata", request(metadata=metadata(a=float("nan"))), INVALID, "INVALID_FIELD",
     "metadata"),
    ("NUL in a dimension's key", request(dimensions={"a\0": "x"}), INVALID, "INVALID_FIELD",
     "dimensions['a\\x00']"),
    ("an unknown durability", request(min_durability=77), INVALID, "INVALID_FIELD",
     "min_durability"),
    ("a durability not offered", request(min_durability=event_pb2.DURABILITY_JOURNAL),
     Code.FAILED_PRECONDITION, "DURABILITY_NOT_OFFERED", "min_durability"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "code", "reason", "path"), [pytest.param(*case[1:], id=case[0]) for case in BAD_EVENTS]
)
async def test_a_bad_event_is_refused_by_field(
    side: Side, bad: Request, code: Code, reason: str, path: str
) -> None:
    """Alone it is a status; in a list it is an item's error, and its neighbours are stored."""
    found = await failure(side.usage.RecordUsage(bad))
    assert (found.code, found.reason, list(found.fields)) == (code, reason, [path])
    batch = usage_pb2.BatchRecordUsageRequest(
        requests=[request(event_id="one"), bad, request(event_id="two")]
    )
    reply = await side.usage.BatchRecordUsage(batch)
    assert [result.response.event_id for result in reply.results] == ["one", "", "two"]
    error = reply.results[1].error
    assert reason_pb2.Reason.Name(error.reason) == f"REASON_{reason}"
    assert (error.code, error.field) == (code.value[0], path)
    events = [event.event_id for entry in await side.stored() for event in entry.events]
    assert events == ["one", "two"]


@pytest.mark.parametrize(
    "seconds",
    [YEAR_1_S, -1, 0, NOW_S - 36 * 86_400],
    # Named, as every worker has to collect the same tests.
    ids=["year 1", "before the epoch", "the epoch", "36 days ago"],
)
async def test_an_event_that_is_too_old_is_kept_with_its_reason(side: Side, seconds: int) -> None:
    """It is refused to the caller and lies in the stream, never dropped unseen."""
    call = side.usage.RecordUsage(request(event_id="late", event_time=at(seconds)))
    found = await failure(call)
    assert (found.code, found.reason) == (Code.OUT_OF_RANGE, "EVENT_TIME_TOO_OLD")
    assert found.fields == ["event_time"]
    [entry] = await side.stored()
    assert [(each.event_id, each.reason) for each in entry.rejected] == [
        ("late", "EVENT_TIME_TOO_OLD")
    ]
    assert entry.events == ()


@pytest.mark.parametrize("count", [0, 1_001, 10_000])
async def test_a_list_has_its_bounds(side: Side, count: int) -> None:
    """1 to 1,000 requests; one more is refused whole."""
    batch = usage_pb2.BatchRecordUsageRequest(requests=[request()] * count)
    found = await failure(side.usage.BatchRecordUsage(batch))
    reason = "TOO_MANY_ITEMS" if count else "INVALID_FIELD"
    assert (found.code, found.reason, list(found.fields)) == (INVALID, reason, ["requests"])


async def test_an_event_is_recorded_once(side: Side) -> None:
    """The same event id is answered as a repeat, with other content as a reuse of it."""
    first = await side.usage.RecordUsage(request(event_id="e"))
    again = await side.usage.RecordUsage(request(event_id="e"))
    assert (first.replayed, again.replayed) == (False, True)
    assert (first.event_id, first.durability) == ("e", event_pb2.DURABILITY_REDIS)
    found = await failure(side.usage.RecordUsage(request(event_id="e", amount=2)))
    assert (found.code, found.reason, found.fields) == (
        INVALID,
        "OPERATION_ID_REUSED",
        ["event_id"],
    )
    assert len(await side.stored()) == 1


GOOD_TEXTS = [
    "plain",
    "é",
    "東京",
    "😀",
    "\\u0000",
    "\\ud800",
    'a"b',
    "\r\n",
    "x" * 4_000,
    "é" * 2_000,
]


@pytest.mark.parametrize("text", GOOD_TEXTS, ids=lambda text: ascii(text[:8]))
async def test_metadata_is_kept_as_it_was_sent(side: Side, text: str) -> None:
    """What any store can hold passes unchanged, and is measured in bytes, not in escapes."""
    await side.usage.RecordUsage(request(metadata=metadata(text=text, n=[1, None, True])))
    [entry] = await side.stored()
    assert json.loads(entry.events[0].metadata_json) == {"text": text, "n": [1, None, True]}


def nested(depth: int) -> bytes:
    """Return a request by hand whose metadata is a Struct within a Struct, `depth` times."""

    def framed(tag: int, content: bytes) -> bytes:
        length, size = b"", len(content)
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([tag << 3 | 2]) + length + bytes([size]) + content

    inner = b""
    for _ in range(depth):
        inner = framed(1, framed(1, b"a") + framed(2, framed(5, inner)))
    return request().SerializeToString() + framed(9, inner)


@pytest.mark.parametrize("depth", [1, *range(26, 36), 100, 1_000, 20_000])
async def test_nesting_has_a_mapped_end(side: Side, depth: int) -> None:
    """However deep metadata is nested, it is refused or can be read again, never taken unread."""
    method = f"/{USAGE}/RecordUsage"
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = side.channel.unary_unary(method)
    sent = call(nested(depth), timeout=10)
    if await sent.code() is Code.OK:
        assert depth < 100
        [entry] = await side.stored()
        assert (len(entry.events), entry.rejected) == (1, ())
        return
    found = await failure(sent)
    assert depth > 1
    assert (found.code, await side.stored()) == (INVALID, [])
    assert found.reason in ("MALFORMED_MESSAGE", "INVALID_FIELD")


async def test_a_dead_redis_is_unavailable_and_the_retry_is_charged_once(
    own_redis: EmbeddedRedis,
) -> None:
    """Callers are asked to retry; once Redis is back, the retry is served."""
    view = CatalogInMemory(catalog(window()))
    tuning = Tuning(redis_timeout_ms=500)
    async with sidecar(own_redis.url, view, tuning) as address, channel(address) as opened:
        quota = quota_pb2_grpc.QuotaServiceStub(opened)
        await quota.CheckAndConsume(charge("one"))
        await own_redis.kill()
        found = await failure(quota.CheckAndConsume(charge("two")))
        assert (found.code, found.reason) == (Code.UNAVAILABLE, "BACKEND_UNAVAILABLE")
        assert found.comes_back
        assert str(own_redis.url) not in repr(found)
        await own_redis.start()
        replies = [await quota.CheckAndConsume(charge(name)) for name in ("one", "two", "two")]
        assert [reply.replayed for reply in replies] == [True, False, True]
        assert [reply.limits[0].used for reply in replies] == [1, 2, 2]
