"""Usage as it is billed, out of rollups and events, and what it is made of.

Guarantees: what one call returns is of one snapshot; usage that came late and is billed elsewhere
is taken off rollups where they can say so, and left out of events else; where a price is for some
events of a meter only, tells them apart, or takes more than sums and extremes, its groups' rollups
are read if they say it all, and else the events themselves are added up.
Refuses to know: prices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import asyncpg

from tallygate.adapters.postgres.archived import refuse_archived
from tallygate.adapters.postgres.billed_apart import folded, from_groups, where_of
from tallygate.adapters.postgres.late_places import left_out
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.billed import (
    PLAIN,
    Figures,
    Level,
    cover,
    less,
    quantity_of,
    whole_minutes,
)
from tallygate.domain.errors import TooManyItems
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.invoice import Group, Measured, Selection
from tallygate.domain.window import Window
from tallygate.ports.billing import (
    GROUPS_MAX,
    EvidenceBucket,
    EvidenceEvent,
    Place,
    UsageAsked,
)


class PostgresBilledUsage:
    """The `BilledUsage` and `UsageEvidence` ports."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def billed(self, tenant_id: TenantId, asked: Sequence[UsageAsked]) -> list[Measured]:
        """Return the usage of each selection, by group where it has some, all of one instant."""
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            late = await left_out(connection, tenant_id, asked)
            whole = [each for each in asked if _is_whole(each.selection)]
            found = await _from_rollups(connection, tenant_id, whole, late)
            for each in asked:
                if not _is_whole(each.selection):
                    found += await _measured_apart(connection, tenant_id, each, late)
        return found

    async def meters(self, tenant_id: TenantId, window: Window) -> list[MeterName]:
        """Return the meters with usage in the minutes of a stretch, by name. See the port."""
        within = whole_minutes(window)
        pieces = cover(within)
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("billed_meters"),
                tenant_id,
                [piece.level.value for piece in pieces],
                [piece.window.start_us for piece in pieces],
                [piece.window.end_us for piece in pieces],
                *(within.start_us, within.end_us),
            )
        return [MeterName(row["meter"]) for row in rows]

    async def buckets(
        self, tenant_id: TenantId, asked: UsageAsked, after: Place, count: int
    ) -> list[EvidenceBucket]:
        """Return up to `count` rollups, and events beside them, by time."""
        pieces = cover(asked.window)
        async with self._postgres.connection() as connection:
            if await left_out(connection, tenant_id, [asked]):
                # Rollups have what the line leaves out.
                return []
            rows = await connection.fetch(
                query("billed_buckets"),
                tenant_id,
                asked.selection.meter,
                [piece.level.value for piece in pieces],
                [piece.window.start_us for piece in pieces],
                [piece.window.end_us for piece in pieces],
                *after,
                count,
            )
        return [
            EvidenceBucket(
                Level(row["level"]), row["at_us"], row["count"], int(row["sum"]), row["id"]
            )
            for row in rows
        ]

    async def events(
        self, tenant_id: TenantId, asked: UsageAsked, group: Group, after: Place, count: int
    ) -> list[EvidenceEvent]:
        """Return up to `count` events of a selection and group, by time and id."""
        ((key, value),) = group or (("", ""),)
        async with self._postgres.connection() as connection:
            of = (*_events_of(tenant_id, asked), key, value)
            if asked.late_at_us is not None:
                late = (*of, asked.late_at_us, *after, count)
                rows = await connection.fetch(query("billed_events_late"), *late)
            else:
                kept = (*of, *after, count, asked.billed_by_us)
                rows = await connection.fetch(query("billed_events"), *kept)
        return [
            EvidenceEvent(
                EventId(row["event_id"]), row["event_time_us"], row["amount"], row["refund_of"]
            )
            for row in rows
        ]


def _is_whole(selection: Selection) -> bool:
    """Say whether the rollups that every meter has say it all."""
    return selection.aggregation in PLAIN and not selection.where and not selection.per


async def _measured_apart(
    connection: Lent, tenant_id: TenantId, asked: UsageAsked, late: Mapping[UsageAsked, Figures]
) -> list[Measured]:
    if asked not in late:
        # Nothing of it is billed elsewhere, whatever may be of other times.
        asked = replace(asked, billed_by_us=None)
        grouped = await from_groups(connection, tenant_id, asked)
        if grouped is not None:
            return grouped
    if asked.selection.aggregation in PLAIN:
        return await _from_events(connection, tenant_id, asked)
    return await folded(connection, tenant_id, asked)


async def _from_rollups(
    connection: Lent,
    tenant_id: TenantId,
    asked: Sequence[UsageAsked],
    late: Mapping[UsageAsked, Figures],
) -> list[Measured]:
    pieces = [
        (place, each.selection.meter, piece)
        for place, each in enumerate(asked)
        for piece in cover(each.window)
    ]
    for _, _, piece in pieces:
        if piece.level is Level.EVENT:
            await refuse_archived(connection, piece.window.start_us, piece.window.end_us, "period")
    rows = await connection.fetch(
        query("billed_usage"),
        tenant_id,
        [place for place, _, _ in pieces],
        [meter for _, meter, _ in pieces],
        [piece.level.value for _, _, piece in pieces],
        [piece.window.start_us for _, _, piece in pieces],
        [piece.window.end_us for _, _, piece in pieces],
    )
    found: list[Measured] = []
    for row in rows:
        of, whole = asked[row["place"]], _figures(row)
        kept = less(whole, late[of], of.selection.aggregation) if of in late else whole
        if kept is None:
            found += await _from_events(connection, tenant_id, of)
        else:
            found.append(_measured(of, kept, ()))
    return found


async def _from_events(connection: Lent, tenant_id: TenantId, asked: UsageAsked) -> list[Measured]:
    per, window = asked.selection.per, asked.window
    await refuse_archived(connection, window.start_us, window.end_us, "period")
    rows = await connection.fetch(
        query("billed_groups"),
        *(*_events_of(tenant_id, asked), per, GROUPS_MAX + 1, asked.billed_by_us),
    )
    if len(rows) > GROUPS_MAX:
        raise TooManyItems(f"{per} has more than {GROUPS_MAX} values", field="per")
    return [_measured(asked, _figures(row), ((per, row["value"]),) if per else ()) for row in rows]


def _events_of(tenant_id: TenantId, asked: UsageAsked) -> tuple[str | int, ...]:
    window = asked.window
    where = where_of(asked.selection)
    return tenant_id, asked.selection.meter, window.start_us, window.end_us, where


def _figures(row: asyncpg.Record) -> Figures:
    return Figures(row["count"], int(row["sum"]), row["max"], row["min"])


def _measured(asked: UsageAsked, figures: Figures, group: Group) -> Measured:
    quantity = quantity_of(asked.selection.aggregation, figures)
    return Measured(asked.segment, asked.selection, quantity, figures.count, group)
