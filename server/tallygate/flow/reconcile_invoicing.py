"""closed periods · invoices ─▶ [ reconcile invoicing ] ─▶ verdicts, before and after each invoice.

If we die here after the results of a period and before the note of it, it is reconciled again under
another run; a drift is told once all the same.

Guarantees: each revision of a closed period is reconciled before it counts as looked at, and each
revision of an invoice after it was written; what drifts is looked at again until it does not.
Refuses to know: SQL, and who issues invoices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tallygate.domain.drift import spelled
from tallygate.domain.reconcile import Reconciled, Verdict
from tallygate.domain.window import DAY_US, HOUR_US
from tallygate.flow.reconcile import Reconcile
from tallygate.ports import Clock
from tallygate.ports.reconcile import ReconcileStore, RunPart
from tallygate.ports.reconcile_invoicing import (
    DueAsked,
    InvoicedPeriod,
    InvoicingNote,
    InvoicingStore,
    Kind,
)

# A round is some seconds; a month's end has a period of every tenant.
PERIODS_MAX: Final = 20
# As long as Stripe takes usage, and so as long as anything can be done about it.
RECENT_US: Final = 35 * DAY_US
AGAIN_US: Final = HOUR_US
_RANK: Final = (
    *(Verdict.DRIFT, Verdict.UNKNOWN, Verdict.ARCHIVED),
    *(Verdict.IN_FLIGHT, Verdict.LATE, Verdict.EXACT),
)


class InvoicingObserver(Protocol):
    """What reconciling around invoices tells."""

    def checked(self, kind: str, verdicts: Mapping[str, int]) -> None:
        """So many pairs came to each verdict in a run of that kind."""

    def accurate(self, kind: str, pairs: int, exact: int) -> None:
        """Of so many pairs of a kind so many were exact, of late."""


@dataclass(frozen=True, slots=True)
class InvoicingParts:
    """What reconciling around invoices works with."""

    reconcile: Reconcile
    results: ReconcileStore
    invoicing: InvoicingStore
    clock: Clock
    observer: InvoicingObserver


@dataclass(frozen=True, slots=True)
class InvoicingCounts:
    """What one run did; `more` says that others are due."""

    periods: int = 0
    drifting: int = 0
    more: bool = False


@dataclass(slots=True)
class InvoicingReconcile:
    """Reconciles periods once they are closed, and invoices once they are written."""

    parts: InvoicingParts

    async def run_once(self) -> InvoicingCounts:
        """Reconcile some of what is due, of either kind."""
        now_us = self.parts.clock.now_us()
        asked = DueAsked(now_us - RECENT_US, now_us - AGAIN_US, PERIODS_MAX)
        periods, drifting, more = 0, 0, False
        for kind in Kind:
            due = await self.parts.invoicing.due(kind, asked)
            more = more or len(due) == PERIODS_MAX
            for each in due:
                periods += 1
                drifting += await self.check(kind, each) is Verdict.DRIFT
        for kind, (pairs, exact) in (
            await self.parts.invoicing.accuracy(now_us - RECENT_US)
        ).items():
            self.parts.observer.accurate(kind.value, pairs, exact)
        return InvoicingCounts(periods, drifting, more)

    async def check(self, kind: Kind, of: InvoicedPeriod) -> Verdict:
        """Reconcile a period now and keep what it came to; return the worst of its verdicts.

        Whoever issues an invoice asks this first, and holds it where the verdict is a drift.
        """
        parts = self.parts
        results = await parts.reconcile.of_period(of.tenant_id, of.period)
        await self.keep(kind, of, results)
        return worst(results)

    async def keep(self, kind: Kind, of: InvoicedPeriod, results: Sequence[Reconciled]) -> None:
        """Keep results of a period as a run of their own, and have new drifts told."""
        parts, now_us = self.parts, self.parts.clock.now_us()
        place = f"{spelled(now_us)}-{of.tenant_id}-{spelled(of.period.start_us)}-{of.revision}"
        run_id = f"{kind.value}-{place}"
        await parts.results.begin(run_id)
        await parts.results.add(RunPart(run_id, "", of.tenant_id, now_us, results, last=True))
        verdicts = [each.verdict for each in results]
        await parts.invoicing.note(
            InvoicingNote(
                kind,
                of,
                run_id,
                worst(results),
                len(results),
                verdicts.count(Verdict.EXACT),
                now_us,
            )
        )
        parts.observer.checked(
            kind.value, {each.value: verdicts.count(each) for each in set(verdicts)}
        )


def worst(results: Sequence[Reconciled]) -> Verdict:
    """Return the verdict of all pairs together: the first that any has; exact without any."""
    found = {each.verdict for each in results}
    return next((each for each in _RANK if each in found), Verdict.EXACT)
