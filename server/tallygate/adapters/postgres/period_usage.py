"""Billable usage, composed of rollups by day, hour and minute.

Guarantees: what is returned together was read in one snapshot; rollups that lack events are refused
by the meter's name, never taken for whole.
Refuses to know: events.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import asyncpg

from tallygate.adapters.catalog_codec import catalog_from_json
from tallygate.adapters.postgres.group_rollups import shape_from
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.errors import RollupsIncomplete
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.pieces import checked, pieces
from tallygate.domain.rollup import in_seconds, shape_of
from tallygate.domain.sketch import amount_of
from tallygate.domain.window import Window
from tallygate.ports.period_usage import Group, MeterUsage, WindowUsage

_FIGURES: Final = {
    Aggregation.COUNT: "count",
    Aggregation.SUM: "sum",
    Aggregation.MAX: "max",
    Aggregation.MIN: "min",
    Aggregation.LATEST: "latest",
}
# The shape, the window's place, and the group's values as JSON.
_Place = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is read: windows of a tenant; `kept` are places of groups' values, None for all."""

    tenant_id: TenantId
    windows: Sequence[Window]
    kept: Sequence[int] | None = None

    def columns(self) -> tuple[list[int], list[int], list[int], list[int]]:
        """Return the pieces of the windows: number, level, start, end."""
        found = [(n, piece) for n, window in enumerate(self.windows) for piece in pieces(window)]
        return (
            [number for number, _ in found],
            [piece.level for _, piece in found],
            [piece.start_us for _, piece in found],
            [piece.end_us for _, piece in found],
        )


class PostgresPeriodUsage:
    """The `PeriodUsage` and the `WindowReader` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def of_window(self, tenant_id: TenantId, from_us: int, to_us: int) -> list[MeterUsage]:
        """Return the usage of a window, by meter and group. See the port."""
        asked = _Asked(tenant_id, [checked(from_us, to_us)])
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            meters = await _meters(connection)
            shaped = await _shaped(connection, asked, meters)
            found = [
                MeterUsage(shaped[number].name, _named(shaped[number].group_by, kept), *usage)
                for (number, _, kept), usage in await _grouped(connection, asked, shaped)
            ]
            rows = await connection.fetch(query("period_plain"), tenant_id, None, *asked.columns())
        for row in rows:
            meter = meters.get(row["meter"], Meter(row["meter"]))
            if shape_of(meter) is None:
                found.append(MeterUsage(meter.name, (), *_figures(meter, row)))
        return sorted(found, key=lambda usage: (usage.meter, usage.group))

    async def of_windows(
        self,
        tenant_id: TenantId,
        meter: Meter,
        windows: Sequence[Window],
        group_by: Sequence[str] = (),
    ) -> list[WindowUsage]:
        """Return one meter's usage by window and group. See the port."""
        for window in windows:
            checked(window.start_us, window.end_us)
        if not windows:
            return []
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            return await windows_of(connection, tenant_id, meter, windows, group_by)


async def windows_of(
    connection: Lent,
    tenant_id: TenantId,
    meter: Meter,
    windows: Sequence[Window],
    group_by: Sequence[str] = (),
) -> list[WindowUsage]:
    """Return what `of_windows` does, in the snapshot of the caller's transaction."""
    kept = [meter.group_by.index(name) for name in group_by]
    asked = _Asked(tenant_id, windows, kept)
    # Without groups and as every meter has it, the plain rollups say the same, always.
    if not group_by and meter.aggregation in (*_FIGURES,)[:4]:
        rows = await connection.fetch(
            query("period_plain"), tenant_id, meter.name, *asked.columns()
        )
        found = [WindowUsage(row["number"], (), *_figures(meter, row)) for row in rows]
    else:
        shaped = await _shaped(connection, asked, {meter.name: meter}, meter.name)
        found = [
            WindowUsage(number, _named(group_by, values), *usage)
            for (_, number, values), usage in await _grouped(connection, asked, shaped)
        ]
    return sorted(found, key=lambda usage: (usage.number, usage.group))


async def _meters(connection: Lent) -> Mapping[MeterName, Meter]:
    row = await connection.fetchrow(query("period_catalog"))
    return catalog_from_json(row["snapshot"]).meters if row is not None else {}


async def _shaped(
    connection: Lent,
    asked: _Asked,
    meters: Mapping[MeterName, Meter],
    only: MeterName | None = None,
) -> dict[int, Meter]:
    """Return the meters with rollups of their own, by their shape. Raises `RollupsIncomplete`.

    Those that the tenant has never used are left out.
    """
    start_us = min(window.start_us for window in asked.windows)
    end_us = max(window.end_us for window in asked.windows)
    rows = await connection.fetch(query("period_shapes"), start_us, end_us, only)
    known = {row["meter"]: row for row in rows}
    used = {
        row["meter"]
        for row in await connection.fetch(query("period_used"), asked.tenant_id, end_us, only)
    }
    found: dict[int, Meter] = {}
    for name in sorted(used & meters.keys()):
        meter, row = meters[MeterName(name)], known.get(name)
        wanted = shape_of(meter)
        if wanted is None:
            continue
        if row is None or not row["whole"] or shape_from(row["definition"]) != wanted:
            detail = f"the rollups of meter {name} do not have all of it yet, as they are made anew"
            raise RollupsIncomplete(detail, field="meter")
        found[row["shape_id"]] = meter
    return found


async def _grouped(
    connection: Lent, asked: _Asked, shaped: Mapping[int, Meter]
) -> Iterator[tuple[_Place, tuple[int | Decimal, int]]]:
    """Return quantities and counts of shaped meters, by shape, window and group."""
    if not shaped:
        return iter(())

    async def read(name: str, shapes: Iterable[int], *more: object) -> list[asyncpg.Record]:
        numbers = list(shapes)
        if not numbers:
            return []
        columns = asked.columns()
        return await connection.fetch(
            query(name), asked.tenant_id, numbers, *columns, asked.kept, *more
        )

    of: dict[Aggregation, list[int]] = {}
    for number, meter in shaped.items():
        of.setdefault(meter.aggregation, []).append(number)
    found: dict[_Place, tuple[int | Decimal, int]] = {}
    for row in await read("period_groups", shaped):
        meter = shaped[row["shape_id"]]
        figures = _figures(meter, row) if meter.aggregation in _FIGURES else (0, row["count"])
        found[_place(row)] = figures
    for row in await read("period_unique", of.get(Aggregation.UNIQUE, ())):
        _fill(found, _place(row), row["different"])
    percentiles = of.get(Aggregation.PERCENTILE, [])
    asked_ppm = [shaped[number].percentile_ppm for number in percentiles]
    for row in await read("period_percentile", percentiles, asked_ppm):
        _fill(found, _place(row), amount_of(row["slot"]))
    bounds = ([each.start_us for each in asked.windows], [each.end_us for each in asked.windows])
    for row in await read("period_levels", of.get(Aggregation.TIME_WEIGHTED, ()), *bounds):
        if row["area"] or _place(row) in found:
            _fill(found, _place(row), in_seconds(int(row["area"])))
    return iter(found.items())


def _fill(
    found: dict[_Place, tuple[int | Decimal, int]], place: _Place, quantity: int | Decimal
) -> None:
    found[place] = (quantity, found.get(place, (0, 0))[1])


def _place(row: asyncpg.Record) -> _Place:
    return row["shape_id"], row["number"], row["kept"]


def _figures(meter: Meter, row: asyncpg.Record) -> tuple[int, int]:
    return int(row[_FIGURES[meter.aggregation]]), row["count"]


def _named(names: Sequence[str], values: str) -> Group:
    return tuple(zip(names, json.loads(values), strict=True))
