"""The relay on Postgres and HTTP, its process killed at the worst moment."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.adapters.webhook.sender import WebhookSender
from tallygate.flow.relay import Relay, RelayOptions
from tallygate.testing.webhook import WebhookReceiver
from tests.flow.relay_parts import HOOK, SECRET, CountingObserver, SystemClock, webhook_config
from tests.servers import connection, eventually

LEASE_MS = 1_500
PAYLOAD = b'{"type":"usage.batch","timestamp":"2026-01-01T00:00:00Z","data":{"events":[]}}'


async def _write(dsn: str, url: str) -> str:
    message_id = uuid.uuid4()
    async with connection(dsn) as admin:
        await admin.execute(
            "insert into tallygate.destination (name, kind, url, types) "
            "values ($1, 'webhook', $2, array['usage.batch'])",
            HOOK,
            url,
        )
        await admin.execute(
            query("outbox_insert"),
            *([message_id], ["usage"], ["batch"], ["usage.batch"], [PAYLOAD], [None]),
        )
    return str(message_id)


@asynccontextmanager
async def _relay(dsn: str, url: str) -> AsyncIterator[Relay]:
    postgres = Postgres(dsn)
    sender = WebhookSender(webhook_config(url), SystemClock())
    try:
        yield Relay(PostgresOutbox(postgres), sender, RelayOptions(), CountingObserver())
    finally:
        await sender.close()
        await postgres.close()


async def test_message_goes_from_the_outbox_to_the_receiver(postgres_dsn: str) -> None:
    """A message is delivered as written, after as many refusals as it takes, and then rests."""
    async with WebhookReceiver(SECRET) as receiver, _relay(postgres_dsn, receiver.url) as relay:
        message_id = await _write(postgres_dsn, receiver.url)
        receiver.fail_next(503)
        assert (await relay.run_once()).retried == 1
        async with connection(postgres_dsn) as admin:
            await admin.execute("update tallygate.delivery set due_at = now()")
        assert (await relay.run_once()).delivered == 1
        assert (await relay.run_once()).claimed == 0
        assert [call.status for call in receiver.received] == [503, 204]
        assert {(call.message_id, call.payload) for call in receiver.received} == {
            (message_id, PAYLOAD)
        }
        assert [depth.pending for depth in await relay.snapshot()] == [0]


async def test_kill_between_send_and_mark_redelivers_under_the_same_id(postgres_dsn: str) -> None:
    """A relay killed after its send leaves the message to the next, which sends the same id."""
    async with WebhookReceiver(SECRET) as receiver, _relay(postgres_dsn, receiver.url) as relay:
        message_id = await _write(postgres_dsn, receiver.url)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.flow.relay_process",
            postgres_dsn,
            receiver.url,
            str(LEASE_MS),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(20):
                assert await process.stdout.readline() == b"sent\n"
        finally:
            process.kill()
            await process.wait()
        assert [call.message_id for call in receiver.accepted] == [message_id]

        async def redelivered() -> bool:
            return (await relay.run_once()).delivered == 1

        await eventually(redelivered, what="the take-over after the lease")
        assert [call.message_id for call in receiver.accepted] == [message_id] * 2
        assert {call.payload for call in receiver.accepted} == {PAYLOAD}
