"""The metrics of several processes as those of one.

Guarantees: counters and histograms are summed and never fall while a process is replaced, but for
what it had counted since it was last looked at; each gauge is put together as its meaning asks.
Refuses to know: where the figures come from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0"
"""What is asked for where exemplars are wanted."""
END: Final = "# EOF\n"
PROCESS_LABEL: Final = "process"
LEAD: Final = "0"
"""The process that has the further roles: only it knows of ledger and outbox."""
LASTING: Final = ("counter", "histogram")
"""What goes on where a process begins anew."""


class Rule(StrEnum):
    """How a gauge of several processes becomes one."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"
    LEAD = "lead"
    EACH = "each"


RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(
        (
            "tallygate_rpc_in_flight",
            "tallygate_watches",
            "tallygate_watched_questions",
            "tallygate_admit_queue_depth",
            "tallygate_postgres_connections_lent",
            "tallygate_postgres_callers_waiting",
            "tallygate_outage_backlog_operations",
            "tallygate_outage_backlog_bytes",
            "tallygate_leases_held",
            "tallygate_lease_unsettled",
            "tallygate_journal_unconfirmed_events",
            "tallygate_journal_pending_operations",
            "tallygate_journal_held_reservations",
            "tallygate_journal_bytes",
            "tallygate_journal_max_bytes",
            "tallygate_journal_queued_bytes",
            "tallygate_catalog_reads_waiting",
            "tallygate_process_up",
            "tallygate_processes_handing_in",
            "tallygate_span_queue_depth",
        ),
        Rule.SUM,
    ),
    # The worst of them, and of what all see alike any of them.
    **dict.fromkeys(
        (
            "tallygate_breaker_state",
            "tallygate_outage_backlog_age_seconds",
            "tallygate_streams_full",
            "tallygate_journal_state",
            "tallygate_journal_oldest_seconds",
            "tallygate_catalog_age_seconds",
            "tallygate_catalog_tenants_held",
            "tallygate_build_info",
            "tallygate_transport_info",
            "tallygate_role_info",
        ),
        Rule.MAX,
    ),
    **dict.fromkeys(
        (
            "tallygate_redis_posture",
            "tallygate_catalog_version",
            "tallygate_certificate_expiry_timestamp_seconds",
        ),
        Rule.MIN,
    ),
    # The others, which have no such role, show 0.
    **dict.fromkeys(
        (
            "tallygate_token_keys",
            "tallygate_control_open",
            "tallygate_completeness_ratio",
            "tallygate_completeness_accepted",
            "tallygate_completeness_persisted",
            "tallygate_completeness_dead_letters",
            "tallygate_completeness_in_stream",
            "tallygate_completeness_awaited",
            "tallygate_completeness_lost",
            "tallygate_completeness_unaccounted",
            "tallygate_completeness_age_seconds",
            "tallygate_anomaly_series",
            "tallygate_anomaly_lag_seconds",
            "tallygate_reconcile_accuracy_ratio",
            "tallygate_reconcile_pairs",
            "tallygate_reconcile_drift_units",
            "tallygate_reconcile_age_seconds",
            "tallygate_quota_corrections_pending",
            "tallygate_quota_shards_shut",
            "tallygate_source_gaps",
            "tallygate_ingest_lag_seconds",
            "tallygate_stream_depth",
            "tallygate_stream_pending",
            "tallygate_credit_balances_waiting",
            "tallygate_outbox_age_seconds",
            "tallygate_outbox_pending",
            "tallygate_outbox_parked",
            "tallygate_outbox_gate_lag_seconds",
            "tallygate_periods",
            "tallygate_periods_held",
            "tallygate_periods_held_age_seconds",
            "tallygate_invoices_due",
            "tallygate_invoices_held",
            "tallygate_invoices_held_age_seconds",
            "tallygate_rollups_incomplete_meters",
            "tallygate_stripe_open",
            "tallygate_stripe_late",
            "tallygate_stripe_held_back",
            "tallygate_stripe_oldest_seconds",
            "tallygate_usage_units",
            "tallygate_usage_events",
            "tallygate_usage_tenants",
            "tallygate_usage_meters_left_out",
            "tallygate_tenant_usage_units",
            "tallygate_revenue_preview_amount",
            "tallygate_revenue_preview_tenants",
            "tallygate_figures_age_seconds",
            "tallygate_audit_head",
            "tallygate_audit_waiting",
        ),
        Rule.LEAD,
    ),
}
"""By name; what is missing here, as the `process_*` figures, is shown for each process."""

Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Source:
    """The metrics of one process."""

    process: str
    families: Sequence[Metric]


def parsed(process: str, text: str) -> Source:
    """Return the metrics of an exposition, in the text format or as OpenMetrics.

    Raises ValueError.
    """
    read = open_metrics if text.endswith(END) else text_string_to_metric_families
    return Source(process, [*read(text)])


def merged(sources: Iterable[Source]) -> list[Metric]:
    """Return the metrics of all, in the order in which they are met first."""
    found: dict[str, _Family] = {}
    for source in sources:
        for family in source.families:
            into = found.get(family.name)
            if into is None:
                into = found[family.name] = _Family(family)
            into.take(source.process, family)
    return [family.metric() for family in found.values()]


def rule_of(family: Metric) -> Rule:
    """Return how a family is put together."""
    if family.name.startswith("process_"):
        return Rule.EACH
    return Rule.SUM if family.type in LASTING else RULES.get(family.name, Rule.EACH)


class Departed:
    """What processes that are gone had counted."""

    def __init__(self) -> None:
        self._families: Sequence[Metric] = ()

    def add(self, source: Source) -> None:
        """Take in the last figures of a process."""
        lasting = [each for each in source.families if _lasts(each)]
        self._families = merged([self.source, Source("", lasting)])

    @property
    def source(self) -> Source:
        """All of it, as those of one more process."""
        return Source("", self._families)


def _lasts(family: Metric) -> bool:
    return family.type in LASTING and rule_of(family) is not Rule.EACH


class _Family:
    """One metric while it is put together."""

    def __init__(self, like: Metric) -> None:
        self._like = like
        self._rule = rule_of(like)
        self._values: dict[Key, float] = {}
        # Of each bucket the newest of all processes, whichever it was of.
        self._exemplars: dict[Key, Exemplar] = {}

    def take(self, process: str, family: Metric) -> None:
        if self._rule is Rule.LEAD and process != LEAD:
            return
        for sample in family.samples:
            labels = sample.labels
            if self._rule is Rule.EACH:
                labels = {**labels, PROCESS_LABEL: process}
            key = (sample.name, tuple(sorted(labels.items())))
            held = self._values.get(key)
            self._values[key] = sample.value if held is None else self._both(held, sample.value)
            if sample.exemplar is not None:
                self._show(key, sample.exemplar)

    def _both(self, held: float, value: float) -> float:
        match self._rule:
            case Rule.SUM:
                return held + value
            case Rule.MAX:
                return max(held, value)
            case Rule.MIN:
                return min(held, value)
            case _:
                return value

    def _show(self, key: Key, exemplar: Exemplar) -> None:
        held = self._exemplars.get(key)
        if held is None or _made_at(held) <= _made_at(exemplar):
            self._exemplars[key] = exemplar

    def metric(self) -> Metric:
        like = self._like
        made = Metric(like.name, like.documentation, like.type)
        for (name, labels), value in self._values.items():
            exemplar = self._exemplars.get((name, labels))
            made.add_sample(name, dict(labels), value, exemplar=exemplar)
        return made


def _made_at(exemplar: Exemplar) -> float:
    return float(exemplar.timestamp or 0.0)
