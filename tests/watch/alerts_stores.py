"""Alerts on Redis, Postgres, and what processes need to decide by.

Owns the thresholds, each with its story. Refuses to know how rules are written down.
"""

from typing import Final

from .asked import HERE, role, worst
from .rule import Alert, Group, Severity, Story, series

_HERE: Final = {"cluster": "c", "namespace": "n"}
_CHECKS: Final = "persistence|persistence_healthy|noeviction|primary|appendfsync"
"""Those by which usage or counters can be lost; the others are advice."""

_REDIS: Final = (
    Alert(
        "TallygateRedisPosture",
        f'min by ({HERE}, check) (tallygate_redis_posture{{check=~"{_CHECKS}"}}) == 0',
        "5m",
        Severity.TICKET,
        "Redis is not set up as quotas need it",
        "The check {{ $labels.check }} fails in {{ $labels.namespace }}: counters or usage can be"
        " lost when Redis restarts, fails over or runs out of memory.",
        Story(
            series("tallygate_redis_posture", "1x10 0x30 1x60", check="noeviction"),
            "20m", "60m", _HERE | {"check": "noeviction"},
        ),
    ),
    Alert(
        "TallygateRedisEpochChanged",
        f"max by ({HERE}) (increase(tallygate_redis_epoch_changes_total[15m])) > 0",
        "",
        Severity.PAGE,
        "Redis lost its counters",
        "Shards in {{ $labels.namespace }} were found without their counters. They are made anew"
        " from the ledger and the journals; until then hard limits follow their on_outage rules.",
        Story(
            series("tallygate_redis_epoch_changes_total", "0x10 16x120"), "12m", "40m", _HERE,
        ),
    ),
    Alert(
        "TallygateRedisRolledBack",
        f"max by ({HERE}) (increase(tallygate_redis_rollbacks_total[15m])) > 0",
        "",
        Severity.PAGE,
        "Redis served an older copy of its data",
        "Shards in {{ $labels.namespace }} held older data than they had: a replica without the"
        " last writes took over, or an old copy was loaded. They get a new epoch.",
        Story(series("tallygate_redis_rollbacks_total", "0x10 2x120"), "12m", "40m", _HERE),
    ),
    Alert(
        "TallygateRedisAway",
        f"max by ({HERE}) (tallygate_breaker_state) == 2",
        "1m",
        Severity.PAGE,
        "Sidecars do not reach Redis",
        "Sidecars in {{ $labels.namespace }} have stopped asking Redis; the limits' on_outage rules"
        " decide.",
        Story(series("tallygate_breaker_state", "0x10 2x30 0x60"), "15m", "60m", _HERE),
    ),
    Alert(
        "TallygateCountersShut",
        f"sum by ({HERE}, waits_for)"
        " (max by (cluster, namespace, waits_for) (tallygate_quota_shards_shut)) > 0",
        "5m",
        Severity.PAGE,
        "Counters are not made anew",
        "{{ $value }} shards in {{ $labels.namespace }} decide no hard limits by their counters,"
        " and wait for: {{ $labels.waits_for }}.",
        Story(
            series("tallygate_quota_shards_shut", "0x10 4x30 0x60", waits_for="stream"),
            "20m", "60m", _HERE | {"waits_for": "stream"}, "4",
        ),
    ),
    Alert(
        "TallygateCountersOff",
        f'sum by ({HERE}, outcome) (increase(tallygate_quota_corrections_total{{outcome=~'
        '"refused|moved|uncertain"}[1h])) > 0',
        "",
        Severity.TICKET,
        "A correction could not be brought to a counter",
        "A correction in {{ $labels.namespace }} ended as {{ $labels.outcome }}: a counter may be"
        " off by it until its window ends. The ledger is not.",
        Story(
            series("tallygate_quota_corrections_total", "0x10 1x120", outcome="refused"),
            "15m", "90m", _HERE | {"outcome": "refused"},
        ),
    ),
)  # fmt: skip

_OTHERS: Final = (
    Alert(
        "TallygatePostgresBusy",
        f"max by ({HERE}, instance) (tallygate_postgres_callers_waiting) > 0",
        "10m",
        Severity.TICKET,
        "A process waits for connections to Postgres",
        "{{ $value }} callers in {{ $labels.instance }} wait for a connection; each fails after ten"
        " seconds.",
        Story(
            series("tallygate_postgres_callers_waiting", "0x10 5x30 0x60"),
            "25m", "60m", _HERE | {"instance": "i:9464"}, "5",
        ),
    ),
    Alert(
        "TallygateCatalogStale",
        f"{worst('tallygate_catalog_age_seconds', 'serve', 'instance')} > 60",
        "5m",
        Severity.TICKET,
        "A sidecar decides by an old catalog",
        "{{ $labels.instance }} has not confirmed its catalog for {{ $value | humanizeDuration }}:"
        " changed plans and limits do not reach it.",
        Story(
            role("serve") | series("tallygate_catalog_age_seconds", "0x10 300x30 0x60"),
            "20m", "60m", _HERE | {"instance": "i:9464"}, "5m 0s",
        ),
    ),
)  # fmt: skip

GROUPS: Final = (Group("tallygate-stores", _REDIS + _OTHERS),)
