"""An event's whole story by the command, wherever on its way the event is."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tallygate.gen.v1 import quota_pb2, usage_pb2, usage_pb2_grpc
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, consume, quota
from tests.e2e.processes import Finished, Server, Site, rows_of, site, tallygate
from tests.servers import connection, eventually

SETTLE_S = 15.0
OLD_S = 60 * 86_400
LATE_S = 3 * 3_600


@dataclass(frozen=True, slots=True)
class Parts:
    """A sidecar, and the installation it stands in; ingest runs when a test starts it."""

    place: Site
    serve: Server
    redis_url: str
    dsn: str

    async def explain(self, event: str, *arguments: object) -> Finished:
        """Return what the command says of an event."""
        settings: dict[str, Any] = {"redis_url": self.redis_url, "postgres_dsn": self.dsn}
        return await tallygate("explain", event, "--json", *arguments, **settings)

    async def story(self, event: str) -> dict[str, Any]:
        """Return the story of an event of acme, line by line."""
        finished = await self.explain(event, "--tenant", "acme")
        assert finished.code == 0, finished.err
        return {row["what"]: row["value"] for row in rows_of(finished, "story")}

    async def ingested(self, event: str) -> None:
        """Wait until the ledger has an event, or why it was refused."""

        async def stored() -> bool:
            async with connection(self.dsn) as admin:
                found = await admin.fetchval(
                    "select count(*) from (select event_id from tallygate.usage_event"
                    " union all select event_id from tallygate.dead_letter) as event"
                    " where event_id = $1",
                    event,
                )
            return bool(found)

        await eventually(stored, SETTLE_S, what="the event in the ledger")

    async def record(self, event: str, age_s: float) -> None:
        """Record an event that happened so long ago."""
        request = usage_pb2.RecordUsageRequest(
            tenant_id="acme", meter="requests", amount=3, event_id=event
        )
        request.event_time.GetCurrentTime()
        request.event_time.seconds -= int(age_s)
        async with grpc.aio.insecure_channel(self.serve.address) as channel:
            stub = usage_pb2_grpc.UsageServiceStub(channel)
            await stub.RecordUsage(request, timeout=CALL_TIMEOUT_S)


@pytest.fixture
async def parts(tmp_path: Path, redis_url: str, postgres_dsn: str) -> AsyncIterator[Parts]:
    """A sidecar and a control with a catalog that tells a webhook, which nobody serves."""
    text = catalogs.OPEN + (
        "destinations:\n"
        "  hook: {kind: webhook, url: 'http://127.0.0.1:9/', types: [usage.batch],"
        " secret: {env: HOOK}}\n"
    )
    async with site(tmp_path, redis_url=redis_url, counter_rebuild="none") as place:
        control = await place.start("control", postgres_dsn=postgres_dsn)
        file = catalogs.write(tmp_path, text)
        applied = await tallygate("apply", "-f", file, "--control-address", control.address)
        assert applied.code == 0, applied.err + applied.out
        serve = await (await place.start("serve")).ready()
        yield Parts(place, serve, redis_url, postgres_dsn)


async def test_from_the_stream_to_the_destination(parts: Parts) -> None:
    """Accepted, it is on its way; ingested, it has its buckets, its refund and its message."""
    async with quota(parts.serve.address) as stub:
        await stub.CheckAndConsume(consume("first", 7, "acme"), timeout=CALL_TIMEOUT_S)
        assert (await parts.story("first:0"))["ending"] == "accepted, and on its way to the ledger"
        await stub.Refund(
            quota_pb2.RefundRequest(
                tenant_id="acme", event_id="first:0", amount=2, operation_id="back"
            ),
            timeout=CALL_TIMEOUT_S,
        )
    await parts.place.start("ingest", postgres_dsn=parts.dsn)
    await parts.ingested("back:0")
    finished = await parts.explain("first:0", "--tenant", "acme")
    story = {row["what"]: row["value"] for row in rows_of(finished, "story")}
    assert (story["ending"], story["amount"], story["refunded"]) == ("in the ledger", 7, 2)
    assert (story["number"], story["operation"], story["meter"]) == (1, "first", "requests")
    assert story["source"].endswith(f".{story['epoch']}")
    assert "late" not in story
    assert " to " in story["billing period"]
    assert story["partition"].startswith("usage_event_")
    buckets = rows_of(finished, "rollups")
    assert [(row["by"], row["events"], row["sum"]) for row in buckets] == [
        ("minute", 1, 5),
        ("hour", 1, 5),
        ("day", 1, 5),
    ]
    (refund,) = rows_of(finished, "refunds")
    assert (refund["event"], refund["amount"]) == ("back:0", -2)
    (told,) = rows_of(finished, "deliveries")
    assert (told["destination"], told["state"], told["attempts"]) == ("hook", "pending", 0)
    assert (await parts.story("back:0"))["refund of"] == "first:0"


async def test_late_and_refused_and_unknown(parts: Parts) -> None:
    """A late event says by how much, one that was too old why it was refused; no id, exit 1."""
    await parts.place.start("ingest", postgres_dsn=parts.dsn)
    await parts.record("late", LATE_S)
    with pytest.raises(grpc.aio.AioRpcError, match="kept as rejected"):
        await parts.record("old", OLD_S)
    await parts.ingested("late")
    await parts.ingested("old")
    assert "3:00:0" in (await parts.story("late"))["late"]
    old = await parts.explain("old")
    (letter,) = rows_of(old, "dead letters")
    assert (old.code, letter["reason"]) == (0, "EVENT_TIME_TOO_OLD")
    unknown = await parts.explain("nobody-knows")
    assert (unknown.code, rows_of(unknown, "story")) == (1, [])
    assert "Nothing is on record" in unknown.err
