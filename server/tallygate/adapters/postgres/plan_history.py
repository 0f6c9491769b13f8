"""What was in effect for a tenant and when, out of the catalog's and the tenants' histories.

Guarantees: both are read in one snapshot, and of each version no more than the tenant's own plans.
Refuses to know: prices.
"""

from collections.abc import Sequence

from tallygate.adapters.catalog_codec import catalog_from_json, tenant_from_json
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.errors import TooManyItems
from tallygate.domain.ids import TenantId
from tallygate.domain.segment import Version, versions_of
from tallygate.ports.billing import VERSIONS_MAX


class PostgresPlanHistory:
    """The `PlanHistory` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def versions(self, tenant_id: TenantId, from_us: int, to_us: int) -> Sequence[Version]:
        """Return the version in effect at `from_us`, if there was one, and those up to `to_us`."""
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            declared = await connection.fetch(
                query("invoice_tenants"), tenant_id, from_us, to_us, VERSIONS_MAX + 1
            )
            tenants = [(row["at_us"], tenant_from_json(row["definition"])) for row in declared]
            plans = sorted({tenant.plan for _, tenant in tenants})
            applied = await connection.fetch(
                query("invoice_catalogs"), from_us, to_us, plans, VERSIONS_MAX + 1
            )
        if max(len(declared), len(applied)) > VERSIONS_MAX:
            raise TooManyItems(f"more than {VERSIONS_MAX} versions of the catalog", field="period")
        catalogs = [(row["at_us"], catalog_from_json(row["snapshot"])) for row in applied]
        return versions_of(tenant_id, tenants, catalogs)
