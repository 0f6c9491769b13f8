"""What a meter's events of a period come to, by group, folded in the ledger or from its rollups.

Guarantees: only events that a revision covers are folded; rollups are read only where they have
just these, and are whole. Either way it is of the caller's snapshot, and the same number.
Refuses to know: which revisions there are, and what is done with the numbers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from tallygate.adapters.postgres.archived import archives_of
from tallygate.adapters.postgres.group_rollups import definition_of, shape_from
from tallygate.adapters.postgres.period_usage import windows_of
from tallygate.adapters.postgres.pool import Lent
from tallygate.adapters.postgres.queries import query
from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.period import Figures, Group, MeterTotal
from tallygate.domain.period_fold import Carried, Quantity, shape, total
from tallygate.domain.pieces import pieces
from tallygate.domain.rollup import in_seconds
from tallygate.domain.sketch import amount_of
from tallygate.domain.window import Window

# A hundred million events of a month are sorted within this; nobody waits for it.
FOLD_S: Final = 3_600


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose meter is folded, by which rule, over which events.

    `own` is the newest revision of the period whose late events count, `until_us` the latest start
    of another period whose do. `start_us` is None for all before the tenant's first period.
    """

    tenant_id: TenantId
    rule: Meter
    start_us: int | None
    end_us: int
    own: int
    until_us: int | None = None

    def columns(self, *, alone: bool = False) -> tuple[object, ...]:
        """Return the arguments of `folded_events`; `alone` asks for late ones of `until_us`."""
        name, definition = self.rule.name, definition_of(shape(self.rule))
        bounds = (self.start_us, self.end_us, self.own, self.until_us)
        return (self.tenant_id, name, definition, *bounds, alone)


class NotToldAnyMore(Exception):
    """Events are in an archive alone, and rollups do not tell the number."""


def rule_from(meter: str, definition: str, percentile_ppm: int) -> Meter:
    """Return the rule that a row has."""
    found = shape_from(definition)
    return Meter(
        MeterName(meter),
        found.aggregation,
        unique_by=found.unique_by,
        percentile_ppm=percentile_ppm,
        group_by=found.group_by,
    )


async def from_events(connection: Lent, asked: Asked, carried: Carried) -> list[MeterTotal]:
    """Return what the events come to, by group."""
    rule, columns = asked.rule, asked.columns()
    match rule.aggregation:
        case Aggregation.LATEST:
            rows = await _read(connection, "fold_latest", *columns)
        case Aggregation.UNIQUE:
            rows = await _read(connection, "fold_values", *columns)
        case Aggregation.PERCENTILE:
            rows = await _read(connection, "fold_slots", *columns, rule.percentile_ppm)
        case Aggregation.TIME_WEIGHTED:
            levels = ([_kept(each) for each in carried], [*carried.values()])
            found = await _read(connection, "fold_levels", *columns, *levels)
            # A level that refunds have brought to nothing is no usage.
            rows = [row for row in found if row["used"] or row["quantity"]]
        case _:
            rows = await _read(connection, "fold_figures", *columns)
    totals = [
        total(
            rule,
            group,
            _quantity(rule.aggregation, row),
            _figures(row),
            carried.get(group, 0),
        )
        for row in rows
        for group in (_group(rule, row),)
    ]
    return sorted(totals, key=lambda each: each.group)


async def from_rollups(connection: Lent, asked: Asked, carried: Carried) -> list[MeterTotal] | None:
    """Return what rollups say, by group; None where they have not just these events."""
    rule, start_us = asked.rule, asked.start_us
    if start_us is None:
        return None
    definition = definition_of(shape(rule))
    row = await connection.fetchrow(
        query("fold_shape"), rule.name, definition, start_us, asked.end_us
    )
    if row is None or await connection.fetchval(
        query("period_uncovered"), asked.tenant_id, rule.name, start_us, asked.own, asked.until_us
    ):
        return None
    window = Window(start_us, asked.end_us)
    parts = tuple(pieces(window))
    columns = (
        [0 for _ in parts],
        [part.level for part in parts],
        [part.start_us for part in parts],
        [part.end_us for part in parts],
    )
    rows = await _read(
        connection, "period_groups", asked.tenant_id, [row["shape_id"]], *columns, None
    )
    figures = {_group(rule, each): _figures(each) for each in rows}
    usage = await windows_of(connection, asked.tenant_id, rule, [window], rule.group_by)
    return [
        total(
            rule,
            each.group,
            each.quantity,
            figures.get(each.group, Figures()),
            carried.get(each.group, 0),
        )
        for each in usage
    ]


async def carried_into(connection: Lent, asked: Asked) -> Carried:
    """Return the levels as the period begins, by group. Raises `NotToldAnyMore`."""
    rule, start_us = asked.rule, asked.start_us
    if rule.aggregation is not Aggregation.TIME_WEIGHTED or start_us is None:
        return {}
    columns = (asked.tenant_id, rule.name, definition_of(shape(rule)), start_us)
    whole = await connection.fetchrow(
        query("fold_shape"), rule.name, columns[2], start_us, asked.end_us
    )
    if whole is None and await archives_of(connection, asked.tenant_id, rule.name, None, start_us):
        raise NotToldAnyMore
    name = "fold_carried_events" if whole is None else "fold_carried"
    rows = await _read(connection, name, *columns)
    return {_group(rule, row): row["amount"] for row in rows}


async def late_figures(connection: Lent, asked: Asked) -> Mapping[Group, Figures]:
    """Return the figures of what is allocated to the period that starts at `until_us`, by group."""
    rows = await _read(connection, "fold_figures", *asked.columns(alone=True))
    return {_group(asked.rule, row): _figures(row) for row in rows}


async def is_archived(connection: Lent, asked: Asked) -> bool:
    """Say whether events of the period are in an archive alone."""
    if asked.start_us is None:
        return False
    bounds = (asked.start_us, asked.end_us)
    return bool(await archives_of(connection, asked.tenant_id, asked.rule.name, *bounds))


def group_text(group: Group) -> str:
    """Return a group as rows name it."""
    return json.dumps(group, ensure_ascii=False) if group else ""


async def _read(connection: Lent, name: str, *arguments: object) -> Sequence[asyncpg.Record]:
    found: Sequence[asyncpg.Record] = await connection.fetch(
        query(name), *arguments, timeout=FOLD_S
    )
    return found


def _group(rule: Meter, row: asyncpg.Record) -> Group:
    return tuple(zip(rule.group_by, json.loads(row["kept"]), strict=True))


def _quantity(aggregation: Aggregation, row: asyncpg.Record) -> Quantity:
    match aggregation:
        case Aggregation.TIME_WEIGHTED:
            return in_seconds(int(row["quantity"]))
        case Aggregation.PERCENTILE:
            return amount_of(int(row["quantity"]))
        case Aggregation.LATEST | Aggregation.UNIQUE:
            return int(row["quantity"])
        case _:
            return _figures(row).quantity(aggregation)


def _kept(group: Group) -> str:
    return json.dumps([value for _, value in group], ensure_ascii=False)


def _figures(row: asyncpg.Record) -> Figures:
    return Figures(row["count"], int(row["sum"]), row["max"], row["min"])
