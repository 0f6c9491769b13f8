"""What leases tell of themselves, as metrics.

Guarantees: two additions per batch of calls, as this sits on a hot path.
Refuses to know who calls: it has the shape of an observer protocol and imports none.
"""

from tallygate.adapters.prometheus.metrics import Metrics


class LeaseMetrics:
    """Counts leases, grants, and what becomes of them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def leased(self, outcome: str) -> None:
        """Count a lease that was asked for."""
        self._metrics.leases[outcome].inc()

    def granted(self, calls: int) -> None:
        """Count calls that were granted from leases, and decided so."""
        self._metrics.lease_grants.inc(calls)
        self._metrics.decisions["allowed"].inc(calls)

    def settled(self, outcome: str, grants: int) -> None:
        """Count grants that Redis was told of."""
        self._metrics.lease_settled[outcome].inc(grants)

    def accepted(self, events: int) -> None:
        """Count events that are new in a stream."""
        self._metrics.events_accepted.inc(events)

    def lost(self, grants: int) -> None:
        """Count grants that Redis was not told of."""
        self._metrics.lease_lost.inc(grants)
