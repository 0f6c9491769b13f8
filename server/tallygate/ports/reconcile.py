"""The seams of reconciliation: what each step has of usage, and where results are kept.

Guarantees: reading changes nothing; a run's results are stored once, whoever runs; a drift is told
once, however often it is found.
Refuses to know: SQL, Redis, Stripe, and what figures come to.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    """What the ledger's events and its rollup have of a meter in a period, as of one instant.

    Whole months whose events were dropped count as their archives have them. With `archived` the
    period has a part of such a month, of which nobody can say what it came to. `rollup` is by
    minute; `others` are the rollups by hour and day and those of groups, by name, where they say
    otherwise. With `keyless`, which is asked where ledger and rollup differ, the tenant's period
    has keys without an event, or events without a key: it is the ledger that was tampered with.
    """

    ask: int
    meter: MeterName
    ledger: Figures
    rollup: Figures
    archived: bool = False
    others: Mapping[str, Figures] = field(default_factory=dict)
    keyless: bool = False


@dataclass(frozen=True, slots=True)
class FrozenUsage:
    """What the newest revision of a sealed period has of a meter, and what came late for it.

    `billed` is what other periods bill of it by now, of which each adjustment is one: in units for
    a meter that adds up, and as figures. `unbilled` came late for it too, and belongs to a period
    that is not sealed yet; `pending` belongs to the period's own next revision.
    """

    ask: int
    meter: MeterName
    frozen: Figures
    billed: Figures
    billed_units: Decimal
    unbilled: Figures
    pending: Figures


class FrozenReads(Protocol):
    """Reads what closed periods were frozen with."""

    async def frozen(self, asked: Sequence[PeriodAsked]) -> Mapping[int, Sequence[FrozenUsage]]:
        """Return what was frozen, by the place of each ask whose period was ever sealed."""
        ...


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


@dataclass(frozen=True, slots=True)
class IntentsAsked:
    """What Stripe is told of a tenant's meter in a billing period: an ask by its place.

    Intents are of the windows from `start_us` to `end_us`, which lie on whole windows where totals
    are sent. A window is due that has ended by `settled_us`, of usage from before `fresh_us`; none
    of before `since_us` is, unless it was told. `counts` takes events instead of units; of `totals`
    the last of a window counts.
    """

    ask: int
    tenant_id: TenantId
    meter: MeterName
    destination: str
    period: Window
    start_us: int
    end_us: int
    since_us: int
    window_us: int
    settled_us: int
    fresh_us: int
    counts: bool = False
    totals: bool = False


@dataclass(frozen=True, slots=True)
class IntendedUsage:
    """What an ask's intents come to, by how far they have come, in the meter's unit.

    `intended` is all, but for what was replaced; of it Stripe took `taken`, may take `waiting`, and
    did not take `refused`; `shadow` is never sent. `due` is what usage asks for, `aside` usage that
    it does not, `late` what other periods are billed for, below 0 what this one is billed for
    others. Stripe's sum may lack up to `lacks`, or have up to `exceeds` more: what was taken
    just now, or may have been. `shared` says that other tenants have the same customer.
    """

    place: int
    intended: int
    due: int
    aside: int
    taken: int
    waiting: int
    refused: int
    shadow: int
    lacks: int
    exceeds: int
    customers: tuple[str, ...]
    shared: bool
    late: int = 0


@dataclass(frozen=True, slots=True)
class InvoicedUsage:
    """What the newest invoice of a period has of a meter, where a price is for all of it.

    `units` are the lines', and `late` what came after it was issued. `aside` is the usage of parts
    of the period that have no such line.
    """

    ask: int
    meter: MeterName
    units: Decimal
    late: int
    aside: int


class MoneyReads(Protocol):
    """Reads what became of usage on its way to money."""

    async def intended(self, asked: Sequence[IntentsAsked]) -> Sequence[IntendedUsage]:
        """Return what is intended and due, for each ask with usage or intents, by its place."""
        ...

    async def invoiced(
        self, asked: Sequence[PeriodAsked], counted: Sequence[MeterName]
    ) -> Sequence[InvoicedUsage]:
        """Return what newest invoices have of meters; of those in `counted` events count."""
        ...


class StripeSums(Protocol):
    """Asks Stripe what it has summed up."""

    async def asks(self, destination: str) -> bool:
        """Say whether an account can be asked now: its key is there, and reads are left."""
        ...

    async def summed(
        self, destination: str, event_name: str, customer: str, window: Window
    ) -> Decimal:
        """Return what an account has of a customer's meter, in its own unit.

        Raises a `TallygateError` when the account does not answer, or knows neither.
        """
        ...


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

    async def dropped(self) -> Sequence[Window]:
        """Return the months whose events are in their archives alone, by time."""
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
