"""What the handing over of credits tells of itself, as metrics and as log lines.

Guarantees: a balance whose grants are refused is logged once for each refusal that is new to it.
Refuses to know who calls: the class has the shape of an observer protocol and imports none.
"""

from collections.abc import Mapping
from typing import Final

import structlog

from tallygate.adapters.prometheus.metrics import Metrics

log = structlog.get_logger(__name__)

# Told balances that are remembered; past it, each may be told once more.
TOLD_MAX: Final = 10_000


class CreditMetrics:
    """Counts grants given to counters, and shows which balances wait."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._told: set[tuple[str, str, str]] = set()

    def given(self, grants: int, rebuilt: int) -> None:
        """Count grants given, and balances whose counters got all anew."""
        self._metrics.credit_grants_given.inc(grants)
        self._metrics.credit_balances_rebuilt.inc(rebuilt)

    def refused(self, tenant_id: str, limit_id: str, outcome: str) -> None:
        """Log a balance whose grants were not taken."""
        key = (tenant_id, limit_id, outcome)
        if key in self._told:
            return
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told.add(key)
        log.error("credit_refused", tenant_id=tenant_id, limit_id=limit_id, outcome=outcome)

    def waiting(self, balances: Mapping[str, int]) -> None:
        """Show how many balances wait, by reason."""
        self._metrics.credit_balances_waiting.replace(balances)
