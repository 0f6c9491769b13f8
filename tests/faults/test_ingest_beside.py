"""Two ingesters share a busy tenant and each source's progress, and neither keeps the other out."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres import ledger as module
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import TenantId
from tallygate.flow.ingest import Ingest, IngestOptions, IngestParts
from tallygate.ports import LedgerBatch, Persisted
from tests.faults.world import SHARDS, World, world
from tests.servers import connection
from tests.usage_events import SOURCE, event

EVENTS = 2_000
TOTALS = """
    select tenant_id, sum(count)::bigint as count, sum(sum)::bigint as sum,
        max(max) as max, min(min) as min
    from tallygate.usage_{} group by 1
"""


def tenant_of(number: int) -> str:
    """Return whose event that is: eight of ten are of one tenant."""
    return "busy" if number % 10 < 8 else f"quiet-{number % 7}"


def made(number: int) -> UsageEvent:
    """Return the event of that number."""
    return event(number, tenant_id=TenantId(tenant_of(number)), amount=number)


async def fill(on: World) -> None:
    """Append one entry per four events, over all shards."""
    encoder = ProtobufEventEncoder()
    async with on.client.pipeline(transaction=False) as pipeline:
        for first in range(1, EVENTS + 1, 4):
            some = encoder.encode([made(number) for number in range(first, first + 4)])
            pipeline.xadd(
                keys.stream(first // 4 % SHARDS),
                {"t": "1795168800000007", "s": SOURCE, "e": "e1", f"u{first}+4": some},
            )
        await pipeline.execute()


@dataclass(slots=True)
class Meeting:
    """Lets two ingesters begin their first transactions together, and counts what each stores."""

    there: asyncio.Barrier = field(default_factory=lambda: asyncio.Barrier(2))
    stored: Counter[str] = field(default_factory=Counter)


class MeetingLedger(PostgresLedger):
    """The ledger of one of the two."""

    def join(self, meeting: Meeting, name: str) -> "MeetingLedger":
        """Wait for the other once."""
        self._meeting, self._name, self._met = meeting, name, False
        return self

    async def persist(self, batch: LedgerBatch) -> Persisted:
        """Store as ever, but for the first time together."""
        if not self._met:
            self._met = True
            await self._meeting.there.wait()
        persisted = await super().persist(batch)
        self._meeting.stored[self._name] += persisted.events
        return persisted


async def test_one_tenant_with_most_of_the_traffic(
    redis_url: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both store their part at the same time, no try fails, and every sum is exact."""
    monkeypatch.setattr(module, "ATTEMPTS_MAX", 1)
    async with world(redis_url, postgres_dsn) as on:
        await fill(on)
        meeting = Meeting()

        async def drain(name: str) -> None:
            parts = IngestParts(
                on.stream(name),
                MeetingLedger(on.postgres).join(meeting, name),
                ProtobufEventEncoder(),
                SystemClock(),
            )
            ingest = Ingest(parts, IngestOptions(entries_max=20, events_max=40, block_ms=1))
            while not await on.drained():
                await ingest.run_once()

        async with asyncio.TaskGroup() as group:
            for name in ("one", "other"):
                group.create_task(drain(name))
        assert sum(meeting.stored.values()) == EVENTS
        assert min(meeting.stored.values()) > 0
        expected = Counter(tenant_of(number) for number in range(1, EVENTS + 1))
        async with connection(postgres_dsn) as admin:
            for length in ("minute", "hour", "day"):
                rows = {row["tenant_id"]: row for row in await admin.fetch(TOTALS.format(length))}
                assert {name: row["count"] for name, row in rows.items()} == expected
                for name, row in rows.items():
                    own = [each for each in range(1, EVENTS + 1) if tenant_of(each) == name]
                    assert (row["sum"], row["max"], row["min"]) == (sum(own), own[-1], own[0])
        progress = await PostgresLedger(on.postgres).progress()
        assert sum(each.seen for each in progress) == EVENTS
