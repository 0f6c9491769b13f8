"""Rollups made anew are exact beside ingest; messages are sent again once for each replay."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tallygate.adapters.postgres.audit import PostgresLedgerAudit
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.replays import PostgresMessageReplay, PostgresRollupRecompute
from tallygate.domain.errors import InvalidField, NotFound
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.window import DAY_US, MINUTE_US
from tallygate.flow import replay as module
from tallygate.flow.replay import RecomputeAsked, Recomputed, recompute, redeliver
from tallygate.ports import LedgerBatch
from tallygate.ports.redeliver import RedeliverAsked, RedeliverCounts
from tests.servers import connection
from tests.usage_events import NOON_US, event

DAY_OF_NOON_US = NOON_US - NOON_US % DAY_US
ASKED = RecomputeAsked(DAY_OF_NOON_US, DAY_OF_NOON_US + DAY_US)
FOR_EVER_US = 253_402_300_799_999_999
MESSAGES = RedeliverAsked("r1", "hook", 0, FOR_EVER_US)

STRAY = """
    insert into tallygate.usage_minute
    select tenant_id, meter, bucket + interval '3 hours', 1, 1, 1, 1 from tallygate.usage_day
"""
PLANTED = [
    "update tallygate.usage_minute set sum = sum + 1",
    "update tallygate.usage_hour set count = count - 1",
    "update tallygate.usage_day set max = max + 1",
    "update tallygate.usage_day set min = min - 1",
    "delete from tallygate.usage_minute",
    "delete from tallygate.usage_hour; delete from tallygate.usage_day",
    STRAY,
]


@dataclass(slots=True)
class Parts:
    """A ledger, and what makes again what was made of it."""

    dsn: str
    postgres: Postgres
    ledger: PostgresLedger
    told: list[tuple[int, int]] = field(default_factory=list)

    async def store(self, *events: UsageEvent) -> None:
        """Store events."""
        await self.ledger.persist(LedgerBatch(events))

    async def execute(self, statements: str) -> None:
        """Do something to the tables."""
        async with connection(self.dsn) as admin:
            await admin.execute(statements)

    async def rows(self, table: str, order: str) -> list[tuple[Any, ...]]:
        """Return all rows of a table."""
        async with connection(self.dsn) as admin:
            found = await admin.fetch(f"select * from tallygate.{table} order by {order}")
        return [tuple(row) for row in found]

    async def recompute(self, asked: RecomputeAsked = ASKED, **fields: Any) -> Recomputed:
        """Replay the rollups."""
        stores = [PostgresRollupRecompute(self.postgres)]
        return await recompute(stores, replace(asked, **fields), self._note)

    async def redeliver(
        self, asked: RedeliverAsked = MESSAGES, *, apply: bool = True
    ) -> tuple[RedeliverCounts, int]:
        """Replay messages."""
        messages = PostgresMessageReplay(self.postgres)
        return await redeliver(messages, asked, apply=apply, progress=self._note)

    async def clean(self) -> bool:
        """Whether the rollups are what the events come to, by the verification's own queries."""
        audit = PostgresLedgerAudit(self.postgres)
        months = await audit.months(None)
        return not [each for month in months for each in await audit.unequal(month, None)]

    def _note(self, done: int, total: int) -> None:
        self.told.append((done, total))


@pytest.fixture
async def parts(postgres_dsn: str) -> AsyncIterator[Parts]:
    """A ledger with usage of two tenants, on two days."""
    postgres = Postgres(postgres_dsn)
    found = Parts(postgres_dsn, postgres, PostgresLedger(postgres))
    await found.store(
        event(1, amount=5),
        event(2, amount=7, event_time_us=NOON_US + MINUTE_US),
        event(3, amount=-2, refund_of=EventId("event-1")),
        event(4, tenant_id=TenantId("other")),
        event(5, event_time_us=NOON_US + DAY_US),
    )
    yield found
    await postgres.close()


async def test_nothing_to_do(parts: Parts) -> None:
    """Rollups that are right are left alone."""
    found = await parts.recompute(apply=True)
    assert (found.days, found.different, found.mended) == (1, 0, 0)
    assert parts.told == [(1, 1)]


@pytest.mark.parametrize("planted", PLANTED)
async def test_dry_run_shows_what_apply_mends(parts: Parts, planted: str) -> None:
    """A dry run shows what differs and changes nothing; then it is mended, and stays so."""
    await parts.execute(planted)
    dry = await parts.recompute(to_us=ASKED.to_us + DAY_US)
    assert (dry.different > 0, dry.mended) == (True, 0)
    assert len(dry.differences) == dry.different
    assert not await parts.clean()
    made = await parts.recompute(to_us=ASKED.to_us + DAY_US, apply=True)
    assert (made.different, made.mended) == (dry.different, dry.different)
    assert await parts.clean()
    again = await parts.recompute(to_us=ASKED.to_us + DAY_US, apply=True)
    assert (again.different, again.mended) == (0, 0)


async def test_scope_is_kept(parts: Parts) -> None:
    """Other tenants, meters and days stay as they are."""
    await parts.execute("update tallygate.usage_day set sum = sum + 1")
    found = await parts.recompute(tenant_id=TenantId("acme"), apply=True)
    assert (found.different, found.mended) == (1, 1)
    assert (await parts.recompute(meter=MeterName("bytes"))).different == 0
    rest = await parts.recompute(to_us=ASKED.to_us + 1)
    assert [(each.tenant_id, each.finer.sum, each.coarser.sum) for each in rest.differences] == [
        ("other", 1, 2),
        ("acme", 1, 2),
    ]
    assert rest.days == 2


@pytest.mark.parametrize("to_us", [ASKED.from_us, ASKED.from_us + 3_661 * DAY_US])
async def test_ranges_are_bounded(parts: Parts, to_us: int) -> None:
    """A range of no day, or of too many, is refused by field."""
    with pytest.raises(InvalidField) as raised:
        await parts.recompute(to_us=to_us)
    assert raised.value.field == "--to"


async def test_ingest_goes_on_meanwhile(parts: Parts) -> None:
    """Rollups that are spoilt and made anew again and again, beside ingesters, are exact."""
    stop = asyncio.Event()

    async def ingest(number: int) -> int:
        stored = 0
        ledger = PostgresLedger(parts.postgres)
        while not stop.is_set():
            batch = [
                event(
                    10_000 * number + stored + each,
                    amount=1 + each,
                    event_time_us=NOON_US + each * 17 * MINUTE_US,
                )
                for each in range(10)
            ]
            await ledger.persist(LedgerBatch(tuple(batch)))
            stored += len(batch)
        return stored

    ingesters = [asyncio.create_task(ingest(number)) for number in (1, 2, 3)]
    mended = 0
    try:
        for planted in PLANTED:
            await parts.execute(planted)
            mended += (await parts.recompute(apply=True)).mended
    finally:
        stop.set()
        stored = sum(await asyncio.gather(*ingesters))
    assert mended > 0
    assert stored > 0
    # What was planted on the next day, which was not asked for.
    await parts.recompute(to_us=ASKED.to_us + DAY_US, apply=True)
    assert await parts.clean()


async def test_two_replays_at_once_do_the_work_once(parts: Parts) -> None:
    """Of two at the same time each ends with rollups that are right."""
    await parts.execute("update tallygate.usage_minute set sum = sum + 1")
    await asyncio.gather(*(parts.recompute(apply=True) for _ in range(4)))
    await parts.recompute(to_us=ASKED.to_us + DAY_US, apply=True)
    assert await parts.clean()


async def test_archived_days_are_left(parts: Parts) -> None:
    """The rollups of a month whose events were dropped are not made of nothing."""
    await parts.execute(
        "insert into tallygate.month_archive values"
        " ('a', '2026-11-01', 'usage_event_202611', 5, 'f', 'csv', '00', 'ada');"
        "insert into tallygate.month_dropped values ('2026-11-01', 'a', 'ada')"
    )
    before = await parts.rows("usage_minute", "tenant_id, bucket")
    found = await parts.recompute(apply=True)
    assert (found.days, found.archived_days, found.mended) == (0, 1, 0)
    store = PostgresRollupRecompute(parts.postgres)
    with pytest.raises(InvalidField):
        await store.recompute(TenantId("acme"), MeterName("requests"), DAY_OF_NOON_US)
    assert await parts.rows("usage_minute", "tenant_id, bucket") == before


HOOK = """
    insert into tallygate.destination (name, kind, url, types)
    values ('hook', 'webhook', 'http://127.0.0.1', '{usage.batch}')
"""


@pytest.fixture
async def sent(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Parts:
    """Seven messages that a destination has, in batches of three."""
    monkeypatch.setattr(module, "MESSAGES_BATCH", 3)
    await parts.execute(HOOK)
    for number in range(10, 17):
        await parts.store(event(number))
    await deliver(parts)
    return parts


async def deliver(parts: Parts, destination: str = "hook") -> list[str]:
    """Deliver all that is due, as a relay does; return the messages' ids, sorted."""
    outbox = PostgresOutbox(parts.postgres)
    found: list[str] = []
    while claims := await outbox.claim(destination, 100, 60_000):
        found += [claim.message_id for claim in claims]
        await outbox.delivered(claims)
    return sorted(found)


async def test_messages_are_sent_again_once(sent: Parts) -> None:
    """A dry run counts; the replay sends each once more under its id, and then no more."""
    ids = sorted(str(row[0]) for row in await sent.rows("outbox", "seq"))
    counts, again = await sent.redeliver(apply=False)
    assert (counts, again) == (RedeliverCounts(delivered=7), 0)
    assert await deliver(sent) == []
    counts, again = await sent.redeliver()
    assert (counts.again, again) == (7, 7)
    assert sent.told[-1] == (7, 7)
    # The same again changes nothing, neither before the relay has been there nor after.
    assert await sent.redeliver() == (RedeliverCounts(replayed=7), 0)
    assert await deliver(sent) == ids
    assert await sent.redeliver() == (RedeliverCounts(replayed=7), 0)
    assert (await sent.redeliver(replace(MESSAGES, replay_id="r2")))[1] == 7
    assert await deliver(sent) == ids
    assert not await PostgresLedgerAudit(sent.postgres).undelivered()


async def test_parked_and_unsent_are_sent_waiting_are_not(sent: Parts) -> None:
    """What was given up comes again, what waits is left, a new destination gets what it lacks."""
    await sent.execute(
        "update tallygate.delivery set state = 'parked', reason = 'gone' where message_id ="
        " (select id from tallygate.outbox order by seq limit 1)"
    )
    await sent.store(event(30))
    counts, again = await sent.redeliver()
    assert (counts, again) == (RedeliverCounts(delivered=6, parked=1, waiting=1), 7)
    assert len(await deliver(sent)) == 8
    # The one that waited was noted, and is not sent again for it.
    assert (await sent.redeliver())[1] == 0
    await sent.execute(HOOK.replace("'hook'", "'late'"))
    late = replace(MESSAGES, destination="late")
    assert await sent.redeliver(late) == (RedeliverCounts(unsent=8), 8)
    assert len(await deliver(sent, "late")) == 8


async def test_an_interrupted_replay_goes_on(sent: Parts) -> None:
    """A replay that died after a batch sends the rest when it is given again, and nothing twice."""
    replayed = PostgresMessageReplay(sent.postgres)
    batch = await replayed.again(MESSAGES, None, 3)
    assert (batch.seen, batch.again, batch.after is None) == (3, 3, False)
    assert len(await deliver(sent)) == 3
    assert await sent.redeliver() == (RedeliverCounts(delivered=4, replayed=3), 4)
    assert len(await deliver(sent)) == 4


async def test_ranges_and_types_choose(sent: Parts) -> None:
    """Messages of another time or type are left."""
    assert (await sent.redeliver(replace(MESSAGES, to_us=1)))[0] == RedeliverCounts()
    assert (await sent.redeliver(replace(MESSAGES, type="credit.granted")))[1] == 0
    assert (await sent.redeliver(replace(MESSAGES, type="usage.batch")))[1] == 7


async def test_unknown_destinations_are_refused(sent: Parts) -> None:
    """A destination that there is not is named, and a range that ends before it begins."""
    with pytest.raises(NotFound) as raised:
        await sent.redeliver(replace(MESSAGES, destination="nowhere"))
    assert raised.value.field == "--destination"
    with pytest.raises(InvalidField):
        await sent.redeliver(replace(MESSAGES, from_us=5, to_us=5))
