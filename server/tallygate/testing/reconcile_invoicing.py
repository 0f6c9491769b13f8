"""What closed periods and their invoices came to, in memory.

Guarantees: passes the same contract tests as the store in Postgres.
Refuses to know: figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tallygate.domain.reconcile import Verdict
from tallygate.ports.reconcile_invoicing import DueAsked, InvoicedPeriod, InvoicingNote, Kind

_OPEN = frozenset({Verdict.DRIFT, Verdict.UNKNOWN})


@dataclass(slots=True)
class FakeInvoicingStore:
    """The `InvoicingStore` port. `there` are newest revisions, and when each was made."""

    there: dict[Kind, dict[InvoicedPeriod, int]] = field(default_factory=dict)
    notes: list[InvoicingNote] = field(default_factory=list)

    async def due(self, kind: Kind, asked: DueAsked) -> Sequence[InvoicedPeriod]:
        """Return what was not reconciled yet, or drifted then, the oldest first."""
        done = {
            each.of
            for each in self.notes
            if each.kind is kind and (each.verdict not in _OPEN or each.at_us > asked.again_us)
        }
        found = [
            (made_us, each.tenant_id, each.period.start_us, each)
            for each, made_us in self.there.get(kind, {}).items()
            if made_us >= asked.since_us
            and each not in done
            and asked.tenant_id in (None, each.tenant_id)
        ]
        return [row[-1] for row in sorted(found, key=lambda row: row[:3])[: asked.count]]

    async def note(self, found: InvoicingNote) -> None:
        """Keep what was found, once for each run."""
        if not any((each.of, each.run_id) == (found.of, found.run_id) for each in self.notes):
            self.notes.append(found)

    async def accuracy(self, since_us: int) -> Mapping[Kind, tuple[int, int]]:
        """Return how many pairs there were since an instant, and how many of them exact."""
        newest: dict[tuple[Kind, InvoicedPeriod], InvoicingNote] = {}
        for each in sorted(self.notes, key=lambda each: each.at_us):
            if each.at_us >= since_us:
                newest[each.kind, each.of] = each
        found: dict[Kind, tuple[int, int]] = {}
        for (kind, _), each in newest.items():
            pairs, exact = found.get(kind, (0, 0))
            found[kind] = (pairs + each.pairs, exact + each.exact)
        return found
