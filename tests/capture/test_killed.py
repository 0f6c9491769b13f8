"""A drainer that is killed between its send and its mark: nothing is lost, nothing counts twice."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from tallygate.gen.v1 import usage_pb2, usage_pb2_grpc
from tests.capture.world import app
from tests.e2e.processes import FREE, started, tallygate
from tests.servers import eventually

Results = usage_pb2.BatchRecordUsageResponse


class Sidecar(usage_pb2_grpc.UsageServiceServicer):
    """Records by event id, and keeps the reply to itself until it is told to give it."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.calls: list[Sequence[str]] = []
        self.reply = asyncio.Event()

    async def BatchRecordUsage(  # noqa: N802  the name is the proto's
        self, request: usage_pb2.BatchRecordUsageRequest, context: object
    ) -> usage_pb2.BatchRecordUsageResponse:
        """Record, and answer once replies are given."""
        response = usage_pb2.BatchRecordUsageResponse()
        for each in request.requests:
            result = response.results.add()
            result.response.event_id = each.event_id
            result.response.replayed = each.event_id in self.known
            self.known.setdefault(each.event_id, each.amount)
        self.calls.append([each.event_id for each in request.requests])
        await self.reply.wait()
        return response


@asynccontextmanager
async def listening(sidecar: Sidecar, path: Path) -> AsyncIterator[str]:
    """Serve on a socket; lend its address."""
    server = grpc.aio.server()
    usage_pb2_grpc.add_UsageServiceServicer_to_server(sidecar, server)
    address = f"unix:{path}"
    server.add_insecure_port(address)
    await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


async def test_a_kill_between_send_and_mark_adds_nothing(
    empty_postgres_dsn: str, tmp_path: Path
) -> None:
    """The next drainer sends the same ids, which are known; the outbox is empty afterwards."""
    sidecar = Sidecar()  # type: ignore[abstract]  # no other call comes
    given: dict[str, Any] = {
        "capture_dsn": empty_postgres_dsn,
        "ops_address": FREE,
        "capture_poll_ms": 10,
        "data_dir": tmp_path,
    }
    made = await tallygate("capture", "install", "--role", **given)
    assert made.code == 0, made.err
    async with (
        app(empty_postgres_dsn) as world,
        listening(sidecar, tmp_path / "s.sock") as address,
    ):
        await world.capture("rows", "octet_length(body)")
        await world.insert("acme", "a", "bb", "ccc")
        given["record_target"] = address
        async with started("capture", "run", **given) as first:
            await eventually(lambda: sidecar.calls, what="a call")
            await first.kill()
        assert await world.captured("rows") == [("acme", 1), ("acme", 2), ("acme", 3)]
        # Its lease would last a minute.
        await world.sql.execute("update tallygate.captured set due_at = now()")
        await world.insert("acme", "dddd")
        sidecar.reply.set()
        async with started("capture", "run", **given) as second:

            async def drained() -> bool:
                return await world.captured("rows") == []

            await eventually(drained, what="an empty outbox")
            shown = await tallygate("capture", "status", "--json", **given)
            # What was written last is handed on by a drainer that is told to end.
            await world.insert("acme", "eeeee")
            second.child.send_signal(15)
            assert await second.ended() == 0
        assert await world.captured("rows") == []
        assert sorted(sidecar.known.values()) == [1, 2, 3, 4, 5]
        assert set(sidecar.calls[0]) < set(sidecar.known)
        (capture,) = shown.json()["captures"]
        assert (capture["relation"], capture["waiting"]) == ('app."Documents"', 0)


async def test_commands_say_what_is_missing(empty_postgres_dsn: str) -> None:
    """Without an address, or without the package, a line says so; the SQL needs neither."""
    bare = await tallygate("capture", "status")
    assert (bare.code, "TALLYGATE_CAPTURE_DSN" in bare.err) == (1, True)
    empty = await tallygate("capture", "status", "--dsn", empty_postgres_dsn)
    assert (empty.code, "tallygate capture install" in empty.err) == (1, True)
    script = await tallygate("capture", "sql", "--role")
    assert "create role tallygate_capture" in script.out
