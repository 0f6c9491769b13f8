"""Meters of a revision that take more than figures: what they come to, and change of others.

Guarantees: one snapshot for the whole of a revision. It covers what its sealing did, however much
has come since, so that a fold that broke off comes to the same when it is made anew.
Refuses to know: when revisions are closed, and what is done where rollups say another number.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby

import asyncpg

from tallygate.adapters.postgres.folded_events import (
    FOLD_S,
    Asked,
    NotToldAnyMore,
    carried_into,
    from_events,
    from_rollups,
    group_text,
    is_archived,
    late_figures,
    rule_from,
)
from tallygate.adapters.postgres.period_reader import frozen, group_of, quantity_of
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.ids import MeterName
from tallygate.domain.period import Figures, Group, MeterTotal, PeriodKey
from tallygate.domain.period_fold import Carried, Fold, FoldedAdjustment, Quantity, changes
from tallygate.ports.period import SealedRevision

_Numbers = dict[Group, Quantity]


class PostgresPeriodFolds:
    """The `PeriodFolds` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def fold(self, revision: SealedRevision) -> Fold:
        """Return what is to be frozen of a sealed revision. See the port."""
        found = _Found()
        async with self._snapshot() as connection:
            key, number = revision.span.key, revision.revision
            before = {
                meter: [*totals]
                for meter, totals in groupby(
                    await frozen(connection, key, number - 1) if number > 1 else (),
                    lambda each: each.meter,
                )
            }
            for row in await connection.fetch(
                query("period_rules_of"), key.tenant_id, key.start_us, number
            ):
                rule = _rule(row)
                known = before.get(rule.name, [])
                if number > 1 and not row["late"]:
                    found.totals += known
                    continue
                carried = carried_of(known) if number > 1 else None
                await found.total(connection, _asked(revision, rule), carried)
            if number == 1:
                rows = await connection.fetch(query("period_reviews"), key.tenant_id, key.start_us)
                for row in rows:
                    await found.change(connection, key, row)
        return found.fold()

    async def fold_again(self, revision: SealedRevision) -> Fold:
        """Return the same of a closed revision from events alone. See the port."""
        found = _Found()
        key, number = revision.span.key, revision.revision
        async with self._snapshot() as connection:
            totals = await frozen(connection, key, number)
            for row in await connection.fetch(
                query("period_rules_of"), key.tenant_id, key.start_us, number
            ):
                rule = _rule(row)
                carried = carried_of([each for each in totals if each.meter == rule.name])
                found.totals += await from_events(connection, _asked(revision, rule), carried)
            if number == 1:
                rows = await connection.fetch(
                    query("period_fold_adjusted"), key.tenant_id, key.start_us
                )
                for (closed_us, _), group in groupby(
                    rows, lambda row: (row["closed_us"], row["meter"])
                ):
                    await found.again(connection, key, closed_us, [*group])
        return found.fold()

    async def archived(self, revision: SealedRevision) -> bool:
        """Say whether events of a revision are in an archive alone. See the port."""
        span = revision.span
        async with self._postgres.connection() as connection:
            found = await connection.fetchval(
                query("period_archived"),
                *(span.key.tenant_id, span.key.start_us, span.end_us, revision.revision),
            )
        return bool(found)

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Lent]:
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("ledger_pin"))
            await connection.execute(query("replay_patience"), str(FOLD_S * 1000))
            yield connection


class _Found:
    """What has been folded of a revision by now."""

    def __init__(self) -> None:
        self.totals: list[MeterTotal] = []
        self._adjustments: list[FoldedAdjustment] = []
        self._differs: dict[MeterName, None] = {}
        self._missing: dict[MeterName, None] = {}

    async def total(self, connection: Lent, asked: Asked, carried: Carried | None) -> None:
        """Add what a meter comes to."""
        self.totals += await self._now(connection, asked, carried) or ()

    async def change(self, connection: Lent, key: PeriodKey, row: asyncpg.Record) -> None:
        """Add by how much a meter of an earlier period would have been another."""
        asked = _reviewed(key, row)
        now = await self._now(connection, asked, None)
        if now is None:
            return
        billed = await _billed(connection, key, asked)
        late = await late_figures(connection, asked)
        self._adjustments += changes(now, billed, late, of=_adjustment(asked))

    async def again(
        self,
        connection: Lent,
        key: PeriodKey,
        closed_us: int | None,
        rows: Sequence[asyncpg.Record],
    ) -> None:
        """Add the same of those groups that were adjusted, as they were held against."""
        asked = _reviewed(key, rows[0])
        if await is_archived(connection, asked):
            self._missing[asked.rule.name] = None
            return
        carried = {group_of(row["grouped"]): row["carried"] or 0 for row in rows}
        now = await from_events(connection, asked, carried)
        billed = await _billed(connection, key, asked)
        late = await late_figures(connection, asked)
        found = {each.group: each for each in changes(now, billed, late, of=_adjustment(asked))}
        self._adjustments += [found[group] for group in carried if group in found]

    def fold(self) -> Fold:
        """Return what has been folded."""
        return Fold(self.totals, self._adjustments, [*self._differs], [*self._missing])

    async def _now(
        self, connection: Lent, asked: Asked, carried: Carried | None
    ) -> list[MeterTotal] | None:
        """Return what a meter comes to, None where nothing tells it any more."""
        name = asked.rule.name
        try:
            began = await carried_into(connection, asked) if carried is None else carried
            # Rollups begin a period with the level that is known by now.
            own_level = carried is None or asked.rule.aggregation is not Aggregation.TIME_WEIGHTED
            rolled = await from_rollups(connection, asked, began) if own_level else None
            if await is_archived(connection, asked):
                if rolled is None:
                    raise NotToldAnyMore
                return rolled
        except NotToldAnyMore:
            self._missing[name] = None
            return None
        found = await from_events(connection, asked, began)
        if rolled is not None and sorted(rolled, key=_group) != found:
            self._differs[name] = None
        return found


def carried_of(totals: Sequence[MeterTotal]) -> Mapping[Group, int]:
    """Return the levels that totals began with."""
    return {each.group: each.carried for each in totals if each.carried}


async def freeze(connection: Lent, revision: SealedRevision, fold: Fold) -> None:
    """Write what was folded of a revision, in the caller's transaction."""
    key = revision.span.key
    totals = fold.totals
    if totals:
        await connection.execute(
            query("period_fold_totals"),
            *(key.tenant_id, key.start_us, revision.revision),
            [each.meter for each in totals],
            [group_text(each.group) for each in totals],
            [each.aggregation.value for each in totals],
            *_figure_columns([each.figures for each in totals]),
            [each.quantity for each in totals],
            [each.carried for each in totals],
        )
    changed = fold.adjustments
    if changed:
        await connection.execute(
            query("period_fold_adjust"),
            *(key.tenant_id, key.start_us),
            [each.closed_start_us for each in changed],
            [each.meter for each in changed],
            [group_text(each.group) for each in changed],
            [each.aggregation.value for each in changed],
            *_figure_columns([each.figures for each in changed]),
            [each.quantity for each in changed],
            [each.revision for each in changed],
            [each.carried for each in changed],
        )


def _figure_columns(
    figures: Sequence[Figures],
) -> tuple[list[int], list[int], list[int], list[int]]:
    return (
        [each.count for each in figures],
        [each.sum for each in figures],
        [each.max for each in figures],
        [each.min for each in figures],
    )


async def _billed(connection: Lent, key: PeriodKey, asked: Asked) -> _Numbers:
    rows = await connection.fetch(
        query("period_billed"),
        *(asked.tenant_id, asked.rule.name, asked.start_us, asked.own, key.start_us),
    )
    return {
        group_of(row["grouped"]): quantity_of(asked.rule.aggregation, row["quantity"])
        for row in rows
    }


def _asked(revision: SealedRevision, rule: Meter) -> Asked:
    key = revision.span.key
    return Asked(key.tenant_id, rule, key.start_us, revision.span.end_us, revision.revision)


def _reviewed(key: PeriodKey, row: asyncpg.Record) -> Asked:
    bounds = (row["closed_us"], row["end_us"], row["revision"], key.start_us)
    return Asked(key.tenant_id, _rule(row), *bounds)


def _adjustment(asked: Asked) -> FoldedAdjustment:
    rule = asked.rule
    figures, start_us = Figures(), asked.start_us
    return FoldedAdjustment(rule.name, rule.aggregation, (), 0, figures, start_us, asked.own)


def _rule(row: asyncpg.Record) -> Meter:
    return rule_from(row["meter"], row["definition"], row["percentile_ppm"])


def _group(total: MeterTotal) -> Group:
    return total.group
