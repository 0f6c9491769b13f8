"""One unit that is off in the rollups of groups is found, and named where it is off."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random

import pytest

from tallygate.adapters.postgres.audit import PostgresLedgerAudit
from tallygate.adapters.postgres.group_audit import PostgresGroupAudit
from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.drift import Check
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.rollup import shape_of
from tallygate.domain.window import HOUR_US, Window
from tallygate.flow.verify import Report, Verify, VerifyParts
from tests.property.test_group_rollups import METERS, declared, events_of, rebuilt, stored
from tests.servers import connection


@dataclass(frozen=True, slots=True)
class Books:
    """A ledger with usage of meters of every shape."""

    dsn: str
    postgres: Postgres

    async def report(self, tenant: str = "") -> Report:
        """Return what verification says."""
        audit = PostgresLedgerAudit(self.postgres)
        parts = VerifyParts(audit, PostgresGroupAudit(self.postgres))
        return await Verify(parts).run(TenantId(tenant) if tenant else None)

    async def plant(self, table: str, change: str, where: str) -> None:
        """Change one row, or delete it."""
        chosen = f"ctid = (select ctid from tallygate.{table} where {where} limit 1)"
        verb = f"update tallygate.{table} set {change}"
        if not change:
            verb = f"delete from tallygate.{table}"
        async with connection(self.dsn) as admin:
            assert await admin.execute(f"{verb} where {chosen}") in ("UPDATE 1", "DELETE 1")


@pytest.fixture
async def books(postgres_dsn: str) -> AsyncIterator[Books]:
    """A ledger of which every figure is right, written as ingest writes it."""
    postgres = Postgres(postgres_dsn)
    await declared(postgres, METERS)
    chance = Random(1)
    await stored(postgres, chance, events_of(chance, 150))
    async with connection(postgres_dsn) as admin:
        # As if all numbers had arrived: they are not what this is about.
        await admin.execute(
            "insert into tallygate.source_progress values ('source-1', 0, '{[0,1000)}')"
        )
    yield Books(postgres_dsn, postgres)
    await postgres.close()


async def test_true_rollups_have_no_difference(books: Books) -> None:
    """Of every aggregation, grouped or not, with refunds and late events; all tenants, or one."""
    for tenant in ("", "acme"):
        report = await books.report(tenant)
        assert (report.differences, report.unverified) == ([], [])


LEVELS = ("minute", "hour", "day")
PLANTED = [
    *(
        ("group_usage", f"{name} = {name} + 1", f"level = {level} and count > 0", name)
        for level in range(3)
        for name in ("count", "sum", "max", "min")
    ),
    *(
        ("group_usage", "last = last + 1", f"level = {level} and last_id <> ''", "last")
        for level in range(3)
    ),
    ("group_usage", "last_id = 'event-x'", "first_at is null and last_id <> ''", "last_id"),
    *(
        ("group_usage", "area = area + 1", f"level = {level} and first_at is not null", "area")
        for level in range(3)
    ),
    *(
        ("group_usage", f"{at} = {at} + interval '1 microsecond'", "first_at is not null", at)
        for at in ("first_at", "last_at")
    ),
    ("group_usage", "", "level = 1", "count"),
    *(
        ("group_part", "units = units + 1", f"level = {level} and key <> ''", "units of ")
        for level in range(3)
    ),
    ("group_part", "key = key || 'x'", "true", "units of "),
    ("group_part", "", "true", "units of "),
    ("group_level", "amount = amount + 1", "arrived", "level of "),
    ("group_level", "arrived = false", "arrived", "level of "),
    ("group_level", "", "arrived", "level of "),
]


@pytest.mark.parametrize(
    ("table", "change", "where", "name"), PLANTED, ids=[f"{p[0]}:{p[1]}:{p[2]}" for p in PLANTED]
)
async def test_a_unit_that_is_off_is_found(
    books: Books, table: str, change: str, where: str, name: str
) -> None:
    """In any figure of any bucket, and by the name of its table, meter, time and group."""
    await books.plant(table, change, where)
    report = await books.report()
    assert not report.clean
    assert {each.check for each in report.differences} == {Check.ROLLUP}
    named = [each for each in report.differences if each.what.startswith(f"{table}.{name}")]
    assert named, report.differences
    meters = {meter.name for meter in METERS}
    assert {each.where.split()[0] for each in report.differences} <= meters
    assert {each.detail for each in named} <= {f"by {level}" for level in LEVELS}


async def test_rollups_that_are_made_anew_are_not_verified(books: Books) -> None:
    """It is said which lack events; they never pass for verified."""
    meter = METERS[-1].name
    rollups = PostgresRollups(books.postgres)
    await rollups.switch(meter, None)
    await rollups.switch(meter, shape_of(METERS[-1]))
    report = await books.report()
    assert not report.clean
    assert [meter in told for told in report.unverified] == [True]
    await rebuilt(rollups, meter, Window(0, HOUR_US), None)
    report = await books.report()
    assert report.unverified == []
    assert {each.where.split()[0] for each in report.differences} == {MeterName(meter)}
