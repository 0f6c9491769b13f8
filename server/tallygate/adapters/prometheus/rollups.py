"""What keeping rollups tells of itself, as a metric.

Guarantees: the gauge is what the last run of this process found.
Refuses to know who calls: the class has the shape of an observer protocol and imports none.
"""

from tallygate.adapters.prometheus.metrics import Metrics


class RollupMetrics:
    """Shows how many meters have rollups that lack events."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def incomplete(self, meters: int) -> None:
        """Show how many there are."""
        self._metrics.rollups_incomplete.set(meters)
