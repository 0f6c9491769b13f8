"""Closing takes the rights of `control`, noting what is late those of `ingest`, and no more."""

import asyncpg
import pytest

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.ids import MeterName
from tallygate.domain.period import GRACE_US
from tallygate.domain.window import DAY_US, SECOND_US
from tallygate.ports import LedgerBatch
from tests.periods.world import (
    DECEMBER,
    EXACT,
    MID_OCTOBER,
    NOVEMBER,
    OCTOBER,
    REQUESTS,
    PeriodWorld,
    period_world,
    tenant,
)
from tests.servers import connection
from tests.sql.test_append_only import as_role

ODD = MeterName("odd")
FROZEN = (
    *("period_total", "period_adjustment", "period_revision", "late_event", "period_action"),
    *("period_rule", "period_review"),
)
ROLES = ("tallygate_ingest", "tallygate_relay", "tallygate_control", "tallygate_read")


async def test_each_role_can_do_its_work(postgres_dsn: str, world: PeriodWorld) -> None:
    """An ingester stores late events, and a control closes, corrects and reopens."""
    await apply_roles(postgres_dsn)
    world.meters[ODD] = Meter(ODD, Aggregation.TIME_WEIGHTED)
    await world.declare([tenant()])
    storing = Postgres(as_role(postgres_dsn, "tallygate_ingest"))
    ledger = PostgresLedger(storing)
    async with period_world(as_role(postgres_dsn, "tallygate_control")) as control:
        control.meters[ODD] = world.meters[ODD]
        first = (world.event(MID_OCTOBER, 5), world.event(NOVEMBER - SECOND_US, 5, ODD))
        await ledger.persist(LedgerBatch(first))
        await control.run(NOVEMBER)
        assert (await control.run(NOVEMBER + GRACE_US)).closed == 1
        late = (
            world.event(MID_OCTOBER, 2),
            world.event(MID_OCTOBER, 3, EXACT),
            world.event(NOVEMBER - 2 * SECOND_US, 1, ODD),
        )
        stored = await ledger.persist(LedgerBatch(late))
        assert stored.late == {"correct": 1, "next_period": 2}
        assert (await control.run(NOVEMBER + GRACE_US)).closed == 1
        await control.desk.reopen(control.asked(OCTOBER), NOVEMBER + GRACE_US)
        assert (await control.run(DECEMBER + GRACE_US)).closed == 2
        level = 5 * 30 * DAY_US // SECOND_US
        assert await control.bill(NOVEMBER) == {REQUESTS: 2, ODD: level + 1}
        assert await control.bill(OCTOBER, 3) == {REQUESTS: 5, EXACT: 3, ODD: 5}
    await storing.close()


async def test_nobody_edits_what_was_frozen(world: PeriodWorld) -> None:
    """Totals, revisions, late events and the audit are refused every edit, a superuser's too."""
    await apply_roles(world.dsn)
    world.meters[ODD] = Meter(ODD, Aggregation.LATEST)
    await world.closed_october(world.event(MID_OCTOBER, 5), world.event(MID_OCTOBER, 5, EXACT))
    await world.store(world.event(MID_OCTOBER, 2), world.event(MID_OCTOBER, 2, ODD))
    await world.desk.reopen(world.asked(OCTOBER), DECEMBER)
    await world.run(DECEMBER + GRACE_US)
    async with connection(world.dsn) as admin:
        for table in FROZEN:
            assert await admin.fetchval(f"select count(*) from tallygate.{table}"), table
            for statement in (
                f"update tallygate.{table} set tenant_id = 'x'",
                f"delete from tallygate.{table}",
                f"truncate tallygate.{table}",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                    await admin.execute(statement)
            for role in ROLES:
                for right in ("update", "delete", "truncate"):
                    assert not await admin.fetchval(
                        "select has_table_privilege($1, $2, $3)", role, f"tallygate.{table}", right
                    )
