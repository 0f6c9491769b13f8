"""Which usage came late, and which period's invoice has it.

Guarantees: what is billed elsewhere is what `late_usage` says, read by its index alone.
Refuses to know: how invoices are worked out.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.billed import Figures
from tallygate.domain.catalog import Aggregation
from tallygate.domain.errors import TooManyItems
from tallygate.domain.ids import TenantId
from tallygate.domain.window import Window
from tallygate.ports.billing import ADJUSTED_MAX, LateShare, UsageAsked

# Before any event: a level that came late is carried into all that follows.
LONG_AGO_US: Final = 0


class PostgresLatePlaces:
    """The `LatePlaces` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def period(self, tenant_id: TenantId, instant_us: int) -> Window | None:
        """Return the period that holds an instant, if it has ended and is known."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(query("late_period"), tenant_id, instant_us)
        return Window(row["start_us"], row["end_us"]) if row is not None else None

    async def adjusted(self, tenant_id: TenantId, start_us: int) -> list[Window]:
        """Return the closed periods with late usage that belongs to the one that begins then."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("late_adjusted"), tenant_id, start_us, ADJUSTED_MAX + 1
            )
        if len(rows) > ADJUSTED_MAX:
            raise TooManyItems(f"late usage of more than {ADJUSTED_MAX} periods", field="period")
        return [Window(row["start_us"], row["end_us"]) for row in rows]

    async def shares(self, tenant_id: TenantId, start_us: int) -> list[LateShare]:
        """Return where the late usage of a period is billed, by time."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("late_shares"), tenant_id, start_us)
        return [
            LateShare(
                *(row["billed_us"], row["events"], row["number"], row["revision"]),
                *(row["amount"], row["currency"]),
            )
            for row in rows
        ]


async def left_out(
    connection: Lent, tenant_id: TenantId, asked: Sequence[UsageAsked]
) -> Mapping[UsageAsked, Figures]:
    """Return what is left out of what is asked for, where anything is."""
    some = [
        (place, each, each.billed_by_us)
        for place, each in enumerate(asked)
        if each.billed_by_us is not None
    ]
    if not some:
        return {}
    rows = await connection.fetch(
        query("billed_late"),
        tenant_id,
        [place for place, _, _ in some],
        [each.selection.meter for _, each, _ in some],
        [_from_us(each) for _, each, _ in some],
        [each.window.end_us for _, each, _ in some],
        [by_us for _, _, by_us in some],
    )
    return {
        asked[row["place"]]: Figures(row["count"], int(row["sum"]), row["max"], row["min"])
        for row in rows
    }


def _from_us(asked: UsageAsked) -> int:
    levels = asked.selection.aggregation is Aggregation.TIME_WEIGHTED
    return LONG_AGO_US if levels else asked.window.start_us
