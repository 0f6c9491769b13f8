"""Anomalies and reconciliations as metrics: counted, and shown as a whole."""

from decimal import Decimal

from prometheus_client import CollectorRegistry

from tallygate.adapters.prometheus.insight import KINDS, STEPS, VERDICTS
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.domain.reconcile import Step, Verdict
from tallygate.flow.anomaly import AnomalyObserver
from tallygate.flow.reconcile import ReconcileObserver
from tallygate.flow.reconcile_invoicing import InvoicingObserver
from tallygate.ports.anomaly import AnomalyBacklog
from tallygate.ports.reconcile import RunState
from tallygate.ports.reconcile_invoicing import Kind


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return one sample."""
    return metrics.registry.get_sample_value(f"tallygate_{name}", labels)


def test_hours_and_anomalies_are_counted() -> None:
    """Both directions are there from the start; lag is that of who is furthest behind."""
    metrics = Metrics(CollectorRegistry(), version="1")
    observer: AnomalyObserver = metrics.insight
    assert sample(metrics, "anomalies_total", direction="low") == 0
    observer.looked(7, {"high": 2, "low": 0})
    observer.looked(1, {"high": 1, "low": 1})
    assert sample(metrics, "anomaly_looks_total") == 8
    assert sample(metrics, "anomalies_total", direction="high") == 3
    assert sample(metrics, "anomalies_total", direction="low") == 1
    for backlog, series, lag_s in (
        (AnomalyBacklog(5, 97), 5, 3 * 3_600),
        (AnomalyBacklog(5, 101), 5, 0),
        (AnomalyBacklog(0, 0), 0, 0),
    ):
        observer.behind(backlog, 100)
        assert sample(metrics, "anomaly_series") == series
        assert sample(metrics, "anomaly_lag_seconds") == lag_s


def test_the_last_reconciliation_is_shown_as_a_whole() -> None:
    """What a run did not find is 0, not what the run before found; nothing at all is accurate."""
    metrics = Metrics(CollectorRegistry(), version="1")
    observer: ReconcileObserver = metrics.insight
    drifting = RunState("one", pairs=8, exact=6, drifting=2)
    observer.reconciled(drifting, {"exact": 6, "drift": 2}, {"rollup": Decimal("2.5")})
    assert sample(metrics, "reconcile_accuracy_ratio", kind="daily") == 0.75
    assert sample(metrics, "reconcile_drift_units", step="rollup") == 2.5
    observer.reconciled(RunState("two"), {}, {})
    assert sample(metrics, "reconcile_accuracy_ratio", kind="daily") == 1
    assert [sample(metrics, "reconcile_pairs", verdict=each.value) for each in Verdict] == [0.0] * 6
    steps = [each.value for each in Step]
    assert (sorted(STEPS), [*VERDICTS]) == (sorted(steps), [each.value for each in Verdict])
    assert {sample(metrics, "reconcile_drift_units", step=each) for each in steps} == {0.0}
    observer.aged(90.5)
    assert sample(metrics, "reconcile_age_seconds") == 90.5


def test_pairs_around_invoices_are_counted_by_kind() -> None:
    """Every kind and verdict is there from the start; accuracy is apart for each kind."""
    metrics = Metrics(CollectorRegistry(), version="1")
    observer: InvoicingObserver = metrics.insight
    for kind in KINDS:
        for each in Verdict:
            labels = {"kind": kind, "verdict": each.value}
            assert sample(metrics, "reconcile_checked_pairs_total", **labels) == 0
    observer.checked("before", {"exact": 3, "drift": 1})
    observer.checked("before", {"exact": 1})
    labels = {"kind": "before", "verdict": "exact"}
    assert sample(metrics, "reconcile_checked_pairs_total", **labels) == 4
    observer.accurate("before", 4, 3)
    observer.accurate("after", 0, 0)
    assert sample(metrics, "reconcile_accuracy_ratio", kind="before") == 0.75
    assert sample(metrics, "reconcile_accuracy_ratio", kind="after") == 1
    assert {*KINDS} == {"daily", *(each.value for each in Kind)}
