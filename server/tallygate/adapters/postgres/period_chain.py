"""Which billing periods tenants have, as Postgres keeps them.

Guarantees: what one call returns is of one instant.
Refuses to know: calendars, and what was frozen of a period.
"""

from collections.abc import Mapping, Sequence

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.ids import TenantId
from tallygate.domain.window import Window


class PostgresPeriodChains:
    """The `PeriodChains` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def around(
        self, ids: Sequence[TenantId], from_us: int, to_us: int
    ) -> Mapping[TenantId, Sequence[Window]]:
        """Return the periods that touch a stretch, and their neighbours. See the port."""
        if not ids:
            return {}
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("period_chain"), list(ids), from_us, to_us)
        found: dict[TenantId, list[Window]] = {}
        for row in rows:
            window = Window(row["start_us"], row["end_us"])
            found.setdefault(TenantId(row["tenant_id"]), []).append(window)
        return found
