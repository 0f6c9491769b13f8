"""All of Tallygate's metrics, declared and documented here and nowhere else.

Guarantees: names and units follow Prometheus's conventions; no label takes a value that a
client chooses, so the number of series is bounded; nothing is registered at import.
Refuses to know how a figure comes about, and how it is served.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from tallygate.adapters.prometheus.access import AccessMetrics
from tallygate.adapters.prometheus.children import Children
from tallygate.adapters.prometheus.completeness import CompletenessMetrics
from tallygate.adapters.prometheus.envoy import EnvoyMetrics
from tallygate.adapters.prometheus.events import EventsMetrics
from tallygate.adapters.prometheus.figures import FigureMetrics
from tallygate.adapters.prometheus.insight import InsightMetrics
from tallygate.adapters.prometheus.invoices import InvoiceMetrics
from tallygate.adapters.prometheus.journal import JournalMetrics
from tallygate.adapters.prometheus.periods import PeriodMetrics
from tallygate.adapters.prometheus.rebuild import RebuildMetrics
from tallygate.adapters.prometheus.security import SecurityMetrics
from tallygate.adapters.prometheus.stripe import StripeMetrics
from tallygate.adapters.prometheus.timings import Timings
from tallygate.adapters.prometheus.tracing import TracingMetrics
from tallygate.adapters.prometheus.trail import TrailMetrics

RPC_BUCKETS_S = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)
"""Fine around 1 to 10 ms, where a decision's median and its p99 live."""


OPERATION_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
"""Powers of two up to the largest batch that settings allow."""

DECISION_OUTCOMES = (
    *("allowed", "refused", "replayed"),
    *("recorded", "rejected", "checked", "failed"),
    *("committed", "released", "settled", "extended", "refunded", "closed"),
)
"""Granted, or reserved; refused by a limit; answered from the operation record; a fact written down
without asking; a fact kept as rejected; asked without charging; ended in an error. A reservation
settled, given back, settled in part, or kept; an event taken back; a reservation found resolved."""


class Metrics:
    """Every metric, on the registry that it is given."""

    def __init__(self, registry: CollectorRegistry, *, version: str) -> None:
        self.registry = registry
        # The text format shows when a series began as a second series of its own, which nobody
        # asks for. The switch is the library's, for the whole process.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._declare_calls()
        self._declare_decisions()
        self._declare_events()
        self._declare_ingest()
        self._declare_credits()
        self._declare_relay()
        self._declare_postgres()
        self._declare_redis()
        self._declare_outage()
        self._declare_leases()
        self.journal = JournalMetrics(registry)
        self.completeness = CompletenessMetrics(registry)
        self.rebuild = RebuildMetrics(registry)
        self.trail = TrailMetrics(registry)
        self.tracing = TracingMetrics(registry)
        self.access = AccessMetrics(registry)
        self.insight = InsightMetrics(registry)
        self.stripe = StripeMetrics(registry)
        self.periods = PeriodMetrics(registry)
        self.invoices = InvoiceMetrics(registry)
        self.figures = FigureMetrics(registry)
        self.events_http = EventsMetrics(registry)
        self.security = SecurityMetrics(registry)
        self.envoy = EnvoyMetrics(registry)
        self._declare_process(version)

    def _declare_calls(self) -> None:
        self.rpc_duration = Timings(
            "tallygate_rpc_duration_seconds",
            "Time from a call's arrival to its reply, by full method name and status code.",
            ("method", "code"),
            RPC_BUCKETS_S,
        ).register(self.registry)
        self.rpc_in_flight = self._gauge("rpc_in_flight", "Calls that are being answered now.")
        self.rpc_shed = self._counter(
            "rpc_shed_total", "Calls refused unread: too many were inside, or a stop had begun."
        )
        self.watches = self._gauge("watches", "Watches that are open now.")
        self.watched_questions = self._gauge(
            "watched_questions", "Distinct questions that the open watches ask: one read each."
        )
        self.watch_polls = self._counters(
            "watch_polls_total",
            "Reads for watches by outcome: same, changed or failed.",
            ("outcome",),
        )

    def _declare_decisions(self) -> None:
        self.decisions = self._counters(
            "decisions_total",
            "Operations by outcome: allowed, refused by a limit, replayed from the operation"
            " record, recorded, rejected, checked only, or failed with an error.",
            ("outcome",),
        )
        self.script_duration = self._histograms(
            "script_duration_seconds",
            "Time of one pipeline to Redis and back, by the script that it carries.",
            ("script",),
            RPC_BUCKETS_S,
        )
        self.script_batch = self._histogram(
            "script_batch_operations",
            "Operations that one pipeline carried.",
            OPERATION_BUCKETS,
        )
        self.admit_queue_depth = self._gauge(
            "admit_queue_depth", "Operations that wait for a pipeline."
        )
        self.admit_queue_refused = self._counter(
            "admit_queue_refused_total",
            "Operations refused as the queue was full, or too long for their deadlines.",
        )
        self.threshold_crossings = self._counter(
            "threshold_crossings_total", "Warning thresholds crossed, once per limit and window."
        )
        for outcome in DECISION_OUTCOMES:
            # From the first scrape on, so that rates and ratios have all their terms.
            self.decisions[outcome].inc(0)

    def _declare_events(self) -> None:
        self.events_accepted = self._counter(
            "events_accepted_total", "Usage events that were accepted and answered as such."
        )
        self.events_persisted = self._counter(
            "events_persisted_total", "Usage events that the ledger stored for the first time."
        )
        self.events_duplicate = self._counter(
            "events_duplicate_total", "Usage events that the ledger had already; not stored again."
        )
        self.events_dead_letter = self._counters(
            "events_dead_letter_total",
            "Stream entries that can never be stored, kept as dead-letter rows, by reason.",
            ("reason",),
        )
        self.completeness_ratio = self._gauge(
            "completeness_ratio",
            "Events in the ledger or its dead letters, over events accepted, of all sources; 1 is"
            " complete.",
        )
        self.source_gaps = self._gauge(
            "source_gaps", "Ranges of sequence numbers that the ledger misses, of all sources."
        )

    def _declare_ingest(self) -> None:
        self.ingest_lag = self._gauge(
            "ingest_lag_seconds",
            "Age of the oldest accepted event that the ledger lacks; 0 if none.",
        )
        self.stream_depth = self._gauges(
            "stream_depth", "Entries in a shard's stream, stored or not.", ("shard",)
        )
        self.stream_pending = self._gauges(
            "stream_pending", "Entries delivered to an ingester and not acknowledged.", ("shard",)
        )

        self.stream_groups_recreated = self._counter(
            "stream_groups_recreated_total",
            "Times that a stream's consumer group was lost and made anew from the first entry.",
        )
        self.stream_taken_over = self._counter(
            "stream_taken_over_total", "Entries taken over from an ingester that had left them."
        )

    def _declare_credits(self) -> None:
        self.credit_burns = self._counter(
            "credit_burns_total", "Burns of prepaid credits that the ledger posted."
        )
        self.credit_grants_given = self._counter(
            "credit_grants_given_total", "Grants of prepaid credits that counters were given."
        )
        self.credit_balances_rebuilt = self._counter(
            "credit_balances_rebuilt_total",
            "Balances whose counters were given all grants at once: new ones, and those lost.",
        )
        self.credit_balances_waiting = self._gauges(
            "credit_balances_waiting",
            "Balances whose counters lack grants: until the ledger has an older stream, as their"
            " plan has lost the limit, or as the counters refused.",
            ("reason",),
        )
        self.rollups_incomplete = self._gauge(
            "rollups_incomplete_meters", "Meters whose rollups by group lack events still."
        )

    def _declare_relay(self) -> None:
        destination = ("destination",)
        self.deliveries = self._counters(
            "deliveries_total",
            "Attempts to deliver, by destination and outcome: sent, retried, parked or stale.",
            ("destination", "outcome"),
        )
        self.outbox_age = self._gauges(
            "outbox_age_seconds", "Age of the oldest message that is not delivered.", destination
        )
        self.outbox_pending = self._gauges(
            "outbox_pending", "Messages that wait for delivery.", destination
        )
        self.outbox_parked = self._gauges(
            "outbox_parked", "Messages given up on, which an operator has to look at.", destination
        )
        self.outbox_gate_lag = self._gauge(
            "outbox_gate_lag_seconds",
            "How long an open transaction has held back messages from readers that tail.",
        )

    def _declare_postgres(self) -> None:
        self.postgres_lent = self._gauge(
            "postgres_connections_lent", "Connections to Postgres that are in use."
        )
        self.postgres_waiting = self._gauge(
            "postgres_callers_waiting", "Callers that wait for a connection to Postgres."
        )

    def _declare_redis(self) -> None:
        self.redis_posture = self._gauges(
            "redis_posture",
            "Whether Redis is set up as quotas need it, by check: 1 it is, 0 it is not.",
            ("check",),
        )
        self.redis_epoch_changes = self._counter(
            "redis_epoch_changes_total", "Times that Redis was found to have lost its counters."
        )
        self.redis_rollbacks = self._counter(
            "redis_rollbacks_total", "Times that Redis was found to hold older data than it had."
        )
        self.redis_script_reloads = self._counter(
            "redis_script_reloads_total", "Times that a script had to be loaded again."
        )

    def _declare_outage(self) -> None:
        self.breaker_state = self._gauge(
            "breaker_state", "Whether Redis is asked: 0 always, 1 by a probe just now, 2 it is not."
        )
        self.breaker_transitions = self._counters(
            "breaker_transitions_total",
            "Changes of that state, by the new one: closed, half_open or open.",
            ("state",),
        )
        self.breaker_hung = self._counter(
            "breaker_hung_total", "Operations given up because Redis did not answer in time."
        )
        self.breaker_granted_late = self._counter(
            "breaker_granted_late_total",
            "Operations that Redis turned out to have granted after they were given up.",
        )
        self.degraded_decisions = self._counters(
            "degraded_decisions_total",
            "Operations that Redis did not decide, by action: granted, recorded, refused for a"
            " spent budget, replayed, unavailable, or full for want of room in the backlog.",
            ("action",),
        )
        self.outage_backlog = self._gauge(
            "outage_backlog_operations", "Operations granted without Redis, not yet counted."
        )
        self.outage_backlog_bytes = self._gauge(
            "outage_backlog_bytes", "Memory that those take, about."
        )
        self.outage_backlog_age = self._gauge(
            "outage_backlog_age_seconds", "How long the oldest of those has waited."
        )
        self.outage_resubmitted = self._counters(
            "outage_resubmitted_total",
            "Operations granted without Redis and handed over to it, by outcome: counted, replayed"
            " as Redis had them, uncounted but recorded, or conflict.",
            ("outcome",),
        )
        self.streams_full = self._gauge(
            "streams_full", "Shards whose streams hold as much for the ledger as they may."
        )
        self.outage_lost = self._counter(
            "outage_lost_total",
            "Operations granted without Redis and lost, as the process had to end.",
        )

    def _declare_leases(self) -> None:
        self.leases_held = self._gauge("leases_held", "Leases that this sidecar holds now.")
        self.leases = self._counters(
            "leases_total",
            "Leases that were asked for, by outcome: taken, refused by a limit, or failed.",
            ("outcome",),
        )
        self.lease_grants = self._counter("lease_grants_total", "Calls granted from a lease.")
        self.lease_settled = self._counters(
            "lease_settled_total",
            "Grants that Redis was told of, by outcome: recorded, repeated as it had them already,"
            " conflict, or late as their lease was lost.",
            ("outcome",),
        )
        self.lease_unsettled = self._gauge(
            "lease_unsettled", "Calls granted from leases of which Redis may not know yet."
        )
        self.lease_lost = self._counter(
            "lease_lost_total", "Calls granted from leases and lost, as the process had to end."
        )

    def _declare_process(self, version: str) -> None:
        self.catalog_version = self._gauge("catalog_version", "Version of the catalog in use.")
        self.catalog_age = self._gauge(
            "catalog_age_seconds", "Time since the catalog in use was last confirmed as current."
        )
        self.catalog_tenants_held = self._gauge(
            "catalog_tenants_held", "Tenants that the sidecar holds in memory."
        )
        self.catalog_reads_waiting = self._gauge(
            "catalog_reads_waiting", "Tenants that are being read from Redis for waiting calls."
        )
        self.loop_iterations = self._counters(
            "loop_iterations_total",
            "Rounds of the background loops, by loop and outcome: worked, idle or failed.",
            ("loop", "outcome"),
        )
        self._gauges("build_info", "Always 1; its label is the version.", ("version",))[
            version
        ].set(1)
        self.transport = self._gauges(
            "transport_info", "Always 1; its label is what carries gRPC calls.", ("transport",)
        )
        self.ops_refused = self._counter(
            "ops_connections_refused_total",
            "Connections to the ops listener that were cut because it had too many.",
        )
        # Resident memory, open files and CPU of this process, under their usual names.
        ProcessCollector(registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"tallygate_{name}", text, registry=self.registry)

    def _counters(self, name: str, text: str, labels: tuple[str, ...]) -> Children[Counter]:
        return Children(Counter(f"tallygate_{name}", text, labels, registry=self.registry))

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"tallygate_{name}", text, registry=self.registry)

    def _gauges(self, name: str, text: str, labels: tuple[str, ...]) -> Children[Gauge]:
        return Children(Gauge(f"tallygate_{name}", text, labels, registry=self.registry))

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"tallygate_{name}", text, buckets=buckets, registry=self.registry)

    def _histograms(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Children[Histogram]:
        return Children(
            Histogram(f"tallygate_{name}", text, labels, buckets=buckets, registry=self.registry)
        )
