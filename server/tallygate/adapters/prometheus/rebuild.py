"""What rebuilding and correcting counters tell of themselves, as metrics and as log lines.

Guarantees: a rebuilding that waits for the same thing is logged when it begins to, not at each try.
Refuses to know who calls: the class has the shape of observer protocols and imports none.
"""

from collections.abc import Mapping
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

log = structlog.get_logger(__name__)

SECONDS: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0)
"""From an empty ledger to one with a month of a large installation's events."""


class RebuildMetrics:
    """Every metric of rebuilding, on the registry that it is given, and what sets them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tallygate_quota_{name}", text, labels, registry=registry)

        self._renewals = counter(
            "epochs_renewed_total",
            "Epochs of shards that were given up: of the past, behind the ledger's numbers,"
            " rebuilt in part, or of before epochs were closed.",
            "reason",
        )
        self._accounts = counter(
            "accounts_rebuilt_total", "Accounts that were given what the ledger has of them."
        )
        self._refused = counter(
            "accounts_refused_total", "Accounts that could not be given it, by outcome.", "outcome"
        )
        self._corrections = counter(
            "corrections_total", "Corrections of counters that were finished.", "outcome"
        )
        self._due = Gauge(
            "tallygate_quota_corrections_pending",
            "Corrections that counters are due.",
            registry=registry,
        )
        self._shut = Gauge(
            "tallygate_quota_shards_shut",
            "Shards that are being rebuilt, by what they wait for.",
            ("waits_for",),
            registry=registry,
        )
        self._seconds = Histogram(
            "tallygate_quota_rebuild_seconds",
            "Time from a shard's being seen shut to its deciding again.",
            buckets=SECONDS,
            registry=registry,
        )
        self._waits: Mapping[str, int] = {}

    def renewed(self, shard: int, reason: str) -> None:
        """Count an epoch that was given up."""
        self._renewals.labels(reason).inc()
        log.warning("counter_epoch_renewed", shard=shard, reason=reason)

    def applied(self, accounts: int) -> None:
        """Count accounts that were given their sums."""
        self._accounts.inc(accounts)

    def refused(self, outcome: str) -> None:
        """Count an account that could not be given its sums."""
        self._refused.labels(outcome).inc()
        log.error("counter_not_rebuilt", outcome=outcome)

    def opened(self, shard: int, seconds: float) -> None:
        """Take the time of a shard's rebuilding."""
        self._seconds.observe(seconds)
        log.info("counter_shard_opened", shard=shard, seconds=round(seconds, 3))

    def waiting(self, shards: Mapping[str, int]) -> None:
        """Show which shards are shut, and log what they have begun to wait for."""
        for reason, count in shards.items():
            self._shut.labels(reason).set(count)
            if count and not self._waits.get(reason):
                severe = log.error if reason == "catalog" else log.warning
                severe("counter_shards_shut", waits_for=reason, shards=count)
        self._waits = shards

    def corrected(self, outcome: str, corrections: int) -> None:
        """Count corrections that were finished."""
        self._corrections.labels(outcome).inc(corrections)

    def pending(self, corrections: int) -> None:
        """Show how many corrections are due."""
        self._due.set(corrections)
