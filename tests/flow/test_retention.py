"""Months of events go only when they are old, archived, closed and not held, and are never lost."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from tallygate.adapters.postgres.event_records import PostgresEventRecords
from tallygate.adapters.postgres.export_rows import PostgresExportSource
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.lineage_reads import PostgresLineageReads
from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.outbox_upkeep import PostgresOutboxUpkeep
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.replays import PostgresMessageReplay, PostgresRollupRecompute
from tallygate.adapters.postgres.trail import PostgresTrailLog
from tallygate.domain.drift import Check
from tallygate.domain.errors import NotFound, OperationIdReused
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.retention import Policy, Verdict
from tallygate.domain.trail import TrailEntry
from tallygate.domain.window import DAY_US, from_datetime
from tallygate.flow.explain import Ending, Explain, ExplainParts
from tallygate.flow.replay import RecomputeAsked, recompute, redeliver
from tallygate.flow.retention import archive, drop, plan
from tallygate.ports import LedgerBatch
from tallygate.ports.export import EventsArchived, ExportQuery
from tallygate.ports.lineage import BucketAsked, Grain, Whereabouts
from tallygate.ports.redeliver import RedeliverAsked
from tallygate.ports.retention import LegalHold, NotDropped
from tallygate.testing.catalog import FakeCatalogStore
from tallygate.wiring.exporting import ArchiveFiles, Format
from tests.flow.retention_parts import OLD_US, UNNAMED, YOUNG_US, Parts, parts
from tests.servers import connection, eventually
from tests.usage_events import event

__all__ = ["parts"]


async def test_whole_way(parts: Parts) -> None:
    """What is due is archived, then dropped; what is young stays; the archive has every event."""
    assert await parts.verdicts() == {"2024-01": Verdict.ARCHIVE, "2024-02": Verdict.ARCHIVE}
    assert await parts.dropped() == []
    january, february = await parts.archived()
    assert set((await parts.verdicts()).values()) == {Verdict.DROP}
    lines = Path(february).read_text().splitlines()  # noqa: ASYNC240  a few lines
    assert [json.loads(line)["event_id"] for line in lines] == ["event-2", "event-3", "event-4"]
    assert [(each.events, each.refused) for each in await parts.dropped()] == [(1, ""), (3, "")]
    assert await parts.verdicts() == {}
    assert await parts.dropped() == []
    assert await parts.archived() == []
    async with connection(parts.dsn) as admin:
        assert await admin.fetchval("select count(*) from tallygate.usage_event") == 1
        assert await admin.fetchval("select count(*) from tallygate.event_key") == 5
        assert await admin.fetchval("select to_regclass('tallygate.usage_event_202402')") is None
    assert january.endswith(".jsonl")


async def dropped(parts: Parts) -> None:
    """Archive and drop what is due."""
    await parts.archived()
    assert [each.refused for each in await parts.dropped()] == ["", ""]


async def test_verification_is_true_afterwards(parts: Parts) -> None:
    """Nothing differs after a drop, and what is planted then is found against the archive."""
    assert (await parts.verify()).clean
    await dropped(parts)
    report = await parts.verify()
    assert report.clean, report.differences
    assert report.compared["months archived"] == 2


@pytest.mark.parametrize(
    ("planted", "check", "what"),
    [
        ("update tallygate.usage_day set sum = sum + 1", Check.ROLLUP, "usage_day.sum"),
        ("delete from tallygate.usage_day", Check.ROLLUP, "usage_day.count"),
        ("update tallygate.usage_day set max = max + 1", Check.ROLLUP, "usage_day.max"),
        (UNNAMED, Check.LEDGER, "event_key"),
    ],
)
async def test_what_is_planted_is_found(
    parts: Parts, planted: str, check: Check, what: str
) -> None:
    """A unit more in a rollup of a dropped month, or a key that is gone, is a difference still."""
    await dropped(parts)
    await parts.execute(planted)
    found = (await parts.verify()).differences
    assert (check, what) in {(each.check, each.what) for each in found}
    assert any("archive" in each.detail for each in found)


async def test_a_duplicate_stays_one(parts: Parts) -> None:
    """An event whose month was dropped is known by its key, and is not counted again."""
    await dropped(parts)
    stored = await PostgresLedger(parts.postgres).persist(
        LedgerBatch((event(2, event_time_us=OLD_US, amount=7),))
    )
    assert (stored.events, stored.duplicates) == (0, 1)
    assert (await parts.verify()).clean


async def test_what_comes_later_is_counted(parts: Parts) -> None:
    """A new event of a dropped month is stored and added to its rollups, and all agrees."""
    await dropped(parts)
    await parts.persist(
        event(9, event_time_us=OLD_US, amount=1),
        event(10, event_time_us=OLD_US, amount=-1, refund_of=EventId("event-2")),
    )
    report = await parts.verify()
    assert report.clean, report.differences
    # It lies where months without a partition lie, and is not dropped with a partition.
    assert Verdict.DROP not in (await parts.verdicts()).values()


async def test_explanation_says_archived(parts: Parts) -> None:
    """The story of a dropped event says where it is, and one that never was is still unknown."""
    await dropped(parts)
    records = PostgresEventRecords(parts.postgres)
    telling = Explain(ExplainParts(records, FakeCatalogStore(), parts))
    (chapter,) = (await telling.story(EventId("event-2"))).chapters
    assert (chapter.ending, chapter.tenant_id) == (Ending.ARCHIVED, "acme")
    assert chapter.archived is not None
    assert "events-2024-02" in chapter.archived.month.file
    assert chapter.archived.event_time_us == OLD_US
    (young,) = (await telling.story(EventId("event-5"))).chapters
    assert young.ending is Ending.PERSISTED
    assert not (await telling.story(EventId("event-77"))).known


async def test_lineage_says_archived(parts: Parts) -> None:
    """A bucket keeps its totals and says where its events are, and so does a message."""
    await dropped(parts)
    reads = PostgresLineageReads(parts.postgres)
    asked = BucketAsked(TenantId("acme"), MeterName("requests"), Grain.DAY, OLD_US)
    found = await reads.bucket(asked)
    assert (found.count, found.sum, found.events) == (1, 5, [])
    assert found.archived is not None
    async with connection(parts.dsn) as admin:
        message = await admin.fetchval("select id::text from tallygate.outbox")
    told = await reads.message(message, 0, 10)
    assert told is not None
    assert {each.event_id: each.where for each in told.events} == {
        **{f"event-{number}": Whereabouts.ARCHIVE for number in range(1, 5)},
        "event-5": Whereabouts.LEDGER,
    }


async def test_an_export_names_the_archive(parts: Parts) -> None:
    """An export that would lack events of a dropped month is refused, and names its file."""
    await dropped(parts)
    source = PostgresExportSource(parts.postgres)
    with pytest.raises(EventsArchived, match=r"2024-01 in \S+, 2024-02 in \S+"):
        async with source.rows(ExportQuery()):
            pass
    async with source.rows(ExportQuery(from_us=YOUNG_US - DAY_US)) as rows:
        assert rows.total == 1


async def test_a_hold_keeps_its_months(parts: Parts) -> None:
    """A held tenant's months stay, with everybody's events in them, until the hold is over."""
    await parts.archived()
    hold = await parts.store.hold(LegalHold("h1", TenantId("other"), "case 7", "ada"))
    assert (await parts.verdicts())["2024-02"] is Verdict.HELD
    assert [each.facts.leaf for each in await parts.dropped()] == ["usage_event_202401"]
    assert await parts.store.release("h1", "settled", "eve")
    assert not await parts.store.release("h1", "again", "eve")
    assert [each.facts.leaf for each in await parts.dropped()] == ["usage_event_202402"]
    (ended,) = await parts.store.holds(TenantId("other"))
    assert (hold.released_at_us, ended.released_by, ended.release_reason) == (0, "eve", "settled")


async def test_holds_are_placed_once(parts: Parts) -> None:
    """The same hold again is the same one; another under its id, or an unknown one, is refused."""
    hold = LegalHold("h1", TenantId("acme"), "case 7", "ada")
    assert await parts.store.hold(hold) == await parts.store.hold(replace(hold, actor="eve"))
    with pytest.raises(OperationIdReused):
        await parts.store.hold(replace(hold, tenant_id=TenantId("other")))
    with pytest.raises(NotFound):
        await parts.store.release("h2", "why", "ada")
    assert await parts.store.holds(TenantId("other")) == []


async def test_a_hold_that_comes_meanwhile_counts(parts: Parts) -> None:
    """A hold that is placed after the plan was made keeps the month all the same."""
    await parts.archived()
    facts = {each.facts.leaf: each.facts for each in await plan(parts.parts)}
    await parts.store.hold(LegalHold("h1", TenantId("acme"), "case 7", "ada"))
    for leaf in ("usage_event_202401", "usage_event_202402"):
        with pytest.raises(NotDropped):
            await parts.store.drop(facts[leaf], 14, "ada")


async def test_a_hold_waits_for_a_drop(parts: Parts) -> None:
    """A hold that is being placed while months are dropped is either in time, or after it."""
    await parts.archived()
    facts = next(each.facts for each in await plan(parts.parts))
    async with connection(parts.dsn) as admin, admin.transaction():
        await admin.execute("insert into tallygate.legal_hold values ('h1', 'acme', 'case', 'ada')")
        dropping = asyncio.create_task(parts.store.drop(facts, 14, "ada"))
        await eventually(
            lambda: admin.fetchval(
                "select count(*) from pg_stat_activity"
                " where datname = current_database() and wait_event_type = 'Lock'"
            ),
            what="a drop that waits for the hold",
        )
    with pytest.raises(NotDropped):
        await dropping


async def test_what_came_since_is_archived_again(parts: Parts) -> None:
    """A month that got an event after its archive is not dropped by that one, and archived anew."""
    await parts.archived()
    facts = {each.facts.leaf: each.facts for each in await plan(parts.parts)}
    await parts.persist(event(9, event_time_us=OLD_US))
    with pytest.raises(NotDropped):
        await parts.store.drop(facts["usage_event_202402"], 14, "ada")
    assert (await parts.verdicts())["2024-02"] is Verdict.CHANGED
    assert len(await parts.archived()) == 1
    assert [each.events for each in await parts.dropped()] == [1, 4]
    assert (await parts.verify()).clean


async def test_a_spoilt_or_lost_file_keeps_its_month(parts: Parts) -> None:
    """A month whose file is not the one that was written stays, and the others go."""
    january, february = map(Path, await parts.archived())
    february.write_bytes(february.read_bytes() + b"\n")
    one, two = await parts.dropped()
    assert (one.refused, two.refused) == (
        "",
        "its archive's file is not the one that was written",
    )
    february.unlink()
    (gone,) = await parts.dropped()
    assert "No such file" in gone.refused
    trusted = await drop(parts.parts, None, lambda _done, _total: None)
    assert [each.events for each in trusted] == [3]
    assert january.exists()


async def test_young_months_stay_whatever_is_asked(parts: Parts) -> None:
    """Neither a policy of fewer months nor a younger month passes the function that drops."""
    parts.policy = Policy()
    assert await parts.verdicts() == {}
    assert await parts.archived() == []
    parts.policy = Policy(event_months=14)
    await parts.archived()
    facts = next(each.facts for each in await plan(parts.parts))
    for months in (13, 0, -1, 1_000):
        with pytest.raises(NotDropped):
            await parts.store.drop(facts, months, "ada")
    with pytest.raises(NotDropped):
        await parts.store.drop(replace(facts, month_us=facts.month_us + DAY_US), 14, "ada")
    with pytest.raises(NotDropped):
        await parts.store.drop(replace(facts, archive_id="none"), 14, "ada")


@pytest.mark.parametrize(
    ("table", "held", "done"),
    [
        ("billing_period (due_at, created_at, state", "grace", "closed"),
        ("invoice_due (next_at, revision, held", "failed", ""),
    ],
)
async def test_what_is_to_be_billed_keeps_its_month(
    parts: Parts, table: str, held: str, done: str
) -> None:
    """A month stays of which a period is not closed or an invoice held, also if only by now."""
    await parts.archived()
    facts = next(each.facts for each in await plan(parts.parts))
    second = "now()" if "created_at" in table else "1"
    await parts.execute(
        f"insert into tallygate.{table}, tenant_id, start_at, end_at)"
        f" values (now(), {second}, '{held}', 'acme', '2024-01-15', '2024-02-01'),"
        f" (now(), {second}, '{done}', 'acme', '2024-02-01', '2024-03-01')"
    )
    assert (await parts.verdicts())["2024-01"] is Verdict.OPEN
    assert (await parts.verdicts())["2024-02"] is Verdict.DROP
    with pytest.raises(NotDropped):
        await parts.store.drop(facts, 14, "ada")


async def test_months_without_a_partition_stay(parts: Parts) -> None:
    """Events that lie in the partition of all other months are nobody's to drop as a whole."""
    ancient_us = from_datetime(datetime(2020, 5, 5, tzinfo=UTC))
    await parts.persist(event(9, event_time_us=ancient_us))
    assert (await parts.verdicts())["2020-05"] is Verdict.MIXED
    assert len(await parts.archived()) == 2


async def test_ingest_goes_on_while_a_month_is_dropped(parts: Parts) -> None:
    """Ingesters that store young and old events meanwhile lose none, and all agrees."""
    await parts.archived()
    stop = asyncio.Event()

    async def ingest(number: int) -> int:
        ledger, stored = PostgresLedger(parts.postgres), 0
        while not stop.is_set():
            at_us = (YOUNG_US, OLD_US)[stored % 2] if number == 2 else YOUNG_US
            fresh = event(10_000 * number + stored, event_time_us=at_us)
            stored += (await ledger.persist(LedgerBatch((fresh,)))).events
        return stored

    ingesters = [asyncio.create_task(ingest(number)) for number in (1, 2)]
    try:
        january = await parts.dropped()
        again = await parts.archived()
        await parts.dropped()
    finally:
        stop.set()
        stored = sum(await asyncio.gather(*ingesters))
    assert january
    assert len(again) <= 1
    await parts.execute("update tallygate.source_progress set seen = '{[1,100000)}'")
    report = await parts.verify()
    assert report.clean, report.differences
    async with connection(parts.dsn) as admin:
        assert await admin.fetchval("select count(*) from tallygate.event_key") == 5 + stored


async def test_pruning_keeps_what_is_held(parts: Parts) -> None:
    """Messages that tell of a held tenant stay when others go."""
    await parts.persist(event(20, tenant_id=TenantId("free"), event_time_us=YOUNG_US))
    outbox = PostgresOutbox(parts.postgres)
    while claims := await outbox.claim("hook", 100, 60_000):
        await outbox.delivered(claims)
    await parts.execute("update tallygate.outbox set created_at = now() - interval '50 days'")
    await parts.store.hold(LegalHold("h1", TenantId("acme"), "case 7", "ada"))
    upkeep = PostgresOutboxUpkeep(parts.postgres)
    assert await upkeep.prune(40) == 1
    assert await upkeep.prune(40) == 0
    await parts.store.release("h1", "settled", "ada")
    assert await upkeep.prune(40) == 1


async def test_parquet_archives_are_as_good(parts: Parts) -> None:
    """Months may be archived as Parquet as well."""
    files = ArchiveFiles(parts.folder, Format.PARQUET)
    made = await archive(parts.parts, files, lambda _done, _total: None)
    assert [each.file.path.rpartition(".")[2] for each in made] == ["parquet", "parquet"]
    assert [each.refused for each in await parts.dropped()] == ["", ""]


async def test_the_operators_role_can_do_its_work(parts: Parts) -> None:
    """Who may only operate archives, drops, holds, prunes and replays, and deletes no event."""
    await apply_roles(parts.dsn)
    postgres = Postgres(f"{parts.dsn}&options=-c%20role%3Dtallygate_operator")
    own = replace(parts, postgres=postgres)
    await own.store.hold(LegalHold("h1", TenantId("other"), "case 7", "ada"))
    await own.store.release("h1", "settled", "ada")
    await dropped(own)
    await parts.execute("update tallygate.usage_day set sum = sum + 1")
    asked = RecomputeAsked(YOUNG_US, YOUNG_US + 1, apply=True)
    done = await recompute([PostgresRollupRecompute(postgres)], asked, lambda _done, _total: None)
    assert done.mended == 1
    messages = RedeliverAsked("r1", "hook", 0, own.now_us() + DAY_US)
    await redeliver(
        PostgresMessageReplay(postgres), messages, apply=True, progress=lambda _done, _total: None
    )
    await PostgresOutboxUpkeep(postgres).prune(1)
    assert await PostgresTrailLog(postgres).append([TrailEntry("ada", "command", "x")]) == 1
    async with connection(parts.dsn) as admin:
        for table in ("usage_event", "event_key", "audit_log", "legal_hold", "month_dropped"):
            for right in ("update", "delete", "truncate"):
                assert not await admin.fetchval(
                    "select has_table_privilege('tallygate_operator', $1, $2)",
                    f"tallygate.{table}",
                    right,
                )
    await postgres.close()


@pytest.mark.parametrize(
    "table",
    [
        *("legal_hold", "legal_hold_release", "month_archive", "month_archive_usage"),
        *("month_dropped", "message_replay"),
    ],
)
async def test_records_are_append_only(parts: Parts, table: str) -> None:
    """What was held, archived, dropped or sent again is on record as it was."""
    for statement in (f"delete from tallygate.{table}", f"truncate tallygate.{table} cascade"):
        await parts.store.hold(LegalHold("h1", TenantId("other"), "case 7", "ada"))
        await parts.store.release("h1", "settled", "ada")
        if table.startswith("month") and "delete" in statement:
            await dropped(parts)
        await parts.execute(
            "insert into tallygate.message_replay select 'r', 'hook', id, '' from tallygate.outbox"
            " on conflict do nothing"
        )
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await parts.execute(statement)
