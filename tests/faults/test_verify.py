"""One unit that is off anywhere behind the ledger is found, and named where it is off."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import pytest

from tallygate.adapters.catalog_codec import catalog_to_json
from tallygate.adapters.postgres.audit import PostgresLedgerAudit
from tallygate.adapters.postgres.group_audit import PostgresGroupAudit
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.catalog import Catalog, Destination
from tallygate.domain.drift import Check
from tallygate.domain.ids import EventId, TenantId
from tallygate.domain.window import DAY_US, HOUR_US
from tallygate.flow.verify import Report, Verify, VerifyParts
from tallygate.ports import LedgerBatch
from tests.servers import connection
from tests.usage_events import NOON_US, crossing, event, span

HOOK: Final = "hook"
TYPES: Final = ("usage.batch", "limit.threshold_crossed")
MONTH_US: Final = 31 * DAY_US
COUNT: Final = 40


@dataclass(frozen=True, slots=True)
class Books:
    """A ledger with usage over hours, days and two months, some of it refunded and delivered."""

    dsn: str
    postgres: Postgres

    async def report(self, tenant: str = "") -> Report:
        """Return what verification says."""
        parts = VerifyParts(PostgresLedgerAudit(self.postgres), PostgresGroupAudit(self.postgres))
        return await Verify(parts).run(TenantId(tenant) if tenant else None)

    async def plant(self, *statements: str) -> None:
        """Change rows as a superuser can who sets the ledger's own guards aside."""
        async with connection(self.dsn) as admin, admin.transaction():
            await admin.execute("set local session_replication_role = replica")
            for statement in statements:
                assert await admin.execute(statement) not in ("UPDATE 0", "DELETE 0"), statement


@pytest.fixture
async def books(postgres_dsn: str) -> AsyncIterator[Books]:
    """A ledger of which every figure is right, written as ingest writes it."""
    postgres = Postgres(postgres_dsn)
    catalog = Catalog(
        version=1, destinations=(Destination(HOOK, "webhook", "http://127.0.0.1:9", TYPES),)
    )
    async with connection(postgres_dsn) as admin:
        await admin.execute(
            "insert into tallygate.destination (name, kind, url, types) values ($1, $2, $3, $4)",
            *(HOOK, "webhook", "http://127.0.0.1:9", list(TYPES)),
        )
        # Long before its first message, as if it had stood there for years.
        await admin.execute(
            "insert into tallygate.catalog_version"
            " (version, document, snapshot, effective_at, created_at)"
            " values (1, '', $1, '2020-01-01', '2020-01-01')",
            catalog_to_json(catalog).decode(),
        )
    ledger = PostgresLedger(postgres)
    for batch in batches():
        await ledger.persist(batch)
    outbox = PostgresOutbox(postgres)
    await outbox.delivered(await outbox.claim(HOOK, 2, 60_000))
    yield Books(postgres_dsn, postgres)
    await postgres.close()


def batches() -> Sequence[LedgerBatch]:
    """Return usage of two tenants in four batches; every tenth event is partly refunded."""
    events = [
        event(
            number,
            tenant_id=TenantId(f"tenant-{number % 2}"),
            amount=number,
            event_time_us=NOON_US - number * HOUR_US - (MONTH_US if number % 5 == 0 else 0),
        )
        for number in range(1, COUNT + 1)
    ]
    events += [
        event(
            COUNT + number,
            tenant_id=events[number * 10 - 1].tenant_id,
            amount=-1,
            event_time_us=events[number * 10 - 1].event_time_us,
            refund_of=EventId(f"event-{number * 10}"),
        )
        for number in range(1, 5)
    ]
    found = [
        LedgerBatch(tuple(events[at : at + 11]), ranges=(span(at + 1, at + 11),))
        for at in range(0, len(events), 11)
    ]
    return [*found, LedgerBatch((), crossings=(crossing(), crossing(900_000)))]


async def test_true_books_have_no_difference(books: Books) -> None:
    """Refunds, two months, two tenants, messages delivered and not: everything agrees."""
    report = await books.report()
    assert (report.differences, report.unverified) == ([], [])
    assert report.clean
    assert (report.compared["events"], report.compared["partitions"]) == (COUNT + 4, 2)
    (total,) = report.destinations
    assert (total.destination, total.events) == (HOOK, COUNT + 4)
    assert 0 < total.delivered < total.told == total.ledger == COUNT * (COUNT + 1) // 2 - 4


@pytest.mark.parametrize("rollup", ["minute", "hour", "day"])
@pytest.mark.parametrize("figure", ["sum", "count", "max", "min"])
async def test_a_unit_in_a_rollup_is_found(books: Books, rollup: str, figure: str) -> None:
    """Each figure of each rollup is compared, and it is the rollup that is named."""
    await books.plant(
        f"update tallygate.usage_{rollup} set {figure} = {figure} + 1"
        f" where (tenant_id, meter, bucket) = (select tenant_id, meter, bucket"
        f" from tallygate.usage_{rollup} where count > 0 order by tenant_id, bucket limit 1)"
    )
    report = await books.report()
    (found,) = report.differences
    assert (found.check, found.what) == (Check.ROLLUP, f"usage_{rollup}.{figure}")
    assert (found.tenant_id, found.found - found.expected) == ("tenant-0", 1)
    assert not report.clean
    assert (await books.report("tenant-1")).clean


async def test_a_bucket_that_is_gone_is_found(books: Books) -> None:
    """A rollup's row that was deleted, or that no event speaks for, is a difference."""
    one = "(select ctid from tallygate.usage_day where tenant_id = 'tenant-1' limit 1)"
    await books.plant(
        f"delete from tallygate.usage_day where ctid = {one}",
        "insert into tallygate.usage_day values ('tenant-0', 'requests', '2001-01-01', 1, 1, 1, 1)",
    )
    found = {(each.tenant_id, each.what) for each in (await books.report()).differences}
    assert found == {("tenant-0", "usage_day.sum"), ("tenant-1", "usage_day.sum")}


async def test_a_unit_in_a_partition_is_found(books: Books) -> None:
    """Where all that was made of an event agrees against it, its partition is named."""
    await books.plant("update tallygate.usage_event set amount = 8 where event_id = 'event-7'")
    report = await books.report()
    found = {each.check: each for each in report.differences}
    ledger = found[Check.LEDGER]
    assert ledger.what.startswith("usage_event_")
    assert (ledger.tenant_id, ledger.expected, ledger.found) == ("tenant-1", 7, 8)
    assert "agree" in ledger.detail
    told = next(each for each in report.differences if each.where == "event-7")
    assert (told.check, told.expected, told.found) == (Check.DELIVERY, 8, 7)


@pytest.mark.parametrize(
    ("statement", "what", "where"),
    [
        ("delete from tallygate.usage_event where event_id = 'event-7'", "usage_event", "event-7"),
        ("delete from tallygate.event_key where event_id = 'event-8'", "event_key", "event-8"),
        (
            (
                "insert into tallygate.usage_event"
                " select * from tallygate.usage_event where event_id = 'event-9'"
            ),
            "usage_event",
            "event-9",
        ),
        (
            (
                "update tallygate.event_key set event_time = event_time + interval '1 month'"
                " where event_id = 'event-10'"
            ),
            "event_key",
            "event-10",
        ),
        (
            "update tallygate.source_progress set seen = seen - int8multirange(int8range(11, 12))",
            "source_progress",
            "source-1/0/11",
        ),
    ],
    ids=["no event", "no key", "twice", "other time", "no number"],
)
async def test_events_and_keys_go_in_pairs(
    books: Books, statement: str, what: str, where: str
) -> None:
    """An event without key, a key without event, one twice, one elsewhere: each is named."""
    await books.plant(statement)
    report = await books.report()
    named = {(each.what, each.where) for each in report.differences if each.check is Check.LEDGER}
    assert (what, where) in named


MESSAGE = "select id from tallygate.outbox where type = 'usage.batch' order by seq limit 1"
PAYLOAD = (
    "update tallygate.outbox set payload = convert_to("
    "regexp_replace(convert_from(payload, 'UTF8'), {}), 'UTF8')"
    " where convert_from(payload, 'UTF8') like '%\"event-7\"%'"
)


@pytest.mark.parametrize(
    ("statement", "what", "detail"),
    [
        (
            PAYLOAD.format("""'"event-7"(.*?)"amount":7', '"event-7"\\1"amount":8'"""),
            "message ",
            "another amount",
        ),
        (PAYLOAD.format("""'"event-7"', '"event-x"'"""), "message ", "no such event"),
        (PAYLOAD.format("""'"event-7"', '"event-x"'"""), "usage.batch", "no message tells"),
        (PAYLOAD.format("""'"event-7"', '"event-9"'"""), "message ", "more than one message"),
        (f"delete from tallygate.delivery where message_id = ({MESSAGE})", HOOK, "no delivery"),
        (
            (
                "update tallygate.delivery set state = 'delivered', finished_at = now()"
                ", attempt = 0 where state = 'pending'"
            ),
            HOOK,
            "cannot be",
        ),
        (
            "delete from tallygate.threshold_crossing where ratio_ppm = 800000",
            "limit.threshold_crossed",
            "messages that tell of it",
        ),
        (
            (
                "insert into tallygate.threshold_crossing select tenant_id, limit_id, window_start,"
                " 950000, meter, threshold, used, limit_units, window_end, crossed_at, scope"
                " from tallygate.threshold_crossing limit 1"
            ),
            "limit.threshold_crossed",
            "messages that tell of it",
        ),
    ],
    ids=[
        *("amount", "unknown", "untold", "twice", "no delivery", "never sent"),
        *("crossing gone", "crossing untold"),
    ],
)
async def test_a_unit_in_a_delivery_is_found(
    books: Books, statement: str, what: str, detail: str
) -> None:
    """What a destination is told otherwise, twice, or not at all is named."""
    await books.plant(statement)
    report = await books.report()
    assert not report.clean
    assert any(
        each.check is Check.DELIVERY and each.what.startswith(what) and detail in each.detail
        for each in report.differences
    ), report.differences


async def test_a_destinations_total_is_compared(books: Books) -> None:
    """The sum that a destination was told is one unit off, as its one message is."""
    await books.plant(
        "update tallygate.outbox set payload = convert_to(regexp_replace("
        "convert_from(payload, 'UTF8'), '\"amount\":7,', '\"amount\":6,'), 'UTF8')"
        " where type = 'usage.batch' and convert_from(payload, 'UTF8') like '%\"amount\":7,%'"
    )
    total = next(each for each in (await books.report()).differences if each.what == HOOK)
    assert (total.check, total.expected - total.found) == (Check.DELIVERY, 1)


async def test_an_account_is_the_sum_of_its_postings(books: Books) -> None:
    """A balance's account that was written by hand is found."""
    await books.plant(
        "insert into tallygate.credit_account (tenant_id, limit_id, account, balance)"
        " values ('tenant-0', 'credits', 'grant:1', 1)"
    )
    (found,) = (await books.report()).differences
    assert (found.check, found.where, found.expected, found.found) == (
        Check.BALANCE,
        "credits grant:1",
        0,
        1,
    )
