"""Billing periods as they stand, and what operators do to them.

Guarantees: what is done by hand is written to the audit in the transaction that does it.
Refuses to know: when periods are closed.
"""

import json
from collections.abc import Sequence
from decimal import Decimal

import asyncpg

from tallygate.adapters.postgres import period_messages
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.catalog import Aggregation
from tallygate.domain.errors import NotFound
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.period import (
    Act,
    Cause,
    Figures,
    Group,
    Held,
    MeterTotal,
    PeriodKey,
    PeriodNotSo,
    PeriodState,
    Placed,
    after,
)
from tallygate.ports.period import (
    Adjustment,
    BillingPeriod,
    FrozenTotal,
    LateCount,
    PeriodAction,
    PeriodAsked,
    PeriodQuery,
    Revision,
)


class PostgresPeriodReader:
    """The `PeriodReader` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def periods(self, query_: PeriodQuery) -> list[BillingPeriod]:
        """Return periods by tenant and start, at most `query.limit`."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("period_list"),
                query_.tenant_id,
                [state.value for state in query_.states],
                query_.held,
                query_.from_us,
                query_.to_us,
                *(query_.after or (None, None)),
                query_.limit,
            )
        return [period_of(row) for row in rows]

    async def period(self, tenant_id: TenantId, start_us: int) -> BillingPeriod | None:
        """Return the period of a tenant that starts then, None when there is none."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(query("period_find"), tenant_id, start_us)
        return period_of(row) if row is not None else None

    async def newest(self, tenant_id: TenantId) -> BillingPeriod | None:
        """Return the newest period that was sealed, else the newest, None where there is none."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(query("period_find"), tenant_id, None)
        return period_of(row) if row is not None else None

    async def totals(
        self, tenant_id: TenantId, start_us: int, revision: int
    ) -> Sequence[FrozenTotal]:
        """Return the totals of one revision by meter and group, without adjustments."""
        return [
            FrozenTotal(each.meter, each.group, each.quantity, each.figures.count)
            for each in await self.frozen(tenant_id, start_us, revision)
        ]

    async def frozen(
        self, tenant_id: TenantId, start_us: int, revision: int
    ) -> Sequence[MeterTotal]:
        """Return the totals of one revision as they were frozen, by meter and group."""
        async with self._postgres.connection() as connection:
            return await frozen(connection, PeriodKey(tenant_id, start_us), revision)

    async def adjustments(
        self, tenant_id: TenantId, start_us: int, revision: int
    ) -> Sequence[Adjustment]:
        """Return what the revision bills, beside its totals, of periods that were closed before."""
        async with self._postgres.connection() as connection:
            return await adjustments(connection, PeriodKey(tenant_id, start_us), revision)

    async def revisions(self, tenant_id: TenantId, start_us: int) -> Sequence[Revision]:
        """Return the closings of a period that are complete, the first one first."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("period_revisions"), tenant_id, start_us)
        return [
            Revision(
                number=row["revision"],
                cause=Cause(row["cause"]),
                closed_us=row["closed_us"],
                events=row["events"],
                digest=row["digest"].hex(),
            )
            for row in rows
        ]


class PostgresPeriodDesk:
    """The `PeriodDesk` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def ask_close(self, asked: PeriodAsked, *, accept_missing: bool) -> BillingPeriod:
        """Have a period that has ended be due now; return it. See the port."""
        key = asked.key
        async with self._postgres.connection() as connection, connection.transaction():
            done = await connection.fetchval(
                query("period_ask_close"), key.tenant_id, key.start_us, asked.now_us, accept_missing
            )
            found = await _period(connection, key)
            if not done:
                raise PeriodNotSo(f"a period that is {found.state} cannot be closed", field="start")
            await _act(connection, asked, found, "close")
        return found

    async def reopen(self, asked: PeriodAsked, due_us: int) -> BillingPeriod:
        """Open a closed period again until then; return it. See the port."""
        key = asked.key
        async with self._postgres.connection() as connection, connection.transaction():
            row = await connection.fetchrow(
                query("period_reopen"), key.tenant_id, key.start_us, due_us
            )
            if row is None:
                after((await _period(connection, key)).state, Act.REOPEN)
                # What it was a moment ago is what counts.
                raise PeriodNotSo(field="start")
            found = period_of(row)
            await _act(connection, asked, found, "reopen")
            await period_messages.tell_reopened(
                connection, found, asked.actor, asked.reason, asked.now_us
            )
        return found

    async def late(self, key: PeriodKey) -> Sequence[LateCount]:
        """Return what came late for a period."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("period_late"), key.tenant_id, key.start_us)
        return [
            LateCount(
                Placed(row["placed"]),
                row["allocated_start_us"],
                row["allocated_revision"],
                row["events"],
            )
            for row in rows
        ]

    async def actions(self, key: PeriodKey) -> Sequence[PeriodAction]:
        """Return what was done to a period by hand, the first one first."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("period_actions"), key.tenant_id, key.start_us)
        return [
            PeriodAction(row["action"], row["actor"], row["reason"], row["done_us"]) for row in rows
        ]


async def frozen(connection: Lent, key: PeriodKey, revision: int) -> list[MeterTotal]:
    """Return the totals of one revision, by meter and group."""
    rows = await connection.fetch(query("period_totals"), key.tenant_id, key.start_us, revision)
    return [
        MeterTotal(
            MeterName(row["meter"]),
            Aggregation(row["aggregation"]),
            Figures(row["count"], int(row["sum"]), row["max"], row["min"]),
            group_of(row["grouped"]),
            None
            if row["quantity"] is None
            else quantity_of(Aggregation(row["aggregation"]), row["quantity"]),
            row["carried"],
        )
        for row in rows
    ]


async def adjustments(connection: Lent, key: PeriodKey, revision: int) -> list[Adjustment]:
    """Return what a revision bills of periods that were closed before."""
    rows = await connection.fetch(
        query("period_adjustments"), key.tenant_id, key.start_us, revision
    )
    return [
        Adjustment(
            MeterName(row["meter"]),
            group_of(row["grouped"]),
            quantity_of(Aggregation(row["aggregation"]), row["quantity"]),
            row["count"],
            row["closed_start_us"],
        )
        for row in rows
    ]


def period_of(row: asyncpg.Record) -> BillingPeriod:
    """Return the period that a row holds."""
    return BillingPeriod(
        tenant_id=TenantId(row["tenant_id"]),
        start_us=row["start_us"],
        end_us=row["end_us"],
        state=PeriodState(row["state"]),
        revision=row["revision"],
        due_us=row["due_us"] or 0,
        held=Held(row["held"]) if row["held"] else None,
        held_since_us=row["held_us"] or 0,
    )


def group_of(text: str) -> Group:
    """Return the group that a row names."""
    return tuple((str(key), str(value)) for key, value in json.loads(text)) if text else ()


def quantity_of(aggregation: Aggregation, quantity: Decimal) -> int | Decimal:
    """Return a quantity as its aggregation has it: of levels with a fraction, else whole."""
    return quantity if aggregation is Aggregation.TIME_WEIGHTED else int(quantity)


async def _period(connection: Lent, key: PeriodKey) -> BillingPeriod:
    row = await connection.fetchrow(query("period_find"), key.tenant_id, key.start_us)
    if row is None:
        raise NotFound(f"{key.tenant_id!r} has no period that starts then", field="start")
    return period_of(row)


async def _act(connection: Lent, asked: PeriodAsked, period: BillingPeriod, action: str) -> None:
    await connection.execute(
        query("period_act"),
        period.tenant_id,
        period.start_us,
        period.revision,
        action,
        asked.actor,
        asked.reason,
        asked.now_us,
    )
