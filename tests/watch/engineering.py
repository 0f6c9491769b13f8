"""The dashboard of those who run it: rates, latency, lag, completeness, journal, outbox, Redis.

Owns its panels. Refuses to know how they are drawn.
"""

from typing import Final

from .panel import Dashboard, Kind, Panel, Row, Target, Unit

_ON: Final = "and on (cluster, namespace, job, instance) tallygate_role_info{HERE,role="
_CALLS: Final = r'HERE,method!~".*/(Watch|Stream).*"'


def _of(expr: str, role: str) -> str:
    return f'({expr} {_ON}"{role}"}})'


def _quantiles(metric: str, matchers: str) -> tuple[Target, ...]:
    return tuple(
        Target(
            f"histogram_quantile({share}, sum by (le)"
            f" (rate({metric}_bucket{{{matchers}}}[$__rate_interval])))",
            f"p{share.removeprefix('0.').ljust(2, '0')}",
        )
        for share in ("0.5", "0.9", "0.99")
    )


def _rate(metric: str, by: str, matchers: str = "HERE") -> Target:
    return Target(
        f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))", f"{{{{{by}}}}}"
    )


_GLANCE: Final = Row(
    "At a glance",
    (
        Panel(
            "Completeness", "Share of the numbers given out that is accounted for or on its way.",
            (Target(
                "1 - max(" + _of("(tallygate_completeness_lost{HERE}"
                " + tallygate_completeness_unaccounted{HERE})", "ingest") + ") / (max("
                + _of("tallygate_completeness_accepted{HERE}", "ingest") + ") > 0)", "settled"),),
            Unit.SHARE, Kind.FIGURE, 4, 1.0, less=True, runbook="TallygateCompletenessBelowOne",
        ),
        Panel(
            "Ingest lag", "Age of the oldest accepted entry that the ledger lacks.",
            (Target("max(" + _of("tallygate_ingest_lag_seconds{HERE}", "ingest") + ")", "lag"),),
            Unit.SECONDS, Kind.FIGURE, 4, 60, runbook="TallygateIngestLag",
        ),
        Panel(
            "Calls failed", "Share of calls that ended in a fault of ours, over five minutes.",
            (Target(
                "(sum(rate(tallygate_rpc_duration_seconds_count{HERE,code=~"
                '"UNAVAILABLE|INTERNAL|UNKNOWN|DATA_LOSS|DEADLINE_EXCEEDED"}[5m])) or vector(0))'
                " / sum(rate(tallygate_rpc_duration_seconds_count{HERE}[5m]))", "failed"),),
            Unit.SHARE, Kind.FIGURE, 4, 0.001, runbook="TallygateErrorBudgetBurnFast",
        ),
        Panel(
            "Redis asked", "0: all sidecars ask Redis. 2: at least one has stopped asking.",
            (Target("max(tallygate_breaker_state{HERE})", "breaker"),),
            Unit.COUNT, Kind.FIGURE, 4, 1, runbook="TallygateRedisAway",
        ),
        Panel(
            "Oldest undelivered", "Age of the oldest message that some destination lacks.",
            (Target("max(tallygate_outbox_age_seconds{HERE})", "age"),),
            Unit.SECONDS, Kind.FIGURE, 4, 900, runbook="TallygateOutboxAge",
        ),
        Panel(
            "Processes", "Processes by what they do.",
            (Target("count by (role) (tallygate_role_info{HERE})", "{{role}}"),),
            Unit.COUNT, Kind.FIGURE, 4, runbook="TallygateRoleMissing",
        ),
    ),
)  # fmt: skip

_CALLED: Final = Row(
    "Calls and decisions",
    (
        Panel(
            "Calls by code", "Calls a second by their status code.",
            (_rate("tallygate_rpc_duration_seconds_count", "code"),), Unit.PER_SECOND,
            runbook="TallygateErrorBudgetBurnFast",
        ),
        Panel(
            "Latency of calls", "From arrival to reply, streams left out.",
            _quantiles("tallygate_rpc_duration_seconds", _CALLS), Unit.SECONDS,
            runbook="TallygateLatencyBudgetBurnFast",
        ),
        Panel(
            "Latency by method, p99", "From arrival to reply, by method.",
            (Target(
                "histogram_quantile(0.99, sum by (le, method) (rate("
                f"tallygate_rpc_duration_seconds_bucket{{{_CALLS}}}[$__rate_interval])))",
                "{{method}}"),), Unit.SECONDS, runbook="TallygateLatencyBudgetBurnFast",
        ),
        Panel(
            "Decisions", "Operations a second by outcome; `refused` is by a limit.",
            (_rate("tallygate_decisions_total", "outcome"),), Unit.PER_SECOND, stacked=True,
        ),
        Panel(
            "Redis, one pipeline and back", "Time of the script with its way there and back.",
            _quantiles("tallygate_script_duration_seconds", "HERE"), Unit.SECONDS,
            runbook="TallygateLatencyBudgetBurnFast",
        ),
        Panel(
            "Queue and what is refused", "Operations that wait, and calls refused for it.",
            (
                Target("sum(tallygate_admit_queue_depth{HERE})", "waiting"),
                Target("sum(tallygate_rpc_in_flight{HERE})", "in flight"),
                Target(
                    "sum(rate(tallygate_admit_queue_refused_total{HERE}[$__rate_interval])"
                    " + rate(tallygate_rpc_shed_total{HERE}[$__rate_interval]))",
                    "refused a second"),
            ), runbook="TallygateOverloaded",
        ),
    ),
)  # fmt: skip

_WAY: Final = Row(
    "Events on their way to the ledger",
    (
        Panel(
            "Accepted and persisted", "Events a second into the streams, and into the ledger.",
            tuple(
                Target(f"sum(rate(tallygate_events_{what}_total{{HERE}}[$__rate_interval]))", what)
                for what in ("accepted", "persisted", "duplicate")
            ), Unit.PER_SECOND, runbook="TallygateIngestLag",
        ),
        Panel(
            "Lag", "Age of the oldest accepted entry that the ledger lacks, as each ingester sees.",
            (Target(
                "max by (instance) (" + _of("tallygate_ingest_lag_seconds{HERE}", "ingest") + ")",
                "{{instance}}"),), Unit.SECONDS, bad=60, runbook="TallygateIngestLag",
        ),
        Panel(
            "Streams", "Entries in the streams, and those given to an ingester.",
            (
                Target("sum(max by (shard) (tallygate_stream_depth{HERE}))", "entries"),
                Target("sum(max by (shard) (tallygate_stream_pending{HERE}))", "given out"),
            ), runbook="TallygateStreamsFull",
        ),
        Panel(
            "Where accepted events are", "Numbers that the ledger lacks, by where they are.",
            tuple(
                Target(
                    "max(" + _of(f"tallygate_completeness_{what}{{HERE}}", "ingest") + ")",
                    what.replace("_", " "))
                for what in ("in_stream", "awaited", "dead_letters", "lost", "unaccounted")
            ), runbook="TallygateCompletenessBelowOne",
        ),
        Panel(
            "Gaps", "Ranges of numbers that the ledger misses though it has later ones.",
            (Target("max(" + _of("tallygate_source_gaps{HERE}", "ingest") + ")", "gaps"),),
            bad=1, runbook="TallygateSourceGap",
        ),
        Panel(
            "Dead letters", "Events kept as dead letters, by reason, in the time shown.",
            (Target(
                "sum by (reason) (increase(tallygate_events_dead_letter_total{HERE}[$__range]))",
                "{{reason}}"),), Unit.COUNT, Kind.BARS, bad=1, runbook="TallygateDeadLetters",
        ),
    ),
)  # fmt: skip

_JOURNAL: Final = Row(
    "Journal, and while Redis is away",
    (
        Panel(
            "Journal's share of its room", "Size on disk over TALLYGATE_JOURNAL_MAX_BYTES.",
            (Target(
                "max by (instance) (tallygate_journal_bytes{HERE}"
                " / (tallygate_journal_max_bytes{HERE} > 0))", "{{instance}}"),),
            Unit.SHARE, bad=0.8, runbook="TallygateJournalFilling",
        ),
        Panel(
            "What journals hold", "Events unconfirmed, operations that are nowhere else.",
            (
                Target("sum(tallygate_journal_unconfirmed_events{HERE})", "events unconfirmed"),
                Target("sum(tallygate_journal_pending_operations{HERE})", "operations pending"),
                Target("sum(tallygate_journal_held_reservations{HERE})", "reservations"),
            ), runbook="TallygateJournalUnconfirmed",
        ),
        Panel(
            "Sync of the journal", "Time of one sync of the disk.",
            _quantiles("tallygate_journal_sync_seconds", "HERE"), Unit.SECONDS,
            runbook="TallygateJournalUnwell",
        ),
        Panel(
            "Breaker", "0: Redis is asked. 1: a probe asks it. 2: it is not asked.",
            (Target("max by (instance) (tallygate_breaker_state{HERE})", "{{instance}}"),),
            bad=1, runbook="TallygateRedisAway",
        ),
        Panel(
            "Backlog of an outage", "Granted without Redis, and not counted yet.",
            (Target("sum(tallygate_outage_backlog_operations{HERE})", "operations"),),
            runbook="TallygateRedisAway",
        ),
        Panel(
            "Shards that are shut", "Shards whose limits are not decided by counters.",
            (Target("sum(tallygate_streams_full{HERE})", "streams full"),
             Target("sum(tallygate_quota_corrections_pending{HERE})", "corrections due")),
            runbook="TallygateCountersShut",
        ),
    ),
)  # fmt: skip

_LEAVING: Final = Row(
    "Outbox",
    (
        Panel(
            "Deliveries", "Attempts a second by destination and outcome.",
            (Target(
                "sum by (destination, outcome)"
                " (rate(tallygate_deliveries_total{HERE}[$__rate_interval]))",
                "{{destination}} {{outcome}}"),), Unit.PER_SECOND, runbook="TallygateOutboxAge",
        ),
        Panel(
            "Age of the oldest message", "By destination.",
            (Target(
                "max by (destination) (tallygate_outbox_age_seconds{HERE})", "{{destination}}"),),
            Unit.SECONDS, bad=900, runbook="TallygateOutboxAge",
        ),
        Panel(
            "Waiting and parked", "Messages that wait, and those given up on.",
            (
                Target("max by (destination) (tallygate_outbox_pending{HERE})",
                       "{{destination}} waiting"),
                Target("max by (destination) (tallygate_outbox_parked{HERE})",
                       "{{destination}} parked"),
            ), runbook="TallygateMessagesParked",
        ),
    ),
)  # fmt: skip

_STORES: Final = Row(
    "Redis, Postgres, processes",
    (
        Panel(
            "Redis' posture", "1 where Redis is set up as quotas need it.",
            (Target("min by (check) (tallygate_redis_posture{HERE})", "{{check}}"),),
            Unit.STATE, Kind.BARS, bad=1, less=True, runbook="TallygateRedisPosture",
        ),
        Panel(
            "Counters lost", "Times that shards lost their counters, or held older data.",
            (
                Target("max(increase(tallygate_redis_epoch_changes_total{HERE}[$__range]))",
                       "epochs"),
                Target("max(increase(tallygate_redis_rollbacks_total{HERE}[$__range]))",
                       "older copies"),
            ), Unit.COUNT, Kind.BARS, bad=1, runbook="TallygateRedisEpochChanged",
        ),
        Panel(
            "Connections to Postgres", "In use, and callers that wait for one.",
            (
                Target("sum(tallygate_postgres_connections_lent{HERE})", "in use"),
                Target("sum(tallygate_postgres_callers_waiting{HERE})", "waiting"),
            ), runbook="TallygatePostgresBusy",
        ),
        Panel(
            "CPU", "Cores that each process uses.",
            (Target(
                "sum by (job, instance) (rate(process_cpu_seconds_total{HERE}[$__rate_interval])"
                " and on (cluster, namespace, job, instance) tallygate_build_info{HERE})",
                "{{job}} {{instance}}"),), Unit.CORES,
        ),
        Panel(
            "Memory", "Resident memory of each process.",
            (Target(
                "sum by (job, instance) (process_resident_memory_bytes{HERE}"
                " and on (cluster, namespace, job, instance) tallygate_build_info{HERE})",
                "{{job}} {{instance}}"),), Unit.BYTES, runbook="TallygateRestarting",
        ),
        Panel(
            "Loops that fail", "Rounds a second that failed, by loop.",
            (Target(
                "sum by (loop) (rate(tallygate_loop_iterations_total"
                '{HERE,outcome="failed"}[$__rate_interval])) or '
                "0 * sum by (loop) (rate(tallygate_loop_iterations_total"
                '{HERE,outcome!="failed"}[$__rate_interval]))', "{{loop}}"),),
            Unit.PER_SECOND, runbook="TallygateLoopFailing",
        ),
    ),
)  # fmt: skip

ENGINEERING: Final = Dashboard(
    "engineering",
    "Engineering",
    "Whether Tallygate decides, in time, and whether everything that was accepted arrives.",
    (_GLANCE, _CALLED, _WAY, _JOURNAL, _LEAVING, _STORES),
)
