"""Billable usage, composed of rollups by day, hour and minute.

Guarantees: a window is read in one snapshot, with the catalog that is in effect.
Refuses to know: events.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from tallygate.adapters.catalog_codec import catalog_from_json
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.pieces import checked, pieces
from tallygate.domain.window import Window
from tallygate.ports.period_usage import MeterUsage

_FIGURES: Final = {
    Aggregation.COUNT: "count",
    Aggregation.SUM: "sum",
    Aggregation.MAX: "max",
    Aggregation.MIN: "min",
}


class PostgresPeriodUsage:
    """The `PeriodUsage` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def of_window(self, tenant_id: TenantId, from_us: int, to_us: int) -> list[MeterUsage]:
        """Return the usage of a window, by meter. See the port."""
        window = checked(from_us, to_us)
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            meters = await _meters(connection)
            rows = await connection.fetch(
                query("period_plain"), tenant_id, None, *_columns([window])
            )
        found = []
        for row in rows:
            name = MeterName(row["meter"])
            figure = _FIGURES[meters.get(name, Meter(name)).aggregation]
            found.append(MeterUsage(name, (), int(row[figure]), row["count"]))
        return found


async def _meters(connection: Lent) -> Mapping[MeterName, Meter]:
    row = await connection.fetchrow(query("period_catalog"))
    return catalog_from_json(row["snapshot"]).meters if row is not None else {}


def _columns(
    windows: Sequence[Window],
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return the pieces of windows: number, level, start, end."""
    found = [(number, piece) for number, window in enumerate(windows) for piece in pieces(window)]
    return (
        [number for number, _ in found],
        [piece.level for _, piece in found],
        [piece.start_us for _, piece in found],
        [piece.end_us for _, piece in found],
    )
