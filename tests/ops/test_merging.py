"""Facts about the metrics of several processes as those of one."""

from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest

from tallygate.adapters.prometheus.merging import RULES, Departed, Rule, merged, parsed, rule_of
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.processes import GroupMetrics, GroupPages


def exposed(metrics: Metrics) -> str:
    """Return what a process shows."""
    return generate_latest(metrics.registry).decode()


def values(families: Iterable[Metric], name: str) -> dict[tuple[str, ...], float]:
    """Return a metric's samples by the values of their labels, in the order of the names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


@pytest.fixture
def two() -> tuple[Metrics, Metrics]:
    """The metrics of two processes."""
    return Metrics(CollectorRegistry(), version="1"), Metrics(CollectorRegistry(), version="1")


def of(two: tuple[Metrics, Metrics]) -> list[Metric]:
    """Return both as one."""
    return merged(parsed(str(number), exposed(each)) for number, each in enumerate(two))


def test_every_gauge_has_a_rule() -> None:
    """No gauge is put together by accident, and no rule is of a gauge that is no more."""
    metrics, own = Metrics(CollectorRegistry(), version="1"), GroupMetrics(CollectorRegistry())
    gauges = {
        family.name
        for registry in (metrics.registry, own.registry)
        for family in registry.collect()
        if family.type == "gauge" and not family.name.startswith("process_")
    }
    assert gauges == {*RULES}


def test_nothing_is_left_out(two: tuple[Metrics, Metrics]) -> None:
    """Each name that a process shows is in what the group shows, and no other."""
    alone = {
        (sample.name, *sorted(sample.labels))
        for family in parsed("0", exposed(two[0])).families
        for sample in family.samples
        if rule_of(family) is not Rule.EACH
    }
    together = {
        (sample.name, *sorted(sample.labels))
        for family in of(two)
        for sample in family.samples
        if rule_of(family) is not Rule.EACH
    }
    assert together == alone


def test_counters_are_summed(two: tuple[Metrics, Metrics]) -> None:
    """A counter is the sum, by its labels; what one process alone has counted is there."""
    for number, metrics in enumerate(two, 1):
        metrics.decisions["allowed"].inc(number)
        metrics.events_accepted.inc(10 * number)
    two[1].decisions["refused"].inc(5)
    found = values(of(two), "tallygate_decisions_total")
    assert found["allowed",] == 3
    assert found["refused",] == 5
    assert values(of(two), "tallygate_events_accepted_total") == {(): 30}


def test_histograms_are_summed(two: tuple[Metrics, Metrics]) -> None:
    """Each bucket, the count and the sum are sums, also of label sets that differ."""
    for metrics in two:
        metrics.rpc_duration.observe(("a", "OK"), [0.004])
    two[1].rpc_duration.observe(("b", "OK"), [0.5])
    families = of(two)
    buckets = values(families, "tallygate_rpc_duration_seconds_bucket")
    assert buckets["OK", "0.003", "a"] == 0
    assert buckets["OK", "0.005", "a"] == 2
    assert buckets["OK", "+Inf", "b"] == 1
    assert values(families, "tallygate_rpc_duration_seconds_count")["OK", "a"] == 2
    assert values(families, "tallygate_rpc_duration_seconds_sum")["OK", "a"] == 0.008


def test_gauges_follow_their_meaning(two: tuple[Metrics, Metrics]) -> None:
    """What is inside adds up, of states the worst is shown, of the ledger what its process says."""
    for number, metrics in enumerate(two, 1):
        metrics.rpc_in_flight.set(number)
        metrics.breaker_state.set(2 * (number - 1))
        metrics.catalog_version.set(10 - number)
    two[0].completeness_ratio.set(1)
    two[1].redis_posture["aof"].set(0)
    two[0].redis_posture["aof"].set(1)
    families = of(two)
    assert values(families, "tallygate_rpc_in_flight") == {(): 3}
    assert values(families, "tallygate_breaker_state") == {(): 2}
    assert values(families, "tallygate_catalog_version") == {(): 8}
    assert values(families, "tallygate_completeness_ratio") == {(): 1}
    assert values(families, "tallygate_redis_posture") == {("aof",): 0}
    assert values(families, "tallygate_build_info") == {("1",): 1}


def test_figures_of_a_process_say_of_which(two: tuple[Metrics, Metrics]) -> None:
    """Memory, CPU time and files are shown for each process."""
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total"):
        assert [*values(of(two), name)] == [("0",), ("1",)]


def test_what_is_gone_stays_counted(two: tuple[Metrics, Metrics]) -> None:
    """Counters keep what a process had counted that is no more, gauges do not."""
    for metrics in two:
        metrics.events_accepted.inc(7)
        metrics.rpc_in_flight.set(1)
    departed = Departed()
    for number, metrics in enumerate(two):
        departed.add(parsed(str(number), exposed(metrics)))
    anew = parsed("0", exposed(Metrics(CollectorRegistry(), version="1")))
    families = merged([anew, departed.source])
    assert values(families, "tallygate_events_accepted_total") == {(): 14}
    assert values(families, "tallygate_rpc_in_flight") == {(): 0}
    assert [*values(families, "process_cpu_seconds_total")] == [("0",)]


def test_who_does_not_answer_is_shown_as_last(two: tuple[Metrics, Metrics]) -> None:
    """A process that cannot be asked keeps its figures, and one that has left its counts."""
    own = GroupMetrics(CollectorRegistry())
    pages = GroupPages(own)
    answers = True

    def ask() -> str:
        if not answers:
            raise ConnectionRefusedError
        return exposed(two[0])

    pages.join("0", ask)
    two[0].events_accepted.inc(3)
    two[0].rpc_in_flight.set(2)
    assert values(pages.collect(), "tallygate_events_accepted_total") == {(): 3}
    answers = False
    assert values(pages.collect(), "tallygate_rpc_in_flight") == {(): 2}
    pages.leave("0")
    assert values(pages.collect(), "tallygate_rpc_in_flight") == {}
    assert values(pages.collect(), "tallygate_events_accepted_total") == {(): 3}


def test_the_group_shows_its_own(two: tuple[Metrics, Metrics]) -> None:
    """Restarts and refused connections of the one that watches are among the figures."""
    own = GroupMetrics(CollectorRegistry())
    pages = GroupPages(own)
    pages.join("0", lambda: exposed(two[0]))
    two[0].ops_refused.inc(2)
    own.ops_refused.inc()
    own.restarts["0", "ended"].inc()
    registry = CollectorRegistry()
    registry.register(pages)
    text = generate_latest(registry).decode()
    assert "tallygate_ops_connections_refused_total 3.0" in text
    assert 'tallygate_process_restarts_total{cause="ended",process="0"} 1.0' in text
    assert 'process_open_fds{process="group"}' in text
