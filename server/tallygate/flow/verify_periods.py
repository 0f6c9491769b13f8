"""ledger · frozen totals ─▶ [ verify_periods ] ─▶ differences: closed periods, computed anew.

If we die here, nothing has happened: verifying changes nothing.

Guarantees: each revision's events are hashed, added up and folded again; a digest, a number of
events, a total or an adjustment that is not what stands in the books is found. Where events are in
an archive alone, that is said, and nothing that differs.
Refuses to know: SQL, and how findings are shown.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from tallygate.domain.ids import TenantId
from tallygate.domain.period import MeterTotal, PeriodKey
from tallygate.domain.period_digest import Covered
from tallygate.domain.period_fold import Fold
from tallygate.flow.cover_period import cover, differences
from tallygate.ports.period import (
    Adjustment,
    BillingPeriod,
    CoveredEvents,
    PeriodFolds,
    PeriodQuery,
    PeriodReader,
    Revision,
    SealedRevision,
    Span,
)

PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class PeriodFinding:
    """What was found of a revision: `differs` names what is not as it stands, empty for nothing.

    One that is `archived` has events in an archive alone, so that nothing is computed of it.
    """

    period: BillingPeriod
    revision: Revision
    events: int
    differs: tuple[str, ...] = ()
    archived: bool = False


class VerifyPeriods:
    """Computes closed revisions anew."""

    def __init__(self, reader: PeriodReader, events: CoveredEvents, folds: PeriodFolds) -> None:
        self._reader = reader
        self._events = events
        self._folds = folds

    async def run(
        self, tenant_id: TenantId | None, start_us: int | None
    ) -> AsyncIterator[PeriodFinding]:
        """Iterate over what is found of every closed revision, of a tenant, or of one period."""
        after: tuple[str, int] | None = None
        while True:
            page = await self._reader.periods(PeriodQuery(tenant_id, limit=PAGE, after=after))
            for period in page:
                if start_us in (None, period.start_us):
                    async for finding in self._of(period):
                        yield finding
            if len(page) < PAGE:
                return
            after = page[-1].tenant_id, page[-1].start_us

    async def _of(self, period: BillingPeriod) -> AsyncIterator[PeriodFinding]:
        place = (period.tenant_id, period.start_us)
        span = Span(PeriodKey(*place), period.end_us)
        before: Covered | None = None
        for revision in await self._reader.revisions(*place):
            number = revision.number
            sealed = SealedRevision(span, number, revision.cause, revision.closed_us, before)
            if await self._folds.archived(sealed):
                yield PeriodFinding(period, revision, revision.events, archived=True)
            else:
                covered = await cover(self._events, sealed)
                differs = await self._differs(sealed, revision, covered)
                yield PeriodFinding(period, revision, covered.events, tuple(differs))
            # The next one is held against what was told, and not against what is there now.
            before = Covered(revision.events, bytes.fromhex(revision.digest), {})

    async def _differs(
        self, sealed: SealedRevision, revision: Revision, covered: Covered
    ) -> list[str]:
        """Return the names of what is not as it stands."""
        found = []
        if covered.digest.hex() != revision.digest:
            found.append("sha256")
        if covered.events != revision.events:
            found.append("events")
        place, number = (sealed.span.key.tenant_id, sealed.span.key.start_us), revision.number
        frozen = await self._reader.frozen(*place, number)
        past = await self._reader.frozen(*place, number - 1) if number > 1 else ()
        late = await self._reader.adjustments(*place, number) if number == 1 else ()
        counts = [(each.meter, each.count) for each in late]
        found += [
            f"{each.kind} of {each.meter}" for each in differences(covered, frozen, past, counts)
        ]
        return found + _refolded(await self._folds.fold_again(sealed), frozen, late)


def _refolded(
    fold: Fold, frozen: Sequence[MeterTotal], adjusted: Sequence[Adjustment]
) -> list[str]:
    """Return the names of folded numbers that events do not come to."""
    folded = {(each.meter, each.group): each for each in fold.totals}
    stand = {(each.meter, each.group): each for each in frozen if each.folded is not None}
    differ = {
        place[0] for place in folded.keys() | stand.keys() if folded.get(place) != stand.get(place)
    }
    changed = {
        (each.meter, each.group, each.closed_start_us): each.quantity for each in fold.adjustments
    }
    found = [f"quantity of {meter}" for meter in sorted(differ)]
    for late in adjusted:
        place = (late.meter, late.group, late.closed_start_us)
        if changed.get(place, late.quantity) != late.quantity:
            found.append(f"adjustment of {late.meter}")
    return found
