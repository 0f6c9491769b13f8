"""What the injector tells of itself: answers, pods without their sidecar, its certificate.

Guarantees: no label takes a value from a pod; a pod that misses its sidecar is logged once, until
it has been gone.
Refuses to know: which pods get a sidecar.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tallygate.adapters.prometheus.children import Children
from tallygate.domain.injection_missed import Missed

OUTCOMES: Final = (
    *("injected", "completed", "present", "not_asked", "excluded", "declined", "refused"),
    *("ignored", "malformed", "overloaded", "failed"),
)
BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
TOLD_MAX: Final = 20
US_PER_S: Final = 1_000_000

log = structlog.get_logger(__name__)


class _Look(Protocol):
    @property
    def asking(self) -> int: ...
    @property
    def missed(self) -> Sequence[Missed]: ...
    @property
    def by_namespace(self) -> Mapping[str, int]: ...


class InjectorMetrics:
    """The injector's own metrics, on the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.admissions: Children[Counter] = Children(
            Counter(
                "tallygate_injector_admissions_total",
                "Questions of the API server, by what became of them.",
                ("outcome",),
                registry=registry,
            )
        )
        for outcome in OUTCOMES:
            self.admissions[outcome].inc(0)
        self.duration = Histogram(
            "tallygate_injector_admission_duration_seconds",
            "Time from a question's head to its answer.",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.asking = Gauge(
            "tallygate_injector_asking_pods",
            "Running pods that ask for a sidecar, at the last look.",
            registry=registry,
        )
        self.missed = Gauge(
            "tallygate_injector_missed_pods",
            "Of these, pods that run without one.",
            registry=registry,
        )
        self.expiry = Gauge(
            "tallygate_injector_certificate_expiry_timestamp_seconds",
            "When the certificate that is served with ends.",
            registry=registry,
        )
        self.reload_errors: Children[Counter] = Children(
            Counter(
                "tallygate_injector_reload_errors_total",
                "Files that changed and cannot be used, by which: certificate or config.",
                ("what",),
                registry=registry,
            )
        )
        for what in ("certificate", "config"):
            self.reload_errors[what].inc(0)
        self._told: set[tuple[str, str]] = set()
        self._faulty: dict[str, str] = {}

    def answered(self, outcome: str, seconds: float) -> None:
        """Count an answer."""
        self.admissions[outcome].inc()
        self.duration.observe(seconds)

    def looked(self, look: _Look) -> None:
        """Show what a look found; log what it found new."""
        self.asking.set(look.asking)
        self.missed.set(sum(look.by_namespace.values()))
        known, new = {(each.namespace, each.pod) for each in look.missed}, 0
        for each in look.missed:
            if (each.namespace, each.pod) in self._told:
                continue
            new += 1
            if new <= TOLD_MAX:
                log.warning(
                    "pod_without_sidecar",
                    namespace=each.namespace,
                    pod=each.pod,
                    owner=each.owner,
                    why=each.reason,
                )
        if new > TOLD_MAX:
            log.warning("pods_without_sidecar", more=new - TOLD_MAX)
        self._told = known

    def serving(self, expires_us: int) -> None:
        """Show and log a new certificate."""
        self.expiry.set(expires_us / US_PER_S)
        self._faulty.pop("certificate", None)
        log.info("certificate_taken", expires_s=expires_us // US_PER_S)

    def reloaded(self, what: str) -> None:
        """Log that a file was read anew."""
        self._faulty.pop(what, None)
        log.info("file_taken", what=what)

    def not_reloaded(self, what: str, why: str) -> None:
        """Count a file that cannot be used; log it once for each reason."""
        self.reload_errors[what].inc()
        if self._faulty.get(what) != why:
            self._faulty[what] = why
            log.error("file_not_taken", what=what, why=why, in_use="the last good one")
