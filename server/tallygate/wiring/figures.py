"""What makes figures to be watched: two loops of control.

Guarantees: the loops can run in several processes at once; they only read.
Refuses to know: what the figures are.
"""

from typing import Final

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.figures import PostgresUsageFigures
from tallygate.domain.ids import TenantId
from tallygate.flow.figures import ShowRevenue, ShowUsage
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.wiring.host import Host
from tallygate.wiring.invoicing import invoicing_of

# Between two pages of a round: a page of a thousand is a second and a bit.
USAGE_MS: Final = 200
# Ten tenants each: forty a second at most, so that issuing invoices is not in their way.
REVENUE_MS: Final = 250


def start_figures(host: Host) -> None:
    """Start what adds up usage and expected revenue, beside the other loops of control."""
    settings, metrics = host.settings, host.metrics.figures
    if settings.usage_figures == "on":
        named = [TenantId(each) for each in settings.usage_figures_tenants]
        usage = ShowUsage(
            PostgresUsageFigures(host.postgres()),
            *(metrics, host.clock, named, settings.usage_figures_every_s),
        )
        pace = LoopOptions(idle_ms=USAGE_MS)
        host.spawn(Loop("usage_figures", usage, host.clock, host.observer, pace))
    if settings.revenue_preview == "on":
        revenue = ShowRevenue(
            PostgresCatalogStore(host.postgres()),
            invoicing_of(host.postgres()),
            *(metrics, host.clock, settings.revenue_preview_every_s),
        )
        pace = LoopOptions(idle_ms=REVENUE_MS)
        host.spawn(Loop("revenue_figures", revenue, host.clock, host.observer, pace))
