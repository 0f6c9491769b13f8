"""sealed revision ─▶ [ finish ] ─▶ folded totals · hash ─▶ outbox: what was sealed is closed.

If we die here, the revision is sealed still, and the next run comes to the same: what is folded and
hashed is what its sealing covers, and it is written in the one step that closes it.

Guarantees: a revision is closed only where its events add up to its totals, folded ones among them,
and where rollups say the same; else it is held.
Refuses to know: SQL, when periods are sealed, and prices.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tallygate.domain.period import Held
from tallygate.domain.period_digest import Covered
from tallygate.domain.period_fold import Fold
from tallygate.flow.cover_period import cover, differences
from tallygate.ports.period import PeriodFolds, PeriodLedger, PeriodReader, SealedRevision


@dataclass(frozen=True, slots=True)
class Finished:
    """What was found of a revision, and whether it is closed by us."""

    covered: Covered
    closed: bool


class FinishPeriod:
    """Folds, hashes and closes sealed revisions."""

    def __init__(self, ledger: PeriodLedger, reader: PeriodReader, folds: PeriodFolds) -> None:
        self._ledger = ledger
        self._reader = reader
        self._folds = folds

    async def finish(
        self, revision: SealedRevision, now_us: int, turn: Callable[[int], Awaitable[None]]
    ) -> Finished:
        """Close a revision, or hold it. `turn` is called again and again meanwhile."""
        await turn(0)
        fold = await self._folds.fold(revision)
        await turn(0)
        covered = await cover(self._ledger, revision, turn)
        held = await self._held(revision, covered, fold)
        if held is not None and not revision.accept_missing:
            await self._ledger.hold({revision.span.key: held}, now_us)
            return Finished(covered, closed=False)
        return Finished(covered, await self._ledger.close(revision, covered, fold, now_us))

    async def _held(self, revision: SealedRevision, covered: Covered, fold: Fold) -> Held | None:
        if fold.missing:
            return Held.METER_NOT_FROZEN
        if fold.differs:
            return Held.TOTALS_DIFFER
        place, number = (revision.span.key.tenant_id, revision.span.key.start_us), revision.revision
        adjusted = await self._reader.adjustments(*place, number) if number == 1 else ()
        found = differences(
            covered,
            [*await self._reader.frozen(*place, number), *fold.totals],
            await self._reader.frozen(*place, number - 1) if number > 1 else (),
            [(each.meter, each.count) for each in adjusted]
            + [(each.meter, each.figures.count) for each in fold.adjustments],
        )
        return Held.TOTALS_DIFFER if found else None
