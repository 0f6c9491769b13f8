"""The seam of reconciling around invoices: what is due, and what it came to.

Guarantees: what was found of a revision stays readable; the newest counts.
Refuses to know: figures, and who issues invoices.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tallygate.domain.ids import TenantId
from tallygate.domain.reconcile import Verdict
from tallygate.domain.window import Window


class Kind(StrEnum):
    """When a period is reconciled: closed and about to be invoiced, or invoiced."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class InvoicedPeriod:
    """A tenant's closed period, by its revision, or by that of its invoice."""

    tenant_id: TenantId
    period: Window
    revision: int


@dataclass(frozen=True, slots=True)
class DueAsked:
    """Which are due: closed, or invoiced, since then; of those that drifted, looked at before.

    `again_us` is before when those must have been looked at; None for everybody's.
    """

    since_us: int
    again_us: int
    count: int
    tenant_id: TenantId | None = None


@dataclass(frozen=True, slots=True)
class InvoicingNote:
    """What a period came to in a run: its worst verdict, how many pairs, how many exact."""

    kind: Kind
    of: InvoicedPeriod
    run_id: str
    verdict: Verdict
    pairs: int
    exact: int
    at_us: int


class InvoicingStore(Protocol):
    """Keeps what periods came to around their invoices."""

    async def due(self, kind: Kind, asked: DueAsked) -> Sequence[InvoicedPeriod]:
        """Return what was not reconciled yet, or drifted then, the oldest first."""
        ...

    async def note(self, found: InvoicingNote) -> None:
        """Keep what was found, once for each run."""
        ...

    async def accuracy(self, since_us: int) -> Mapping[Kind, tuple[int, int]]:
        """Return how many pairs there were since an instant, and how many of them exact."""
        ...
