"""What Postgres has of usage in periods, and the results of reconciling it.

Guarantees: events and rollups are read in one snapshot, so of one instant; a part of a run is
stored with its drifts and their messages in one transaction, by one process.
Refuses to know: what figures come to.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Final

import asyncpg

from tallygate.adapters.postgres import messages
from tallygate.adapters.postgres.messages import USAGE_BATCH, Message
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.adapters.postgres.wanted import wanted
from tallygate.domain.drift import Figures, spelled
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.reconcile import Absent, Drift, Pair, Reading, Reconciled, Repair, Verdict
from tallygate.domain.window import Window
from tallygate.ports.reconcile import PeriodAsked, PeriodUsage, RunPart, RunState, ToldUsage

RECONCILE_DRIFT: Final = "reconcile.drift"
# Some tenants' events of two months, or all messages for a command: minutes on a large ledger.
PATIENCE_S: Final = 3_600


class PostgresReconcileReads:
    """The `ReconcileReads` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def tenants(self, after: str, count: int) -> list[TenantId]:
        """Return up to `count` tenants that have used anything, by id, those after `after`."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("recount_tenants"), after, count)
        return [TenantId(row["tenant_id"]) for row in rows]

    async def usage(self, asked: Sequence[PeriodAsked]) -> Sequence[PeriodUsage]:
        """Return the usage of each period, by meter; none where there was none."""
        async with self._patient() as connection:
            rows = await connection.fetch(
                query("reconcile_usage"), *_asks(asked), timeout=PATIENCE_S
            )
            coarser = await connection.fetch(
                query("reconcile_coarser"), *_asks(asked), timeout=PATIENCE_S
            )
            keyless = await _keyless(connection, asked, rows)
        others: dict[tuple[int, str], dict[str, Figures]] = {}
        for row in coarser:
            figures = Figures(row["count"], int(row["sum"]), row["max"], row["min"])
            others.setdefault((row["number"], row["meter"]), {})[row["kind"]] = figures
        found: list[PeriodUsage] = []
        for row in rows:
            rollup = _figures(row, "rollup")
            beside = others.get((row["number"], row["meter"]), {})
            found.append(
                PeriodUsage(
                    row["number"],
                    MeterName(row["meter"]),
                    _figures(row, "ledger"),
                    rollup,
                    row["archived"],
                    {kind: figures for kind, figures in beside.items() if figures != rollup},
                    keyless=row["number"] in keyless,
                )
            )
        return found

    async def dropped(self) -> Sequence[Window]:
        """Return the months whose events are in their archives alone, by time."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("reconcile_dropped"))
        return [Window(row["from_us"], row["to_us"]) for row in rows]

    async def told(self, asked: Sequence[PeriodAsked]) -> Sequence[ToldUsage]:
        """Return what each destination that wants usage was told of these periods."""
        async with self._patient() as connection:
            usage = [each for each in await wanted(connection) if each[1] == USAGE_BATCH]
            stretches = (
                [each[0] for each in usage],
                [each[2] for each in usage],
                [each[3] for each in usage],
            )
            rows = await connection.fetch(
                query("reconcile_told"), *_asks(asked), *stretches, timeout=PATIENCE_S
            )
        return [
            ToldUsage(
                ask=row["number"],
                meter=MeterName(row["meter"]),
                destination=row["destination"],
                told=int(row["told"]),
                delivered=int(row["delivered"]),
                parked=int(row["parked"]),
                ledger=int(row["ledger"]),
                aside=int(row["aside"]),
            )
            for row in rows
        ]

    @asynccontextmanager
    async def _patient(self) -> AsyncIterator[Lent]:
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            yield connection


class PostgresReconcileStore:
    """The `ReconcileStore` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def begin(self, run_id: str) -> RunState:
        """Begin a run, or find how far it has come."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(query("reconcile_state"), run_id)
            if row is None:
                await connection.execute(query("reconcile_begin"), run_id)
                row = await connection.fetchrow(query("reconcile_state"), run_id)
        assert row is not None
        return _state(row)

    async def add(self, part: RunPart) -> int | None:
        """Store a part; return how many drifts are new, None where another has stored it."""
        results = part.results
        exact = sum(each.verdict is Verdict.EXACT for each in results)
        drifting = sum(each.verdict is Verdict.DRIFT for each in results)
        counts = (len(results), exact, drifting, part.last)
        async with self._postgres.connection() as connection, connection.transaction():
            taken = await connection.fetchval(
                query("reconcile_advance"), part.run_id, part.after, part.until, *counts
            )
            if taken is None:
                return None
            if results:
                rows = [_result(each) for each in results]
                await connection.execute(query("reconcile_insert"), part.run_id, *_columns(rows))
            return await _tell(connection, part)

    async def newest(self) -> RunState | None:
        """Return the daily run that was finished last."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(query("reconcile_newest"))
        return None if row is None else _state(row)

    async def verdicts(self, run_id: str) -> dict[str, int]:
        """Return how many pairs of a run came to each verdict."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("reconcile_verdicts"), run_id)
        return {row["verdict"]: row["pairs"] for row in rows}

    async def drift_units(self, run_id: str) -> dict[str, Decimal]:
        """Return the units that a run found off, too many and too few added up, by step."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("reconcile_drift_units"), run_id)
        return {row["step"]: row["units"] for row in rows}


def message(part: RunPart, pair: Pair, drift: Drift, repair: Repair) -> Message:
    """Return the message that tells of a drift."""
    payload = {
        "type": RECONCILE_DRIFT,
        "timestamp": spelled(part.at_us),
        "data": {
            "tenant_id": pair.tenant_id,
            "meter": pair.meter,
            "period_start": spelled(pair.period.start_us),
            "period_end": spelled(pair.period.end_us),
            "step": drift.step.value,
            "name": drift.name,
            "drift": format(drift.units, "f"),
            "repair": repair.remedy.value,
            "repair_units": format(repair.units, "f"),
            "kind": part.run_id.partition("-")[0],
            "run_id": part.run_id,
        },
    }
    return Message("tenant", pair.tenant_id, RECONCILE_DRIFT, messages.as_json(payload).encode())


async def _tell(connection: Lent, part: RunPart) -> int:
    found = [
        (each.pair, drift, repair)
        for each in part.results
        for drift, repair in zip(each.drifts, each.repairs, strict=True)
        if drift.follows is None
    ]
    if not found:
        return 0
    rows = [
        (
            *(pair.tenant_id, pair.meter, pair.period.start_us),
            *(f"{drift.step.value} {drift.name}".strip(), drift.units),
        )
        for pair, drift, _ in found
    ]
    new = await connection.fetch(query("reconcile_drifts"), part.run_id, *_columns(rows))
    told = [message(part, *found[row["place"] - 1]) for row in new]
    await messages.write_wanted(connection, told)
    return len(new)


def _result(each: Reconciled) -> tuple[object, ...]:
    pair = each.pair
    return (
        pair.tenant_id,
        pair.meter,
        pair.period.start_us,
        pair.period.end_us,
        each.verdict.value,
        json.dumps([shown(reading) for reading in each.readings]),
        json.dumps(
            [
                {
                    "step": drift.step.value,
                    "name": drift.name,
                    "units": format(drift.units, "f"),
                    "follows": drift.follows.value if drift.follows else None,
                    "remedy": repair.remedy.value,
                    "append": format(repair.units, "f"),
                }
                for drift, repair in zip(each.drifts, each.repairs, strict=True)
            ]
        ),
    )


def shown(reading: Reading) -> dict[str, str]:
    """Return a reading as JSON has it: units as text, as they may be of any size."""
    place = {"step": reading.step.value, "name": reading.name}
    figure = reading.figure
    if isinstance(figure, Absent):
        return place | {"why": figure.why.value, "reason": figure.reason}
    parts = {"in_flight": figure.in_flight, "late": figure.late, "aside": figure.aside}
    return (
        place
        | {"units": format(figure.units, "f")}
        | {name: format(units, "f") for name, units in parts.items() if units}
    )


async def _keyless(
    connection: Lent, asked: Sequence[PeriodAsked], rows: Sequence[asyncpg.Record]
) -> set[int]:
    """Return the asks of which the ledger's keys are not its events; only where usage differs."""
    unlike = {row["number"] for row in rows if _figures(row, "ledger") != _figures(row, "rollup")}
    chosen = [(number, *row) for number, *row in zip(*_asks(asked), strict=True)]
    columns = [each for each in chosen if each[0] in unlike]
    if not columns:
        return set()
    found = await connection.fetch(query("reconcile_keys"), *_columns(columns), timeout=PATIENCE_S)
    return {row["number"] for row in found if row["wrong"]}


def _asks(
    asked: Sequence[PeriodAsked],
) -> tuple[list[int], list[str], list[int], list[int]]:
    return (
        list(range(len(asked))),
        [each.tenant.tenant_id for each in asked],
        [each.period.start_us for each in asked],
        [each.period.end_us for each in asked],
    )


def _columns(rows: Sequence[tuple[object, ...]]) -> tuple[list[object], ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))


def _figures(row: asyncpg.Record, side: str) -> Figures:
    return Figures(*(int(row[f"{side}_{name}"] or 0) for name in ("count", "sum", "max", "min")))


def _state(row: asyncpg.Record) -> RunState:
    return RunState(
        row["run_id"],
        row["after_tenant"],
        row["pairs"],
        row["exact"],
        row["drifting"],
        row["finished_us"] or 0,
    )
