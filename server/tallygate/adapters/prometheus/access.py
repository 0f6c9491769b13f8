"""Who was not let in, and by which keys, as metrics.

Guarantees: no figure says who called; reasons are those of the table of errors.
Refuses to know who tells it: the class has the shape of observer protocols and imports none.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge


class AccessMetrics:
    """What control tells of its callers, on the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refusals = Counter(
            "tallygate_access_refused_total",
            "Calls to control that were not let in, by the reason they were given.",
            ["reason"],
            registry=registry,
        )
        self.keys = Gauge(
            "tallygate_token_keys", "Keys that tokens are verified with.", registry=registry
        )
        self.failures = Counter(
            "tallygate_token_keys_failures_total",
            "Times that these keys could not be read.",
            registry=registry,
        )
        self.open = Gauge(
            "tallygate_control_open",
            "1 while control answers other machines without asking who calls.",
            registry=registry,
        )

        self.rotations = Counter(
            "tallygate_secret_rotations_total",
            "Times that a new secret of a file was taken over.",
            ["secret"],
            registry=registry,
        )
        self.rejections = Counter(
            "tallygate_secret_rejections_total",
            "Times that a new secret of a file could not be used, and the old one was kept.",
            ["secret"],
            registry=registry,
        )

    def refused(self, reason: str) -> None:
        """Count a call that was not let in."""
        self.refusals.labels(reason).inc()

    def keys_read(self, keys: int) -> None:
        """Show how many keys are trusted."""
        self.keys.set(keys)

    def keys_failed(self) -> None:
        """Count a failure."""
        self.failures.inc()

    def rotated(self, secret: str) -> None:
        """Count a secret that was taken over."""
        self.rotations.labels(secret).inc()

    def rejected(self, secret: str) -> None:
        """Count a secret that could not be used."""
        self.rejections.labels(secret).inc()
