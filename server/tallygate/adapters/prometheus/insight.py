"""What looking at usage and reconciling it tell, as metrics and as log lines.

Guarantees: an anomaly and a drift are counted; which they are is in the ledger's own tables.
Refuses to know who calls: the class has the shape of observer protocols and imports none.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    # Every process declares all metrics, and a sidecar needs nothing of these.
    from decimal import Decimal

    from tallygate.ports.anomaly import AnomalyBacklog
    from tallygate.ports.reconcile import RunState

log = structlog.get_logger(__name__)

HOUR_S: Final = 3_600
VERDICTS: Final = ("exact", "in_flight", "late", "archived", "drift", "unknown")
KINDS: Final = ("daily", "before", "after")
STEPS: Final = (
    *("ledger", "counter", "rollup", "delivered", "frozen"),
    *("intents", "sent", "stripe", "invoice"),
)


class InsightMetrics:
    """Anomalies and reconciliations, on the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"tallygate_{name}", text, registry=registry)

        self.anomalies = Counter(
            "tallygate_anomalies",
            "Hours of a tenant's usage of a meter that were not as expected, by direction.",
            ("direction",),
            registry=registry,
        )
        for direction in ("high", "low"):
            self.anomalies.labels(direction)
        self.hours = Counter(
            "tallygate_anomaly_looks",
            "Hours of usage that were looked at, each tenant's and meter's by itself.",
            registry=registry,
        )
        self.series = gauge("anomaly_series", "Tenants' meters whose usage is looked at.")
        self.lag = gauge(
            "anomaly_lag_seconds", "How far the looking at usage is behind; 0 when it is not."
        )

        self.accuracy = Gauge(
            "tallygate_reconcile_accuracy_ratio",
            "Pairs of tenant, meter and period that were exact, over all: of the last daily"
            " reconciliation, and of 35 days before and after invoices.",
            ("kind",),
            registry=registry,
        )
        self.reconciled_pairs = Counter(
            "tallygate_reconcile_checked_pairs_total",
            "Pairs that were reconciled, by verdict, daily, before or after an invoice.",
            ("kind", "verdict"),
            registry=registry,
        )
        for kind in KINDS:
            for verdict in VERDICTS:
                self.reconciled_pairs.labels(kind, verdict)
        self.pairs = Gauge(
            "tallygate_reconcile_pairs",
            "Pairs of tenant, meter and period by verdict, in the last reconciliation.",
            ("verdict",),
            registry=registry,
        )
        self.drift_units = Gauge(
            "tallygate_reconcile_drift_units",
            "Units that it found off, too many and too few added up, by the step that is off.",
            ("step",),
            registry=registry,
        )
        self.age = gauge(
            "reconcile_age_seconds", "How long ago the last reconciliation was finished."
        )

    def looked(self, hours: int, found: Mapping[str, int]) -> None:
        """Count hours that were looked at, and anomalies by direction."""
        self.hours.inc(hours)
        for direction, count in found.items():
            self.anomalies.labels(direction).inc(count)

    def behind(self, backlog: "AnomalyBacklog", until_hour: int) -> None:
        """Show how many series there are, and how far the last of them is behind."""
        self.series.set(backlog.series)
        hours = until_hour - backlog.next_hour if backlog.series else 0
        self.lag.set(max(0, hours) * HOUR_S)

    def reconciled(
        self,
        state: "RunState",
        verdicts: Mapping[str, int],
        drift_units: Mapping[str, "Decimal"],
    ) -> None:
        """Show what the last reconciliation came to, and log it where anything drifts."""
        self.accurate("daily", state.pairs, state.exact)
        for verdict in VERDICTS:
            self.pairs.labels(verdict).set(verdicts.get(verdict, 0))
        for step in STEPS:
            self.drift_units.labels(step).set(float(drift_units.get(step, 0)))
        if state.drifting:
            log.error(
                "reconcile_drift",
                run_id=state.run_id,
                pairs=state.drifting,
                units={step: str(units) for step, units in drift_units.items()},
            )

    def checked(self, kind: str, verdicts: Mapping[str, int]) -> None:
        """Count the pairs of a part of a run."""
        for verdict, pairs in verdicts.items():
            self.reconciled_pairs.labels(kind, verdict).inc(pairs)

    def accurate(self, kind: str, pairs: int, exact: int) -> None:
        """Show how many pairs of a kind were exact; none at all are accurate."""
        self.accuracy.labels(kind).set(exact / pairs if pairs else 1)

    def aged(self, seconds: float) -> None:
        """Show how old the last reconciliation is."""
        self.age.set(seconds)
