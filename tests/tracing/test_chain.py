"""One call through the whole chain: from the caller's trace to the webhook, and to a collector.

One process has every role, over a real Redis, a real Postgres and a real OTLP receiver.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from tallygate.adapters.catalog.document import parse
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.event_records import PostgresEventRecords
from tallygate.adapters.postgres.lineage_reads import PostgresLineageReads
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.ids import EventId
from tallygate.domain.trace import LINKS_MAX, trace_id
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc, usage_pb2, usage_pb2_grpc
from tallygate.ports import CatalogChange
from tallygate.settings_sources import load_settings
from tallygate.wiring import relays
from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tests.e2e.processes import tallygate
from tests.flow.relay_parts import SECRET
from tests.servers import connection, eventually
from tests.sidecar import channel
from tests.tracing.collector import Collector, attributes, collecting
from tests.transports import TRANSPORT

ALL = frozenset(Role)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
HEADER = ("traceparent", f"00-{TRACE}-{CALLER}-01")
UNRECORDED = ("traceparent", f"00-{TRACE}-{CALLER}-00")
CATALOG = """\
version: 1
default_plan: free
meters:
  requests: {{aggregation: sum, unit: request}}
plans:
  free:
    limits:
      - {{id: monthly, meter: requests, kind: window, period: month, limit: 10, warn_at: [0.5]}}
destinations:
  hook:
    kind: webhook
    url: {url}
    types: [usage.batch, limit.threshold_crossed]
    secret: {{file: {folder}/hook}}
"""
WAIT_S = 60.0


@dataclass(slots=True)
class Hook:
    """A receiver that checks nothing: what it was sent, headers included, by type."""

    sent: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    async def receive(self, request: web.Request) -> web.Response:
        """Take it."""
        body: dict[str, Any] = await request.json()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.sent.append((str(body["type"]), headers))
        return web.Response(status=204)

    def header(self, kind: str) -> str | None:
        """Return the `traceparent` of the one message of a type."""
        (headers,) = [headers for each, headers in self.sent if each == kind]
        return headers.get("traceparent")


@dataclass(slots=True)
class World:
    """An installation with all roles in one process, and those who watch it."""

    process: Running
    hook: Hook
    collector: Collector
    redis: Redis
    dsn: str

    async def consume(
        self, operation: str, amount: int, *headers: tuple[str, str], tenant: str = "acme"
    ) -> None:
        """Charge, as a caller within a trace does."""
        request = quota_pb2.CheckAndConsumeRequest(
            tenant_id=tenant,
            operation_id=operation,
            items=[quota_pb2.Item(meter="requests", amount=amount)],
        )
        async with channel(self.process.grpc_addresses[0]) as opened:
            stub = quota_pb2_grpc.QuotaServiceStub(opened)
            assert (await stub.CheckAndConsume(request, metadata=headers)).allowed

    async def told(self, *kinds: str) -> None:
        """Wait until the receiver has so many messages of each type."""
        wanted = Counter(kinds)

        async def came() -> bool:
            return Counter(kind for kind, _ in self.hook.sent) >= wanted

        await eventually(came, WAIT_S, what=f"messages {kinds}")


@asynccontextmanager
async def world(
    folder: Path, redis_url: str, dsn: str, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[World]:
    """Run all of it, drained on leaving."""
    monkeypatch.setattr(relays, "DESTINATIONS_MS", 50)
    (folder / "hook").write_text(SECRET)
    async with AsyncExitStack() as stack:
        collector = stack.enter_context(collecting())
        hook = await _served(Hook(), stack)
        await _applied(CATALOG.format(url=hook.url, folder=folder), dsn)
        redis = Redis.from_url(redis_url)
        stack.push_async_callback(redis.aclose)
        given = {
            "transport": TRANSPORT.value,
            "grpc_address": "127.0.0.1:0",
            "ops_address": "127.0.0.1:0",
            "control_address": "127.0.0.1:0",
            "redis_url": redis_url,
            "postgres_dsn": dsn,
            "data_dir": folder,
            "relay_poll_ms": 20,
            "breaker_hang_ms": 10_000,
            "counter_rebuild": "none",
            "tracing_endpoint": f"http://{collector.address}",
            **settings,
        }
        process = await stack.enter_async_context(running(load_settings(given, environ={}), ALL))
        await eventually(process.ready, WAIT_S, what="a catalog")
        yield World(process, hook, collector, redis, dsn)


async def _served(hook: Hook, stack: AsyncExitStack) -> Hook:
    app = web.Application()
    app.router.add_post("/", hook.receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    return hook


async def _applied(text: str, dsn: str) -> None:
    parsed, postgres = parse(text), Postgres(dsn)
    await PostgresCatalogStore(postgres).write(
        CatalogChange(parsed.catalog, parsed.tenants, text, SystemClock().now_us()), 0
    )
    await postgres.close()


async def test_one_trace_from_the_caller_to_the_webhook(
    tmp_path: Path, redis_url: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's trace has the call, its batch, Redis, the ledger and each message's send.

    Each webhook names that trace and its own send. What stays on record names it as well.
    """
    key = tmp_path / "tenants.key"
    key.write_text("of more than sixteen bytes")
    on = {"tracing": "otlp", "tracing_ratio": 0, "tracing_tenant_key_file": key}
    async with world(tmp_path, redis_url, postgres_dsn, monkeypatch, **on) as it:
        await it.consume("op", 7, HEADER)
        await it.told("usage.batch", "limit.threshold_crossed")
        postgres = Postgres(it.dsn)
        (stored,) = await PostgresEventRecords(postgres).stored(None, EventId("op:0"))
        assert trace_id(stored.event.trace) == TRACE
        ids = [headers["webhook-id"] for _, headers in it.hook.sent]
        for each in ids:
            message = await PostgresLineageReads(postgres).message(each, 0, 10)
            assert message is not None
            assert message.traces == (TRACE,)
        await postgres.close()
        told = await tallygate(
            "explain", "op:0", "--json", postgres_dsn=it.dsn, redis_url=redis_url
        )
        story = {row["what"]: row["value"] for row in told.json()["story"]}
        assert story["trace"] == TRACE
        shown = await tallygate("lineage", "message", ids[0], "--json", postgres_dsn=it.dsn)
        assert shown.json()["message"][0]["traces"] == TRACE
        collector, hook = it.collector, it.hook
    # It has ended, and sent what it had within its grace.
    spans = {each.name: each for each in collector.spans}
    assert {each.trace_id.hex() for each in collector.spans} == {TRACE}
    call = spans["tallygate.v1.QuotaService/CheckAndConsume"]
    assert call.parent_span_id.hex() == CALLER
    said = attributes(call)
    assert said["rpc.system.name"] == "grpc"
    assert said["rpc.response.status_code"] == "OK"
    assert len(said["tallygate.tenant.hash"]) == 16
    parents = {name: each.parent_span_id for name, each in spans.items()}
    sends = ("send usage.batch", "send limit.threshold_crossed")
    for name in ("admit batch", "ingest batch", *sends):
        assert parents[name] == call.span_id, name
    assert parents["EVALSHA"] == spans["admit batch"].span_id
    assert parents["ledger transaction"] == spans["ingest batch"].span_id
    for name in sends:
        header = hook.header(name.removeprefix("send "))
        assert header == f"00-{TRACE}-{spans[name].span_id.hex()}-01"
    assert attributes(spans["ingest batch"])["tallygate.events"] == 1
    (resource,) = {each["service.name"] for each in collector.resources}
    assert resource == "tallygate"


async def test_calls_of_several_traces_share_work(
    tmp_path: Path, redis_url: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message about several calls goes on with one's trace and is linked to the others.

    A call whose caller does not record, and one of no trace where the ratio is 0, leave nothing:
    no span, no byte in the stream, no row, no header.
    """
    on = {"tracing": "otlp", "tracing_ratio": 0}
    async with world(tmp_path, redis_url, postgres_dsn, monkeypatch, **on) as it:
        await it.consume("plain", 1, tenant="quiet")
        await it.consume("unrecorded", 1, UNRECORDED, tenant="quiet")
        await it.told("usage.batch")
        assert all("traceparent" not in headers for _, headers in it.hook.sent)
        requests = [
            usage_pb2.RecordUsageRequest(
                tenant_id="acme", meter="requests", amount=1, event_id=f"e{number}"
            )
            for number in range(3)
        ]
        async with channel(it.process.grpc_addresses[0]) as opened:
            stub = usage_pb2_grpc.UsageServiceStub(opened)
            for number, request in enumerate(requests, 1):
                header = f"00-{number:032x}-{CALLER}-01"
                await stub.RecordUsage(request, metadata=(("traceparent", header),))

        async def all_told() -> bool:
            async with connection(it.dsn) as admin:
                rows = await admin.fetchval("select count(*) from tallygate.event_trace")
                return bool(rows == 3)

        await eventually(all_told, WAIT_S, what="three traced events")
        collector = it.collector
    assert {int(each.trace_id.hex(), 16) for each in collector.spans} == {1, 2, 3}
    syncs = collector.named("journal sync")
    linked = [
        each for span in syncs for each in (span.trace_id, *(link.trace_id for link in span.links))
    ]
    assert {int(each.hex(), 16) for each in linked} == {1, 2, 3}
    assert all(len(span.links) < LINKS_MAX for span in collector.spans)


async def test_each_step_goes_with_its_own_call(
    tmp_path: Path, redis_url: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit's events are of the commit, a refund's of the refund, not of what came before.

    A retry from another trace is the same call: it is answered as the first, and moves nothing.
    """

    def within(trace: int) -> dict[str, Any]:
        return {"metadata": (("traceparent", f"00-{trace:032x}-{CALLER}-01"),)}

    on = {"tracing": "otlp", "tracing_ratio": 0}
    async with world(tmp_path, redis_url, postgres_dsn, monkeypatch, **on) as it:
        async with channel(it.process.grpc_addresses[0]) as opened:
            stub = quota_pb2_grpc.QuotaServiceStub(opened)
            one = [quota_pb2.Item(meter="requests", amount=2)]
            asked = quota_pb2.CheckAndConsumeRequest(
                tenant_id="acme", operation_id="again", items=one
            )
            first = await stub.CheckAndConsume(asked, **within(1))
            second = await stub.CheckAndConsume(asked, **within(2))
            assert (first.replayed, second.replayed) == (False, True)
            held = await stub.Reserve(
                quota_pb2.ReserveRequest(tenant_id="acme", operation_id="held", items=one),
                **within(3),
            )
            commit = quota_pb2.CommitRequest(
                tenant_id="acme",
                operation_id="kept",
                reservation_id=held.reservation_id,
                amounts=[1],
            )
            await stub.Commit(commit, **within(4))
            back = quota_pb2.RefundRequest(
                tenant_id="acme", event_id="again:0", operation_id="back"
            )
            await stub.Refund(back, **within(5))

        async def places() -> dict[str, int]:
            async with connection(it.dsn) as admin:
                rows = await admin.fetch(
                    "select event_id, trace_context from tallygate.event_trace"
                )
            found = {row["event_id"]: int(trace_id(row["trace_context"]), 16) for row in rows}
            return found if len(found) == 3 else {}

        found = await eventually(places, WAIT_S, what="three traced events")
        assert (found.pop("again:0"), found.pop("back:0")) == (1, 5)
        assert [*found.values()] == [4]
        collector = it.collector
    calls = {int(each.trace_id.hex(), 16) for each in collector.spans}
    assert calls == {1, 2, 3, 4, 5}


async def test_off_leaves_nothing_anywhere(
    tmp_path: Path, redis_url: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off, a caller's header has no effect: the webhook has none, and no row holds a place."""
    async with world(tmp_path, redis_url, postgres_dsn, monkeypatch) as it:
        await it.consume("op", 7, HEADER)
        await it.told("usage.batch", "limit.threshold_crossed")
        async with connection(it.dsn) as admin:
            rows = "select count(*) from tallygate.outbox where trace_context is not null"
            assert await admin.fetchval(rows) == 0
            assert await admin.fetchval("select count(*) from tallygate.event_trace") == 0
        assert it.collector.spans == []
        assert all("traceparent" not in headers for _, headers in it.hook.sent)
