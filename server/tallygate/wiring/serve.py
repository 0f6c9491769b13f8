"""What serves callers, put together: every flow of the quota service over one way to decide.

Guarantees: all flows share the store's time, the catalog and the rules for outages.
Refuses to know: listeners, and which adapters stand behind the ports.
"""

from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.api.quota import QuotaFlows
from tallygate.flow.admit import Admit
from tallygate.flow.decide import Decide, DecideParts
from tallygate.flow.refund import Refunds
from tallygate.flow.reserve import Reserve
from tallygate.ports import QuotaStore
from tallygate.ports.journal import Journal
from tallygate.settings import Settings
from tallygate.wiring.leasing import leases_of
from tallygate.wiring.watching import watches_of


def flows_of(
    parts: DecideParts,
    store: QuotaStore,
    settings: Settings,
    metrics: Metrics,
    journal: Journal | None = None,
) -> QuotaFlows:
    """Return the flows of the quota service."""
    decide = Decide(parts)
    leases = leases_of(decide, parts, store, settings, metrics, journal=journal)
    admit = Admit(decide, leases)
    return QuotaFlows(
        admit,
        Reserve(decide, store, parts.shards),
        Refunds(decide, store),
        watches_of(admit, settings, parts.clock, metrics),
        leases,
    )
