"""Certificates and refused callers, as metrics and as log lines.

Guarantees: the log says once that files are bad, or that a caller is refused for a reason; the
counters count each time. No figure says who was refused.
Refuses to know who calls: the class has the shape of observer protocols and imports none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from tallygate.domain.errors import Fault
from tallygate.domain.identity import Refused

log = structlog.get_logger(__name__)

# Who holds a certificate of ours may still try every tenant: the log keeps a line for so many.
TOLD_MAX: Final = 1_000
TOLD_FAULTS_MAX: Final = 20


class SecurityMetrics:
    """What concerns transport and identity, on the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.expiry = Gauge(
            "tallygate_certificate_expiry_timestamp_seconds",
            "When the certificates of a file are over; of several authorities, the next one.",
            ("file",),
            registry=registry,
        )
        self.reloads = Counter(
            "tallygate_certificate_reloads_total",
            "Changed certificates that were taken over, by the file of the certificate.",
            ("file",),
            registry=registry,
        )
        self.errors = Counter(
            "tallygate_certificate_errors_total",
            "Looks at a file that found it bad; what was in use before stays in use.",
            ("file",),
            registry=registry,
        )
        self.identity_errors = Counter(
            "tallygate_identities_errors_total",
            "Looks at the identities file that found it bad; the last good rules stay in use.",
            registry=registry,
        )
        self.refusals = Counter(
            "tallygate_callers_refused_total",
            "Calls, and items of lists, that no rule allows their caller, by what it lacks.",
            ("why",),
            registry=registry,
        )
        for why in Refused:
            self.refusals.labels(why.value)
        self._told: set[tuple[str, str, str]] = set()
        self._bad: dict[str, str] = {}
        self._bad_rules: list[str] = []

    def watches(self, certificate: Path, others: Sequence[Path]) -> None:
        """Show what is counted by these files from the start: what appears late has no rate."""
        self.reloads.labels(str(certificate))
        for path in (certificate, *others):
            self.errors.labels(str(path))

    def expires(self, expiries: Mapping[Path, float]) -> None:
        """Show when files' certificates are over."""
        for path, at_s in expiries.items():
            self.expiry.labels(str(path)).set(at_s)

    def reloaded(self, file: Path) -> None:
        """Count a change that was taken over, and say so."""
        self.reloads.labels(str(file)).inc()
        self._bad.clear()
        log.info("certificates_changed", file=str(file))

    def certificates_refused(self, faults: Sequence[Fault]) -> None:
        """Count files that are bad, and say so once for each way in which they are."""
        for fault in faults:
            self.errors.labels(fault.path).inc()
            if self._bad.get(fault.path) != fault.message:
                self._bad[fault.path] = fault.message
                log.error("certificates_refused", file=fault.path, fault=fault.message)

    def identities_refused(self, faults: Sequence[Fault]) -> None:
        """Count rules that are bad, and say once what is wrong with them."""
        self.identity_errors.inc()
        found = [f"line {each.line}: {each.path}: {each.message}" for each in faults]
        if self._bad_rules != found:
            self._bad_rules = found
            log.error("identities_refused", faults=found[:TOLD_FAULTS_MAX])

    def identities_changed(self, rules: int) -> None:
        """Say that other rules are in use."""
        self._bad_rules = []
        log.info("identities_changed", rules=rules)

    def caller_refused(self, identity: str, service: str, why: Refused) -> None:
        """Count a refusal, and name the caller in the log the first time."""
        self.refusals.labels(why.value).inc()
        told = (identity, service, why.value)
        if told in self._told:
            return
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told.add(told)
        log.warning("caller_refused", identity=identity, service=service, why=why.value)
