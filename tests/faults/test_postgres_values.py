"""Hostile values: refused at the edge by field, or alone in the dead letters; others persist."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

from google.rpc import code_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.domain.event import UNSTORABLE, EventContext, UsageEvent
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tallygate.gen.v1 import event_pb2, usage_pb2, usage_pb2_grpc
from tallygate.testing.stream import FakeStreams, FakeUsageStream
from tests.builders import SHARDS, CatalogInMemory, catalog, window
from tests.faults.world import SystemClock
from tests.servers import connection
from tests.sidecar import channel, sidecar
from tests.usage_events import NOON_US, entry, event

INT64_MAX = 2**63 - 1
MEGABYTE = 1_000_000
CALL_S = 30
# Random, so that it does not shrink where Postgres compresses it to fit into an index.
LARGE = random.Random(22).randbytes(MEGABYTE // 2).hex()
# So large that several of a call fit into what a message may hold.
LONG = LARGE[:50_000]


def texts() -> st.SearchStrategy[str]:
    """Return texts that a field may come with."""
    return st.sampled_from(
        ["", "plain", "\x00", "a\x00b", "\\u0000", "'; drop table tallygate.outbox; --", "%s{0}$1",
         "\r\n*1\r\n$8\r\nFLUSHALL\r\n", "\u202e\uffff\U0010ffff", LONG]
    ) | st.text(max_size=40)  # fmt: skip


def integers() -> st.SearchStrategy[int]:
    """Return amounts and times, also those that no computer should be told."""
    edges = (0, 1, -1, 2**53, 2**53 - 1, INT64_MAX, -INT64_MAX - 1, NOON_US)
    return st.sampled_from(edges) | st.integers(-INT64_MAX - 1, INT64_MAX)


@st.composite
def requests(draw: st.DrawFn) -> usage_pb2.RecordUsageRequest:
    """Return a request of which a few fields are hostile."""
    request = usage_pb2.RecordUsageRequest(tenant_id="acme", meter="requests", amount=1)
    for name in draw(st.lists(st.sampled_from(sorted(_SPOILERS)), min_size=1, max_size=3)):
        _SPOILERS[name](draw, request)
    return request


def _spoil_time(draw: st.DrawFn, request: usage_pb2.RecordUsageRequest) -> None:
    request.event_time.seconds = draw(integers())
    request.event_time.nanos = draw(st.integers(-(2**31), 2**31 - 1))


def _spoil_context(draw: st.DrawFn, request: usage_pb2.RecordUsageRequest) -> None:
    request.context.CopyFrom(event_pb2.EventContext(subject_id=draw(texts())))


def _spoil(name: str, values: st.SearchStrategy[Any]) -> Any:
    return lambda draw, request: setattr(request, name, draw(values))


_SPOILERS: dict[str, Callable[[st.DrawFn, usage_pb2.RecordUsageRequest], None]] = {
    "tenant": _spoil("tenant_id", texts()),
    "meter": _spoil("meter", texts()),
    "event": _spoil("event_id", texts()),
    "operation": _spoil("operation_id", texts()),
    "amount": _spoil("amount", integers()),
    "durability": _spoil("min_durability", st.integers(0, 9)),
    "time": _spoil_time,
    "context": _spoil_context,
    "dimension": lambda draw, request: request.dimensions.update({draw(texts()): draw(texts())}),
    "metadata": lambda draw, request: request.metadata.update({draw(texts()): draw(texts())}),
}


def test_edge_refuses_by_field_or_it_persists(redis_url: str, postgres_dsn: str) -> None:
    """What the edge takes, the ledger can hold; what it refuses, it names; good ones pass."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        asked = runner.run(_door(stack, redis_url, postgres_dsn))
        try:

            @settings(max_examples=20)
            @example([usage_pb2.RecordUsageRequest(tenant_id="acme", meter=LARGE, amount=1)])
            @given(st.lists(requests(), min_size=1, max_size=6))
            def judge(hostile: list[usage_pb2.RecordUsageRequest]) -> None:
                runner.run(asked(hostile))

            judge()
        finally:
            runner.run(stack.aclose())


async def _door(
    stack: AsyncExitStack, redis_url: str, dsn: str
) -> Callable[[Sequence[usage_pb2.RecordUsageRequest]], Coroutine[Any, Any, None]]:
    view = CatalogInMemory(catalog(window(limit=1_000)))
    address = await stack.enter_async_context(sidecar(redis_url, view))
    stub = usage_pb2_grpc.UsageServiceStub(await stack.enter_async_context(channel(address)))
    client, postgres = connect(redis_url, 10_000), Postgres(dsn)
    stack.push_async_callback(client.aclose)
    stack.push_async_callback(postgres.close)
    admin = await stack.enter_async_context(connection(dsn))
    stream = RedisUsageStream(client, StreamOptions(SHARDS, "a"))
    parts = IngestParts(stream, PostgresLedger(postgres), ProtobufEventEncoder(), SystemClock())
    ingest = Ingest(parts, IngestOptions(block_ms=1))
    good = usage_pb2.RecordUsageRequest(tenant_id="acme", meter="requests", amount=1)

    async def judge(hostile: Sequence[usage_pb2.RecordUsageRequest]) -> None:
        batch = usage_pb2.BatchRecordUsageRequest(requests=[good, *hostile, good])
        reply = await stub.BatchRecordUsage(batch, timeout=CALL_S)
        assert len(reply.results) == len(batch.requests)
        taken = {}
        for request, result in zip(batch.requests, reply.results, strict=True):
            if not result.HasField("error"):
                taken[request.tenant_id, result.response.event_id] = request
            elif result.error.code == code_pb2.INVALID_ARGUMENT:
                assert result.error.field
        assert not reply.results[0].HasField("error")
        assert not reply.results[-1].HasField("error")
        while (await ingest.run_once()).entries or sum(
            depth.entries for depth in await stream.depths()
        ):
            pass
        stored = await admin.fetch(
            "select event_id, amount, subject_id from tallygate.usage_event"
            " where event_id = any ($1)",
            [event_id for _, event_id in taken],
        )
        assert {row["event_id"] for row in stored} == {event_id for _, event_id in taken}
        bad = "select count(*) from tallygate.dead_letter where reason = $1"
        assert await admin.fetchval(bad, UNSTORABLE) == 0

    return judge


HOSTILE_TEXTS = st.sampled_from(["\x00", "\ud800", "a\udfff", LARGE, "\\u0000"])
HOSTILE_NUMBERS = st.sampled_from([0, INT64_MAX, -INT64_MAX - 1, INT64_MAX + 1, 2**80])


@st.composite
def poison(draw: st.DrawFn) -> dict[str, Any]:
    """Return fields of an event that got past an edge that was not ours."""
    spoiled = {
        "tenant_id": HOSTILE_TEXTS,
        "event_id": HOSTILE_TEXTS,
        "meter": HOSTILE_TEXTS,
        "operation_id": HOSTILE_TEXTS,
        "amount": HOSTILE_NUMBERS,
        "event_time_us": HOSTILE_NUMBERS,
        "received_at_us": HOSTILE_NUMBERS,
        "context": HOSTILE_TEXTS.map(lambda text: EventContext(subject_id=text)),
        "dimensions": HOSTILE_TEXTS.map(lambda text: {text: text}),
        "metadata_json": st.sampled_from(['{"a": "\\u0000"}', "no json", '{"a": 1e999999}']),
    }
    names = draw(st.lists(st.sampled_from(sorted(spoiled)), min_size=1, max_size=2, unique=True))
    return {name: draw(spoiled[name]) for name in names}


def test_poison_is_isolated(postgres_dsn: str) -> None:
    """Of a batch with events that can never be stored, each other one is stored, once."""
    with asyncio.Runner() as runner:
        postgres = Postgres(postgres_dsn)
        numbers = iter(range(1, 10**9))

        @settings(max_examples=20)
        @example([None, {"tenant_id": LARGE}, {"event_id": LARGE}, {"meter": LARGE}, None])
        @given(st.lists(st.none() | poison(), min_size=2, max_size=12))
        def judge(made: list[dict[str, Any] | None]) -> None:
            numbered = [(next(numbers), fields) for fields in made]
            runner.run(_ingested(postgres, postgres_dsn, numbered))

        judge()
        runner.run(postgres.close())


async def _ingested(
    postgres: Postgres, dsn: str, made: Sequence[tuple[int, dict[str, Any] | None]]
) -> None:
    streams = FakeStreams(lambda: NOON_US)
    events: list[UsageEvent] = [event(number, **(fields or {})) for number, fields in made]
    streams.add(entry(events))
    ledger = PostgresLedger(postgres)
    parts = IngestParts(
        FakeUsageStream(streams, "a"), ledger, ProtobufEventEncoder(), SystemClock()
    )
    counts = await Ingest(parts).run_once()
    assert counts.entries == 1
    assert await FakeUsageStream(streams, "looks").depths()
    async with connection(dsn) as admin:
        good = [f"event-{number}" for number, fields in made if fields is None]
        found = "select count(*) from tallygate.usage_event where event_id = any ($1)"
        assert await admin.fetchval(found, good) == len(good)
        numbers = [number for number, _ in made]
        kept = (
            "select (select count(*) from tallygate.usage_event where source_seq = any ($1))"
            " + (select count(*) from tallygate.dead_letter where source_seq = any ($1))"
        )
        # An event under an id that was stored before is a duplicate of that.
        assert counts.persisted.duplicates + await admin.fetchval(kept, numbers) == len(made)
    [lane] = await ledger.progress()
    assert lane.gaps == ()
