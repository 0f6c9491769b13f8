"""ledger ─▶ [ cover ] ─▶ hash: what a sealed revision covers, held against what was frozen of it.

If we die here, the next run begins anew: covering changes nothing.

Guarantees: a revision is read minute by minute, in bounded memory, and every total is compared with
the events it was made of.
Refuses to know: SQL, and what is done with a difference.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tallygate.domain.ids import MeterName
from tallygate.domain.period import Figures, MeterTotal
from tallygate.domain.period_digest import Covered, LeafKind, PeriodDigest
from tallygate.ports.period import CoveredEvents, SealedRevision

# Between two looks at the lease: a piece of the ledger is read in a second or so.
LEAVES_PER_TURN = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A total that is not what its events add up to."""

    meter: MeterName
    kind: LeafKind
    frozen: Figures
    found: Figures


async def cover(
    events: CoveredEvents,
    revision: SealedRevision,
    turn: Callable[[int], Awaitable[None]] | None = None,
) -> Covered:
    """Return what a revision covers. `turn` is called with each so many leaves that were read."""
    taken = PeriodDigest(
        revision.span.key, revision.span.end_us, revision.revision, revision.before
    )
    leaves = 0
    async for leaf in events.leaves(revision):
        taken.add(leaf)
        leaves += 1
        if turn is not None and leaves % LEAVES_PER_TURN == 0:
            await turn(LEAVES_PER_TURN)
    return taken.covered()


def differences(
    covered: Covered,
    frozen: Sequence[MeterTotal],
    before: Sequence[MeterTotal],
    adjusted: Sequence[tuple[MeterName, int]],
) -> list[Difference]:
    """Return where totals are not what the events and the revision before add up to.

    `before` are the totals of the revision before, none for the first; `adjusted` is of how many
    uses of a meter others' adjustments are.
    """
    whole, past = _by_meter(frozen), _by_meter(before)
    found: list[Difference] = []
    for meter in sorted({*whole, *past, *(meter for _, meter in covered.figures)}):
        events = past.get(meter, Figures())
        for kind in (LeafKind.EVENTS, LeafKind.LATE):
            events = events.merged(covered.figures.get((kind, meter), Figures()))
        total = whole.get(meter, Figures())
        if total != events:
            found.append(Difference(meter, LeafKind.EVENTS, total, events))
        # Of what is billed for others, the uses are counted; amounts are by the meter's rule.
        uses = sum(count for name, count in adjusted if name == meter)
        late = covered.figures.get((LeafKind.ADJUSTED, meter), Figures())
        if uses != late.count:
            found.append(Difference(meter, LeafKind.ADJUSTED, Figures(count=uses), late))
    return found


def _by_meter(totals: Iterable[MeterTotal]) -> Mapping[MeterName, Figures]:
    """Return what all groups of each meter add up to."""
    found: dict[MeterName, Figures] = {}
    for each in totals:
        found[each.meter] = found.get(each.meter, Figures()).merged(each.figures)
    return found
