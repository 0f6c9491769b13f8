"""Billed usage that the rollups of every meter do not say: of groups, and of own aggregations.

Guarantees: rollups of groups count only where they are whole, and tell apart what is asked for; all
else is folded from the ledger's events through a cursor, a page in memory at a time. Either way it
is of the caller's snapshot, and the same number.
Refuses to know: prices, and usage that needs neither.
"""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal

from tallygate.adapters.postgres.archived import archives_of, refuse_archived
from tallygate.adapters.postgres.group_rollups import shape_from
from tallygate.adapters.postgres.period_usage import windows_of
from tallygate.adapters.postgres.pool import Lent
from tallygate.adapters.postgres.queries import query
from tallygate.adapters.postgres.usage_replay import PAGE, event_of
from tallygate.domain.billed import PLAIN
from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.errors import TooManyItems
from tallygate.domain.fold import Fold, Series, series_names
from tallygate.domain.ids import TenantId
from tallygate.domain.invoice import Group, Measured, Selection
from tallygate.domain.money import total
from tallygate.domain.rollup import OTHER, Shape
from tallygate.domain.window import MINUTE_US
from tallygate.ports.billing import GROUPS_MAX, UsageAsked
from tallygate.ports.export import EventsArchived
from tallygate.ports.period_usage import WindowUsage


async def from_groups(
    connection: Lent, tenant_id: TenantId, asked: UsageAsked
) -> list[Measured] | None:
    """Return what rollups of groups have of a selection, None where they do not say it all."""
    of, window = asked.selection, asked.window
    if window.start_us % MINUTE_US or window.end_us % MINUTE_US:
        return None
    rows = await connection.fetch(query("period_shapes"), window.start_us, window.end_us, of.meter)
    names = _suiting(of, shape_from(rows[0]["definition"])) if rows and rows[0]["whole"] else None
    if names is None:
        return None
    meter = Meter(
        of.meter,
        of.aggregation,
        unique_by=of.unique_by,
        percentile_ppm=of.percentile_ppm,
        group_by=shape_from(rows[0]["definition"]).group_by,
    )
    usage = await windows_of(connection, tenant_id, meter, [window], names)
    # Usage of groups beyond so many is together under one name: only events tell it apart.
    if any(value == OTHER for each in usage for _, value in each.group):
        return None
    return _by_group(asked, usage)


async def folded(connection: Lent, tenant_id: TenantId, asked: UsageAsked) -> list[Measured]:
    """Return a selection's usage, folded from the ledger's events."""
    of, window = asked.selection, asked.window
    await refuse_archived(
        connection, tenant_id, of.meter, window.start_us, window.end_us, field="period"
    )
    levels = of.aggregation is Aggregation.TIME_WEIGHTED
    carried = await _carried(connection, tenant_id, asked) if levels else {}
    fold = Fold(of, window, carried)
    events = (tenant_id, of.meter, window.start_us, window.end_us)
    if asked.billed_by_us is None:
        cursor = await connection.cursor(query("usage_events"), *events)
    else:
        cursor = await connection.cursor(query("billed_kept"), *events, asked.billed_by_us)
    while rows := await cursor.fetch(PAGE):
        fold.add(event_of(row) for row in rows)
    return [
        Measured(asked.segment, of, each.quantity, each.count, each.group) for each in fold.folded()
    ]


def where_of(selection: Selection) -> str:
    """Return the values that a selection is for, as statements take them."""
    return json.dumps({key: list(values) for key, values in selection.where})


async def _carried(
    connection: Lent, tenant_id: TenantId, asked: UsageAsked
) -> Mapping[Series, int]:
    of = asked.selection
    # Groups say of a level whether it lasts, not of events of some other value.
    told_apart = {key for key, _ in of.where} <= {*of.series}
    scope = (tenant_id, of.meter, asked.window.start_us)
    if await connection.fetchval(query("billed_levels_archived"), *scope, told_apart):
        bounds = (tenant_id, of.meter, None, asked.window.start_us)
        files = ", ".join(await archives_of(connection, *bounds))
        message = f"levels of {of.meter} from before are in archives alone: {files}"
        raise EventsArchived(message, field="period")
    rows = await connection.fetch(
        query("billed_levels"),
        *(tenant_id, of.meter, asked.window.start_us, where_of(of)),
        *([*series_names(of)], GROUPS_MAX + 1, asked.billed_by_us),
    )
    if len(rows) > GROUPS_MAX:
        raise TooManyItems(f"more than {GROUPS_MAX} levels at once", field="group_by")
    return {tuple(row["series"]): int(row["level"]) for row in rows}


def _suiting(of: Selection, shape: Shape) -> list[str] | None:
    """Return the names to read groups by, None where a selection is not made of such groups."""
    if shape != Shape(of.aggregation, of.unique_by, shape.group_by):
        return None
    levels = of.aggregation is Aggregation.TIME_WEIGHTED
    if levels and of.series != shape.group_by:
        return None
    # Values, percentiles and last amounts of several groups do not add up to those of all.
    if of.where and not levels and of.aggregation not in PLAIN:
        return None
    names = dict.fromkeys((*(key for key, _ in of.where), of.per, *of.series))
    names.pop("", None)
    return [*names] if names.keys() <= {*shape.group_by} else None


def _by_group(asked: UsageAsked, usage: Sequence[WindowUsage]) -> list[Measured]:
    of = asked.selection
    groups: dict[Group, list[WindowUsage]] = {}
    for each in usage:
        values = dict(each.group)
        if all(values[key] in among for key, among in of.where):
            group: Group = ((of.per, values[of.per]),) if of.per else ()
            groups.setdefault(group, []).append(each)
    return [
        Measured(asked.segment, of, _together(of, found), sum(each.count for each in found), group)
        for group, found in sorted(groups.items())
    ]


def _together(of: Selection, found: Sequence[WindowUsage]) -> Decimal:
    match of.aggregation:
        case Aggregation.MAX:
            return Decimal(max((each.quantity for each in found if each.count), default=0))
        case Aggregation.MIN:
            return Decimal(min((each.quantity for each in found if each.count), default=0))
        case _:
            # One alone, unless it adds up.
            return total(Decimal(each.quantity) for each in found)
