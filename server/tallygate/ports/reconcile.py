"""The seams of reconciliation: what each step has of usage, and where results are kept.

Guarantees: reading changes nothing; a run's results are stored once, whoever runs; a drift is told
once, however often it is found.
Refuses to know: SQL, Redis, Stripe, and what figures come to.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from tallygate.domain.catalog import Tenant
from tallygate.domain.drift import Figures
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.reconcile import Reading, Reconciled
from tallygate.domain.window import Window


@dataclass(frozen=True, slots=True)
class PeriodAsked:
    """A tenant as it is declared, and one of its billing periods."""

    tenant: Tenant
    period: Window


@dataclass(frozen=True, slots=True)
class StepReading:
    """What a step has of a meter in a period, which is that of an ask by its place.

    With an empty `meter` it is of all meters that have no reading of that step and name.
    """

    ask: int
    meter: MeterName
    reading: Reading


class FigureSource(Protocol):
    """Reads figures of one step or more."""

    async def figures(self, asked: Sequence[PeriodAsked]) -> Sequence[StepReading]:
        """Return what there is; a step that has nothing of a meter may be left out."""
        ...


@dataclass(frozen=True, slots=True)
class PeriodUsage:
    """What the ledger's events and its rollup have of a meter in a period, as of one instant."""

    ask: int
    meter: MeterName
    ledger: Figures
    rollup: Figures


@dataclass(frozen=True, slots=True)
class ToldUsage:
    """What a destination was told of a meter's events in a period.

    `told` are all messages' units, of which `delivered` and `parked` are parts. `ledger` is what
    the ledger had at that instant; `aside` the part of it that it need not have been told of: from
    before it wanted to be, or pruned.
    """

    ask: int
    meter: MeterName
    destination: str
    told: int
    delivered: int
    parked: int
    ledger: int
    aside: int


class ReconcileReads(Protocol):
    """Reads what Postgres has of usage in periods."""

    async def tenants(self, after: str, count: int) -> list[TenantId]:
        """Return up to `count` tenants that have used anything, by id, those after `after`."""
        ...

    async def usage(self, asked: Sequence[PeriodAsked]) -> Sequence[PeriodUsage]:
        """Return the usage of each period, by meter; none where there was none."""
        ...

    async def told(self, asked: Sequence[PeriodAsked]) -> Sequence[ToldUsage]:
        """Return what each destination that wants usage was told of these periods."""
        ...


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a run has come: up to and with `after`. `finished_us` is 0 while it goes on."""

    run_id: str
    after: str = ""
    pairs: int = 0
    exact: int = 0
    drifting: int = 0
    finished_us: int = 0


@dataclass(frozen=True, slots=True)
class RunPart:
    """Results of the tenants after `after`, up to and with `until`; the last one where `last`."""

    run_id: str
    after: str
    until: str
    at_us: int
    results: Sequence[Reconciled]
    last: bool = False


class ReconcileStore(Protocol):
    """Keeps results, and has drifts told."""

    async def begin(self, run_id: str) -> RunState:
        """Begin a run, or find how far it has come."""
        ...

    async def add(self, part: RunPart) -> int | None:
        """Store a part; return how many drifts are new, None where another has stored it."""
        ...

    async def newest(self) -> RunState | None:
        """Return the daily run that was finished last."""
        ...

    async def verdicts(self, run_id: str) -> dict[str, int]:
        """Return how many pairs of a run came to each verdict."""
        ...

    async def drift_units(self, run_id: str) -> dict[str, Decimal]:
        """Return the units that a run found off, too many and too few added up, by step."""
        ...
