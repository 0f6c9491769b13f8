"""The seams of invoices: usage as it is billed, plans as they were, grants, rates, what was issued.

Guarantees: each port has a fake in `testing/` that passes the same tests as the real adapter.
Refuses to know: SQL, and how an invoice is worked out.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from tallygate.domain.billed import Level
from tallygate.domain.exchange import ExchangeRate
from tallygate.domain.ids import EventId, LimitId, MeterName, TenantId
from tallygate.domain.invoice import Group, Invoice, Measured, Selection
from tallygate.domain.purse import GrantLeft
from tallygate.domain.segment import Version
from tallygate.domain.window import Window

# The most versions of the catalog, grants or groups that one invoice is made of.
VERSIONS_MAX = 5_000
GRANTS_MAX = 10_000
GROUPS_MAX = 10_000
# Of one invoice: a tenant's periods that lie as far back as usage is taken late.
ADJUSTED_MAX = 1_000


@dataclass(frozen=True, slots=True)
class UsageAsked:
    """Usage of a selection in a segment, which has that place and lies in that window.

    With `billed_by_us`, of usage that came late only what belongs to periods that begin by then,
    and no correction that has yet to be made; without, all there is. With `late_at_us`, evidence is
    only of usage that came late and belongs to the period that begins then.
    """

    segment: int
    selection: Selection
    window: Window
    billed_by_us: int | None = None
    late_at_us: int | None = None


class BilledUsage(Protocol):
    """Usage as it is billed: by `event_time`, refunds included, exact at any instant."""

    async def billed(self, tenant_id: TenantId, asked: Sequence[UsageAsked]) -> Sequence[Measured]:
        """Return the usage of each selection, by group where it has some, all of one instant.

        What nothing was used of may be left out. Raises `TooManyItems` for too many groups.
        """
        ...

    async def meters(self, tenant_id: TenantId, window: Window) -> Sequence[MeterName]:
        """Return the meters with usage in the minutes of a stretch, by name.

        Usage that came late and is billed by periods that begin after it is none of it.
        """
        ...


@dataclass(frozen=True, slots=True)
class LateShare:
    """How many late events of a closed period belong to the one that begins at `billed_us`.

    `invoice` is the newest of that period with lines for them, 0 for none; `amount` is what these
    come to, in its currency.
    """

    billed_us: int
    events: int
    invoice: int = 0
    revision: int = 0
    amount: Decimal = Decimal(0)
    currency: str = ""


class LatePlaces(Protocol):
    """Billing periods as they were closed, and which of their usage is billed elsewhere."""

    async def period(self, tenant_id: TenantId, instant_us: int) -> Window | None:
        """Return the period that holds an instant, if it has ended and is known."""
        ...

    async def adjusted(self, tenant_id: TenantId, start_us: int) -> Sequence[Window]:
        """Return the closed periods with late usage that belongs to the one that begins then.

        By time. What came for a time before the tenant's first period is in a window that begins
        with the earliest of it, and ends where that period begins. Raises `TooManyItems`.
        """
        ...

    async def shares(self, tenant_id: TenantId, start_us: int) -> Sequence[LateShare]:
        """Return where the late usage of a period is billed, by time."""
        ...


class PlanHistory(Protocol):
    """What was in effect for a tenant, and when."""

    async def versions(self, tenant_id: TenantId, from_us: int, to_us: int) -> Sequence[Version]:
        """Return the version in effect at `from_us`, if there was one, and those up to `to_us`.

        Raises `TooManyItems` for too many.
        """
        ...


class ExchangeRates(Protocol):
    """Dated rates of exchange, append-only."""

    async def at(
        self, currency: str, asked: Sequence[tuple[str, int]]
    ) -> Mapping[tuple[str, int], Decimal]:
        """Return what one of each currency was worth in `currency` at its instant, where known."""
        ...

    async def write(self, rates: Sequence[ExchangeRate]) -> int:
        """Write rates; return how many were not there alike before."""
        ...

    async def page(self, base: str | None, quote: str | None, count: int) -> list[ExchangeRate]:
        """Return up to `count` rates, the newest first."""
        ...


@dataclass(frozen=True, slots=True)
class StoredInvoice:
    """An invoice as it was issued. `sha256` is of its document."""

    invoice: Invoice
    revision: int
    sha256: bytes
    reason: str
    actor: str
    created_at_us: int


@dataclass(frozen=True, slots=True)
class InvoiceSummary:
    """What a list says of an issued invoice; `number` rises with each that is written."""

    number: int
    tenant_id: TenantId
    period: Window
    revision: int
    currency: str
    total: Decimal
    sha256: bytes
    reason: str
    actor: str
    created_at_us: int


@dataclass(frozen=True, slots=True)
class Issuing:
    """An invoice to write, who wants it and why."""

    invoice: Invoice
    reason: str
    actor: str


class InvoiceBooks(Protocol):
    """Issued invoices, append-only, and what they have burned of a tenant's grants."""

    async def grants(
        self,
        tenant_id: TenantId,
        period: Window,
        balances: Sequence[LimitId],
        invoiced_us: int | None = None,
    ) -> Sequence[GrantLeft]:
        """Return the grants of these balances that are valid at some instant of a period.

        What the newest invoices of other periods have burned of them is taken off. With
        `invoiced_us`, the period is worked out anew on the invoice of the one that begins then:
        what that one, and those before it for this period, have burned is left. Raises
        `TooManyItems` for too many.
        """
        ...

    async def newest(self, tenant_id: TenantId) -> int:
        """Return the number of the invoice that was written last of a tenant, 0 for none."""
        ...

    async def write(self, issuing: Issuing, newest: int) -> StoredInvoice | None:
        """Write the next revision of a period, or return the newest one where it says the same.

        None says that `newest` is not that any more: what the invoice is made of has changed.
        """
        ...

    async def read(
        self, tenant_id: TenantId, period_start_us: int, revision: int
    ) -> StoredInvoice | None:
        """Return a revision, the newest for 0; None when there is none. Raises `StorageFault`."""
        ...

    async def page(
        self, tenant_id: TenantId | None, before: int, count: int
    ) -> list[InvoiceSummary]:
        """Return up to `count` invoices, the newest first, below a number unless that is 0."""
        ...


@dataclass(frozen=True, slots=True)
class EvidenceBucket:
    """A rollup, or a single event with its id, that a line's quantity is made of."""

    level: Level
    at_us: int
    count: int
    sum: int
    event_id: str


@dataclass(frozen=True, slots=True)
class EvidenceEvent:
    """An event that a line's quantity is made of."""

    event_id: EventId
    event_time_us: int
    amount: int
    refund_of: str


Place = tuple[int, str]
"""Where a page of evidence ended: a time, and the id of an event."""


class UsageEvidence(Protocol):
    """What a line's usage is made of, by pages."""

    async def buckets(
        self, tenant_id: TenantId, asked: UsageAsked, after: Place, count: int
    ) -> Sequence[EvidenceBucket]:
        """Return up to `count` rollups, and events beside them, by time; `where` is left aside."""
        ...

    async def events(
        self, tenant_id: TenantId, asked: UsageAsked, group: Group, after: Place, count: int
    ) -> Sequence[EvidenceEvent]:
        """Return up to `count` events of a selection and group, by time and id."""
        ...
