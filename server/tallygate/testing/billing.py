"""Billed usage, plans' history, rates of exchange and issued invoices in memory.

Guarantees: they pass the same contract tests as those in Postgres.
Refuses to know: prices, and how an invoice is worked out.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from tallygate.domain.billed import Figures, Level, Piece, added, cover, whole_minutes
from tallygate.domain.catalog import Aggregation, Catalog, Tenant
from tallygate.domain.credit import CreditGrant
from tallygate.domain.event import UsageEvent
from tallygate.domain.exchange import ExchangeRate
from tallygate.domain.fold import Fold, Series, selects, series_names
from tallygate.domain.ids import LimitId, MeterName, TenantId
from tallygate.domain.invoice import Group, Invoice, Measured, Selection
from tallygate.domain.invoice_document import to_bytes
from tallygate.domain.invoice_period import overlapping
from tallygate.domain.money import total
from tallygate.domain.purse import GrantLeft, left_of
from tallygate.domain.rollup import Shape, level_at, rolled
from tallygate.domain.segment import Version, versions_of
from tallygate.domain.usage_sum import value_of
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, Window
from tallygate.ports.billing import (
    EvidenceBucket,
    EvidenceEvent,
    InvoiceSummary,
    Issuing,
    Place,
    StoredInvoice,
    UsageAsked,
)
from tallygate.testing.late_places import FakeLatePlaces

_LENGTHS: Final = {Level.DAY: DAY_US, Level.HOUR: HOUR_US, Level.MINUTE: MINUTE_US}


@dataclass(slots=True)
class FakeBilledUsage:
    """The `BilledUsage` and `UsageEvidence` ports over a list of events."""

    stored: list[UsageEvent] = field(default_factory=list)
    late: FakeLatePlaces = field(default_factory=FakeLatePlaces)

    async def billed(self, tenant_id: TenantId, asked: Sequence[UsageAsked]) -> list[Measured]:
        """Return the usage of each selection, by group where it has some."""
        return [
            Measured(each.segment, each.selection, usage.quantity, usage.count, usage.group)
            for each in asked
            for usage in self._fold(tenant_id, each).folded()
        ]

    async def meters(self, tenant_id: TenantId, window: Window) -> list[MeterName]:
        """Return the meters with usage in the minutes of a stretch, by name. See the port."""
        within = whole_minutes(window)
        everything = Selection(MeterName(""), Aggregation.SUM)
        asked = UsageAsked(0, everything, within, within.start_us)
        return sorted(
            {
                event.meter
                for event in self.stored
                if event.tenant_id == tenant_id
                and within.holds(event.event_time_us)
                and self.late.keeps(event, asked)
            }
        )

    async def buckets(
        self, tenant_id: TenantId, asked: UsageAsked, after: Place, count: int
    ) -> list[EvidenceBucket]:
        """Return up to `count` rollups, and events beside them, by time."""
        plain = replace(asked, selection=replace(asked.selection, where=(), per=""))
        if [*self._of(tenant_id, plain)] != [
            *self._of(tenant_id, replace(plain, billed_by_us=None))
        ]:
            return []
        events = [*self._of(tenant_id, plain)]
        found = [bucket for piece in cover(asked.window) for bucket in _buckets(events, piece)]
        return [each for each in found if (each.at_us, each.event_id) > after][:count]

    async def events(
        self, tenant_id: TenantId, asked: UsageAsked, group: Group, after: Place, count: int
    ) -> list[EvidenceEvent]:
        """Return up to `count` events of a selection and group, by time and id."""
        found = sorted(
            (event.event_time_us, event.event_id, event.amount, event.refund_of)
            for event in self._of(tenant_id, asked)
            if _group(event, asked.selection) == group
        )
        return [
            EvidenceEvent(event_id, at_us, amount, refund_of)
            for at_us, event_id, amount, refund_of in found
            if (at_us, event_id) > after
        ][:count]

    def _fold(self, tenant_id: TenantId, asked: UsageAsked) -> Fold:
        """Return the usage of what is asked, beginning with the levels from before it."""
        start_us = asked.window.start_us
        before = replace(asked, window=Window(min(0, start_us), start_us))
        earlier: dict[Series, list[UsageEvent]] = {}
        for event in self._of(tenant_id, before):
            names = series_names(asked.selection)
            earlier.setdefault(tuple(value_of(event, name) for name in names), []).append(event)
        shape = Shape(Aggregation.TIME_WEIGHTED)
        carried = {
            series: level_at(rolled(shape, events).levels, start_us)
            for series, events in earlier.items()
        }
        fold = Fold(asked.selection, asked.window, carried)
        found = self._of(tenant_id, asked)
        fold.add(sorted(found, key=lambda event: (event.event_time_us, event.event_id)))
        return fold

    def _of(self, tenant_id: TenantId, asked: UsageAsked) -> Iterator[UsageEvent]:
        for event in self.stored:
            if (
                event.tenant_id == tenant_id
                and event.meter == asked.selection.meter
                and asked.window.holds(event.event_time_us)
                and selects(asked.selection, event)
                and self.late.keeps(event, asked)
            ):
                yield event


@dataclass(slots=True)
class FakePlanHistory:
    """The `PlanHistory` port over what was applied."""

    catalogs: list[tuple[int, Catalog]] = field(default_factory=list)
    tenants: list[tuple[int, Tenant]] = field(default_factory=list)

    async def versions(self, tenant_id: TenantId, from_us: int, to_us: int) -> Sequence[Version]:
        """Return the version in effect at `from_us`, if there was one, and those up to `to_us`."""
        own = [(at, each) for at, each in self.tenants if each.tenant_id == tenant_id]
        found = [each for each in versions_of(tenant_id, own, self.catalogs) if each.at_us <= to_us]
        before = [each for each in found if each.at_us <= from_us]
        return [*before[-1:], *(each for each in found if each.at_us > from_us)]


@dataclass(slots=True)
class FakeExchangeRates:
    """The `ExchangeRates` port over a list."""

    written: list[ExchangeRate] = field(default_factory=list)

    async def at(
        self, currency: str, asked: Sequence[tuple[str, int]]
    ) -> Mapping[tuple[str, int], Decimal]:
        """Return what one of each currency was worth in `currency` at its instant, where known."""
        found: dict[tuple[str, int], Decimal] = {}
        for base, at_us in asked:
            # The newest first; of one instant, the one that was written last.
            known = [
                rate
                for rate in await self.page(base, currency, len(self.written))
                if rate.from_us <= at_us
            ]
            if known:
                found[base, at_us] = known[0].rate
        return found

    async def write(self, rates: Sequence[ExchangeRate]) -> int:
        """Write rates; return how many were not there alike before."""
        count = 0
        stands = {(each.base, each.quote, each.from_us): each for each in self.written}
        for rate in rates:
            if stands.get((rate.base, rate.quote, rate.from_us)) != rate:
                self.written.append(rate)
                count += 1
        return count

    async def page(self, base: str | None, quote: str | None, count: int) -> list[ExchangeRate]:
        """Return up to `count` rates, the newest first."""
        found = [
            rate
            for rate in reversed(self.written)
            if base in (None, rate.base) and quote in (None, rate.quote)
        ]
        return sorted(found, key=lambda rate: -rate.from_us)[:count]


@dataclass(slots=True)
class FakeInvoiceBooks:
    """The `InvoiceBooks` port; `granted` is what a credit ledger has."""

    granted: list[CreditGrant] = field(default_factory=list)
    issued: list[tuple[TenantId, StoredInvoice]] = field(default_factory=list)
    clock_us: int = 1

    async def grants(
        self,
        tenant_id: TenantId,
        period: Window,
        balances: Sequence[LimitId],
        invoiced_us: int | None = None,
    ) -> list[GrantLeft]:
        """Return the grants of these balances that are valid at some instant of a period."""
        left_us = period.start_us if invoiced_us is None else invoiced_us
        burned: dict[tuple[LimitId, int], Decimal] = {}
        newest = {each.invoice.period.start_us: each for of, each in self.issued if of == tenant_id}
        for start_us, stored in newest.items():
            for line in stored.invoice.lines if start_us != left_us else ():
                of_us = line.adjusts.start_us if line.adjusts is not None else start_us
                anew = invoiced_us is not None and start_us < invoiced_us
                if line.burn is not None and not (anew and of_us == period.start_us):
                    place = (line.burn.limit_id, line.burn.seq)
                    burned[place] = total((burned.get(place, Decimal(0)), line.burn.units))
        found = [
            GrantLeft(
                *(each.limit_id, each.seq, each.grant_id),
                left_of(each.amount, burned.get((each.limit_id, each.seq), Decimal(0))),
                *(each.priority, each.starts_us, each.expires_us),
            )
            for each in self.granted
            if each.tenant_id == tenant_id
            and each.limit_id in balances
            and each.starts_us < period.end_us
            and each.expires_us > period.start_us
        ]
        return sorted(
            (each for each in found if each.left), key=lambda each: (each.limit_id, each.seq)
        )

    async def newest(self, tenant_id: TenantId) -> int:
        """Return the number of the invoice that was written last of a tenant, 0 for none."""
        numbers = [number for number, (of, _) in enumerate(self.issued, 1) if of == tenant_id]
        return max(numbers, default=0)

    async def write(self, issuing: Issuing, newest: int) -> StoredInvoice | None:
        """Write the next revision of a period, or return the newest one where it says the same."""
        invoice = issuing.invoice
        if await self.newest(invoice.tenant_id) != newest:
            return None
        last = await self.read(invoice.tenant_id, invoice.period.start_us, 0)
        if last is not None and last.invoice == invoice:
            return last
        self._refuse_overlap(invoice)
        made = StoredInvoice(
            invoice,
            last.revision + 1 if last is not None else 1,
            hashlib.sha256(to_bytes(invoice)).digest(),
            *(issuing.reason, issuing.actor, self.clock_us),
        )
        self.issued.append((invoice.tenant_id, made))
        return made

    def _refuse_overlap(self, invoice: Invoice) -> None:
        asked = invoice.period
        issued = (each.invoice.period for of, each in self.issued if of == invoice.tenant_id)
        newest = {period.start_us: period for period in issued if period.start_us != asked.start_us}
        for _, known in sorted(newest.items()):
            if known.start_us < asked.end_us and asked.start_us < known.end_us:
                raise overlapping(known)

    async def read(
        self, tenant_id: TenantId, period_start_us: int, revision: int
    ) -> StoredInvoice | None:
        """Return a revision, the newest for 0; None when there is none."""
        found = [
            each
            for of, each in self.issued
            if of == tenant_id
            and each.invoice.period.start_us == period_start_us
            and revision in (0, each.revision)
        ]
        return found[-1] if found else None

    async def page(
        self, tenant_id: TenantId | None, before: int, count: int
    ) -> list[InvoiceSummary]:
        """Return up to `count` invoices, the newest first, below a number unless that is 0."""
        found = [
            InvoiceSummary(
                number,
                of,
                each.invoice.period,
                each.revision,
                each.invoice.currency,
                each.invoice.total,
                each.sha256,
                *(each.reason, each.actor, each.created_at_us),
            )
            for number, (of, each) in enumerate(self.issued, 1)
            if tenant_id in (None, of) and (not before or number < before)
        ]
        return found[::-1][:count]


def _group(event: UsageEvent, selection: Selection) -> Group:
    return ((selection.per, value_of(event, selection.per)),) if selection.per else ()


def _figures(event: UsageEvent) -> Figures:
    if event.refund_of:
        return Figures(sum=event.amount)
    return Figures(1, event.amount, event.amount, event.amount)


def _buckets(events: Sequence[UsageEvent], piece: Piece) -> list[EvidenceBucket]:
    found: dict[Place, list[Figures]] = {}
    for event in events:
        if piece.window.holds(event.event_time_us):
            at_us, event_id = event.event_time_us, str(event.event_id)
            if piece.level is not Level.EVENT:
                at_us, event_id = at_us - at_us % _LENGTHS[piece.level], ""
            found.setdefault((at_us, event_id), []).append(_figures(event))
    return [
        EvidenceBucket(piece.level, at_us, added(figures).count, added(figures).sum, event_id)
        for (at_us, event_id), figures in sorted(found.items())
    ]
