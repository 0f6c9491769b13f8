"""Workers that are stopped for longer than their lease, and come back after others took over."""

import asyncio
import json
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.adapters.webhook.sender import WebhookSender
from tallygate.flow.relay import Relay, RelayOptions
from tallygate.testing.webhook import WebhookReceiver
from tests.faults.world import expected, world
from tests.flow.relay_parts import HOOK, SECRET, CountingObserver, SystemClock, webhook_config
from tests.servers import connection, eventually

ROOT = Path(__file__).parents[2]
LINE_S = 30
LEASE_MS = 1_500
PAYLOAD = b'{"type":"usage.batch","timestamp":"2026-01-01T00:00:00Z","data":{"events":[]}}'


class Paused:
    """A worker's process: what it says is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> bytes:
        """Return its next line, empty at its end."""
        assert self._process.stdout is not None
        return await asyncio.wait_for(self._process.stdout.readline(), LINE_S)

    def stop(self) -> None:
        """Stop it in the middle of whatever it does."""
        self._process.send_signal(signal.SIGSTOP)

    async def resume(self) -> dict[str, int]:
        """Let it go on to its end; return what it says it did."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(b"\n")
        await self._process.stdin.drain()
        did: dict[str, int] = json.loads(await self.line())
        assert await asyncio.wait_for(self._process.wait(), LINE_S) == 0
        return did


@asynccontextmanager
async def paused(*arguments: str) -> AsyncIterator[Paused]:
    """Run a worker for the length of a block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.paused_process", *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Paused(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_relay_stopped_beyond_its_lease(postgres_dsn: str) -> None:
    """Another relay delivers; the late mark is refused, and the destination knows the id."""
    message = uuid.uuid4()
    async with WebhookReceiver(SECRET) as receiver, connection(postgres_dsn) as admin:
        await admin.execute(
            "insert into tallygate.destination (name, kind, url, types)"
            " values ($1, 'webhook', $2, array['usage.batch'])",
            *(HOOK, receiver.url),
        )
        await admin.execute(
            query("outbox_insert"),
            *([message], ["usage"], ["batch"], ["usage.batch"], [PAYLOAD], [None]),
        )
        postgres = Postgres(postgres_dsn)
        sender = WebhookSender(webhook_config(receiver.url), SystemClock())
        heir = Relay(PostgresOutbox(postgres), sender, RelayOptions(), CountingObserver())
        async with paused("relay", postgres_dsn, receiver.url, str(LEASE_MS)) as late:
            assert await late.line() == b"sent\n"
            late.stop()

            async def taken_over() -> bool:
                return (await heir.run_once()).delivered == 1

            await eventually(taken_over, what="the take-over after the lease")
            row = await admin.fetchrow("select * from tallygate.delivery")
            assert await late.resume() == {"delivered": 0, "stale": 1}
            assert await admin.fetchrow("select * from tallygate.delivery") == row
        assert [call.message_id for call in receiver.accepted] == [str(message)] * 2
        assert {call.payload for call in receiver.accepted} == {PAYLOAD}
        await sender.close()
        await postgres.close()


async def test_ingester_stopped_beyond_its_claim(redis_url: str, postgres_dsn: str) -> None:
    """Another ingester takes its entries over; what it stores late are duplicates."""
    async with world(redis_url, postgres_dsn) as on:
        await on.fill(1, 40)
        async with paused("ingest", redis_url, postgres_dsn) as late:
            assert await late.line() == b"read\n"
            late.stop()
            heir = on.ingest("heir", claim_idle_ms=0)

            async def drained() -> bool:
                await heir.run_once()
                return await on.drained()

            await eventually(drained, what="the take-over")
            assert await on.sums() == expected(40)
            did = await late.resume()
        assert did["events"] == 0
        assert did["duplicates"] > 0
        assert await on.sums() == expected(40)
        assert await on.drained()
