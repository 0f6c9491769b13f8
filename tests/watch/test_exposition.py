"""Row 47: what processes show is what Prometheus reads without complaint."""

from collections.abc import Mapping
from decimal import Decimal

from prometheus_client import CollectorRegistry, generate_latest

from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.processes import GroupMetrics, GroupPages
from tallygate.domain.ids import MeterName, TenantId
from tallygate.ports.figures import Amount, RevenueRound, UsageRound
from tests.docs.test_names import metrics as metrics_that_exist

from . import promtool


def busy(registry: CollectorRegistry | None = None) -> Metrics:
    """Return all metrics, each of those with labels with a series of its own."""
    metrics = Metrics(registry or CollectorRegistry(), version="1")
    metrics.rpc_duration.observe(("tallygate.v1.QuotaService/Check", "OK"), [0.004])
    for each in metrics.registry._collector_to_names:
        names = getattr(each, "_labelnames", ())
        if names:
            each.labels(*(f"{name}-1" for name in names))  # type: ignore[attr-defined]
    used: Mapping[MeterName, Amount] = {MeterName("calls"): Amount(2, 5)}
    named = {(TenantId('a"b\\c'), MeterName("calls")): Amount(1, 3)}
    metrics.figures.used(UsageRound(used, named, 2, 0), UsageRound(used, named, 2, 0))
    metrics.figures.rated(RevenueRound({"EUR": Decimal("1.25")}, 2, 0))
    return metrics


def test_what_is_shown_is_well_formed() -> None:
    """Promtool finds nothing to object to: names, types, help texts, units."""
    shown = generate_latest(busy().registry).decode()
    assert r'tenant="a\"b\\c"' in shown
    promtool.promtool("check", "metrics", text=shown)


def test_no_metric_is_left_out() -> None:
    """Each metric of docs/metrics.md that a process can have is among what was looked at."""
    shown = generate_latest(busy().registry).decode()
    group = {"process_up", "process_restarts_total", "processes_handing_in"}
    missing = [name for name in metrics_that_exist() if f"\n{name}" not in shown]
    assert {*missing} == {f"tallygate_{name}" for name in group}


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
