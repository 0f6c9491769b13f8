"""What closed periods were frozen with, and what came late for them, as reconciliation asks.

Guarantees: what one call returns is of one instant.
Refuses to know: how a total is taken, and whether it is right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import asyncpg

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.drift import NOTHING, Figures
from tallygate.domain.ids import MeterName
from tallygate.ports.reconcile import FrozenUsage, PeriodAsked

_NONE: Final = Decimal(0)


class PostgresFrozenReads:
    """The `FrozenReads` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def frozen(self, asked: Sequence[PeriodAsked]) -> Mapping[int, Sequence[FrozenUsage]]:
        """Return what was frozen, by the place of each ask whose period was ever sealed."""
        columns = (
            list(range(len(asked))),
            [each.tenant.tenant_id for each in asked],
            [each.period.start_us for each in asked],
            [each.period.end_us for each in asked],
        )
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("reconcile_frozen"), *columns)
        found: dict[int, dict[MeterName, FrozenUsage]] = {}
        for row in rows:
            number, meter = row["number"], MeterName(row["meter"])
            meters = found.setdefault(number, {})
            if not meter:
                continue
            empty = FrozenUsage(number, meter, NOTHING, NOTHING, _NONE, NOTHING, NOTHING)
            # The kinds are fields by name.
            given: dict[str, Any] = {row["kind"]: _figures(row)}
            if row["kind"] == "units":
                given = {"billed_units": row["quantity"]}
            meters[meter] = replace(meters.get(meter, empty), **given)
        return {number: list(meters.values()) for number, meters in found.items()}


def _figures(row: asyncpg.Record) -> Figures:
    return Figures(row["count"], int(row["sum"]), row["max"], row["min"])
