"""ledger · frozen totals ─▶ [ verify_periods ] ─▶ differences: closed periods, computed anew.

If we die here, nothing has happened: verifying changes nothing.

Guarantees: each revision's events are hashed and added up again; a digest, a number of events or a
total that is not what stands in the books is found.
Refuses to know: SQL, and how findings are shown.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from tallygate.domain.ids import TenantId
from tallygate.domain.period import PeriodKey
from tallygate.domain.period_digest import Covered
from tallygate.flow.cover_period import cover, differences
from tallygate.ports.period import (
    BillingPeriod,
    CoveredEvents,
    PeriodQuery,
    PeriodReader,
    Revision,
    SealedRevision,
    Span,
)

PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class PeriodFinding:
    """What was found of a revision: `differs` names what is not as it stands, empty for nothing."""

    period: BillingPeriod
    revision: Revision
    events: int
    differs: tuple[str, ...] = ()


class VerifyPeriods:
    """Computes closed revisions anew."""

    def __init__(self, reader: PeriodReader, events: CoveredEvents) -> None:
        self._reader = reader
        self._events = events

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
            covered = await cover(self._events, sealed)
            found = []
            if covered.digest.hex() != revision.digest:
                found.append("sha256")
            if covered.events != revision.events:
                found.append("events")
            past = await self._reader.frozen(*place, number - 1) if number > 1 else ()
            late = await self._reader.adjustments(*place, number) if number == 1 else ()
            found += [
                f"{each.kind} of {each.meter}"
                for each in differences(
                    covered, await self._reader.frozen(*place, number), past, late
                )
            ]
            yield PeriodFinding(period, revision, covered.events, tuple(found))
            # The next one is held against what was told, and not against what is there now.
            before = Covered(revision.events, bytes.fromhex(revision.digest), {})
