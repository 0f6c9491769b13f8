"""Usage for figures, from the rollups by day.

Guarantees: a page costs a look at its own tenants' days, however many tenants and years there are.
Refuses to know: events, and who watches.
"""

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.ids import MeterName, TenantId
from tallygate.ports.figures import Amount, MeterUse, UsePage


class PostgresUsageFigures:
    """The `UsageFigures` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def page(self, after: str, count: int, day_us: int, month_us: int) -> UsePage:
        """Return what the next tenants have used since two instants."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("figures_page"), after, count, day_us, month_us)
        used = [
            MeterUse(
                TenantId(row["tenant_id"]),
                MeterName(row["meter"]),
                Amount(int(row["day_events"]), int(row["day_units"])),
                Amount(int(row["month_events"]), int(row["month_units"])),
            )
            for row in rows
            if row["meter"] is not None
        ]
        return UsePage(used, TenantId(rows[-1]["tenant_id"]) if rows else None)
