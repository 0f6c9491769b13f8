"""Facts about the metrics and the observers that fill them."""

import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tallygate.adapters.prometheus.children import CHILDREN_MAX
from tallygate.adapters.prometheus.metrics import DECISION_OUTCOMES, Metrics
from tallygate.adapters.prometheus.observers import AdmitMetrics, EdgeMetrics, StoreMetrics
from tallygate.adapters.redis.quota_store import StoreObserver
from tallygate.api.edge import EdgeObserver
from tallygate.flow.decide import DecideObserver


@pytest.fixture
def metrics() -> Metrics:
    """All metrics on a registry of their own."""
    return Metrics(CollectorRegistry(), version="1.2.3")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return one sample."""
    return metrics.registry.get_sample_value(f"tallygate_{name}", labels)


def test_nothing_is_global() -> None:
    """Two sets of metrics live beside each other, on a registry each."""
    first = Metrics(CollectorRegistry(), version="1")
    second = Metrics(CollectorRegistry(), version="1")
    first.events_accepted.inc()
    assert value(first, "events_accepted_total") == 1
    assert value(second, "events_accepted_total") == 0


def test_names_follow_the_conventions(metrics: Metrics) -> None:
    """Counters end in _total, times are in seconds, and each metric has a sentence of help."""
    for family in metrics.registry.collect():
        if not family.name.startswith("tallygate_"):
            continue
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", family.name)
        assert family.documentation.endswith("."), family.name
        assert not re.search(r"_(ms|us|milliseconds|minutes|kilobytes|count)$", family.name)
        if family.type == "counter":
            exposed = generate_latest(metrics.registry).decode()
            assert f"# TYPE {family.name}_total counter" in exposed
        else:
            assert not family.name.endswith("_total"), family.name


def test_the_version_is_shown(metrics: Metrics) -> None:
    """The build's version is a label whose value is 1."""
    assert value(metrics, "build_info", version="1.2.3") == 1


def test_each_outcome_exists_from_the_start(metrics: Metrics) -> None:
    """Every outcome has a series at the first scrape, so that ratios have all their terms."""
    assert [value(metrics, "decisions_total", outcome=each) for each in DECISION_OUTCOMES] == [
        0.0
    ] * len(DECISION_OUTCOMES)


def test_outcomes_are_those_of_admit() -> None:
    """The outcomes are the ones that the admit step names."""
    named = DecideObserver.decided.__doc__ or ""
    assert set(re.findall(r"\w+", named.partition(":")[2])) - {"or"} == set(DECISION_OUTCOMES)


def test_children_are_resolved_once(metrics: Metrics) -> None:
    """The same label values give the same child, without resolving them again."""
    assert metrics.decisions["allowed"] is metrics.decisions["allowed"]


def test_label_sets_are_bounded(metrics: Metrics) -> None:
    """A label that takes values without end is refused before it fills memory."""
    for number in range(CHILDREN_MAX):
        metrics.stream_depth[str(number)].set(1)
    with pytest.raises(ValueError, match="too many"):
        metrics.stream_depth["one more"].set(1)


def test_replace_forgets_what_is_gone(metrics: Metrics) -> None:
    """Figures that are read as a whole leave no series of what is gone."""
    metrics.outbox_pending.replace({"webhook": 3, "stripe": 1})
    metrics.outbox_pending.replace({"webhook": 2})
    assert value(metrics, "outbox_pending", destination="webhook") == 2
    assert value(metrics, "outbox_pending", destination="stripe") is None


def test_admit_is_counted(metrics: Metrics) -> None:
    """Decisions count by outcome, and events by their number."""
    observer: DecideObserver = AdmitMetrics(metrics)
    observer.decided("refused")
    observer.accepted(5)
    assert value(metrics, "decisions_total", outcome="refused") == 1
    assert value(metrics, "events_accepted_total") == 5


def test_the_store_is_counted(metrics: Metrics) -> None:
    """Reloads and lost epochs count, and pipelines are sized."""
    observer: StoreObserver = StoreMetrics(metrics)
    observer.script_reloaded()
    observer.epoch_changed(3)
    observer.rolled_back(3)
    observer.pipeline_finished(7, 0.002)
    assert value(metrics, "redis_script_reloads_total") == 1
    assert value(metrics, "redis_epoch_changes_total") == 1
    assert value(metrics, "redis_rollbacks_total") == 1
    assert value(metrics, "script_batch_operations_sum") == 7


def test_calls_are_counted_and_timed(metrics: Metrics) -> None:
    """A call is in flight until it ends, and is then timed by method and code."""
    observer: EdgeObserver = EdgeMetrics(metrics)
    observer.calls_started(1)
    assert value(metrics, "rpc_in_flight") == 1
    observer.calls_ended("tallygate.v1.Quota/Consume", "OK", [0.004])
    labels = {"method": "tallygate.v1.Quota/Consume", "code": "OK"}
    assert value(metrics, "rpc_in_flight") == 0
    assert value(metrics, "rpc_duration_seconds_count", **labels) == 1
    assert value(metrics, "rpc_duration_seconds_bucket", le="0.005", **labels) == 1
    assert value(metrics, "rpc_duration_seconds_bucket", le="0.003", **labels) == 0
