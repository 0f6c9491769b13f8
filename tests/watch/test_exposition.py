"""Row 47: what processes show is what Prometheus reads without complaint."""

import re
from collections.abc import Mapping
from decimal import Decimal

from prometheus_client import CollectorRegistry, generate_latest

from tallygate.adapters.prometheus.capture import CaptureMetrics
from tallygate.adapters.prometheus.injector import InjectorMetrics
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.processes import GroupMetrics, GroupPages
from tallygate.domain.ids import MeterName, TenantId
from tallygate.ports.figures import Amount, RevenueRound, UsageRound
from tests.docs.test_names import metrics as metrics_that_exist

from . import promtool


def busy(registry: CollectorRegistry | None = None) -> Metrics:
    """Return all metrics, each of those with labels with a series of its own."""
    metrics = Metrics(registry or CollectorRegistry(), version="1")
    InjectorMetrics(metrics.registry)
    CaptureMetrics(metrics.registry)
    metrics.rpc_duration.observe(("tallygate.v1.QuotaService/Check", "OK"), [0.004])
    _labelled(metrics.registry)
    used: Mapping[MeterName, Amount] = {MeterName("calls"): Amount(2, 5)}
    named = {(TenantId('a"b\\c'), MeterName("calls")): Amount(1, 3)}
    metrics.figures.used(UsageRound(used, named, 2, 0), UsageRound(used, named, 2, 0))
    metrics.figures.rated(RevenueRound({"EUR": Decimal("1.25")}, 2, 0))
    return metrics


def _labelled(registry: CollectorRegistry) -> None:
    """Give each metric with labels a series."""
    for each in registry._collector_to_names:
        names = getattr(each, "_labelnames", ())
        if names:
            each.labels(*(f"{name}-1" for name in names))  # type: ignore[attr-defined]


def test_what_is_shown_is_well_formed() -> None:
    """Promtool finds nothing to object to: names, types, help texts, units."""
    shown = generate_latest(busy().registry).decode()
    assert r'tenant="a\"b\\c"' in shown
    promtool.promtool("check", "metrics", text=shown)


def test_no_metric_is_left_out() -> None:
    """Each metric of docs/metrics.md that a process can have is among what was looked at."""
    shown = generate_latest(busy().registry).decode()
    own = re.compile(r"tallygate_(process_|processes_|injector_)")
    missing = [name for name in metrics_that_exist() if f"\n{name}" not in shown]
    assert [name for name in missing if not own.match(name)] == []


def test_what_the_injector_shows_is_well_formed() -> None:
    """Neither does it object to those of the injector."""
    registry = InjectorMetrics(CollectorRegistry()).registry
    _labelled(registry)
    promtool.promtool("check", "metrics", text=generate_latest(registry).decode())


def test_a_group_of_processes_is_well_formed() -> None:
    """Neither does it object to several processes' metrics as those of one."""
    own = GroupMetrics(CollectorRegistry())
    pages = GroupPages(own)
    shown = generate_latest(busy().registry).decode()
    for number in ("0", "1"):
        pages.join(number, lambda: shown)
    registry = CollectorRegistry()
    registry.register(pages)
    promtool.promtool("check", "metrics", text=generate_latest(registry).decode())
