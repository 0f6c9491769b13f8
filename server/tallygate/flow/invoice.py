"""ledger, catalog, grants, rates ─▶ [ invoice ] ─▶ an issued snapshot: what a tenant owes.

If we die here before a snapshot is committed, nothing has changed; asked again, the same input
gives the same invoice, and one that says what the newest revision says is not written again.

Guarantees: a preview changes nothing; what credits an invoice burns is counted against what every
other period's newest invoice has burned, also when two are issued at once.
Refuses to know: SQL, and how invoices are shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tallygate.domain.errors import BackendUnavailable, InvalidField, NotFound, UnknownTenant
from tallygate.domain.ids import LimitId, TenantId
from tallygate.domain.invoice import Invoice, InvoiceLine
from tallygate.domain.invoice_period import period_at
from tallygate.domain.rating import Ahead, Rating, invoice_of, rates_asked
from tallygate.domain.segment import Segment, Version, segment_of, segments, version_at
from tallygate.domain.window import Calendar, Window
from tallygate.ports import Clock
from tallygate.ports.billing import (
    BilledUsage,
    EvidenceBucket,
    EvidenceEvent,
    ExchangeRates,
    InvoiceBooks,
    Issuing,
    Place,
    PlanHistory,
    StoredInvoice,
    UsageAsked,
    UsageEvidence,
)

# Each further one means that another invoice of the same tenant was written meanwhile.
ISSUE_TRIES_MAX: Final = 5
START: Final[Place] = (0, "")


@dataclass(frozen=True, slots=True)
class InvoiceParts:
    """What invoices are made of."""

    usage: BilledUsage
    evidence: UsageEvidence
    history: PlanHistory
    rates: ExchangeRates
    books: InvoiceBooks
    clock: Clock


@dataclass(frozen=True, slots=True)
class Evidence:
    """A page of what a line's usage is made of.

    Rollups are there where the price is for all of its meter: others are made of events alone.
    `more_from` is where the next page of events begins, None where there is none.
    """

    line: InvoiceLine
    buckets: tuple[EvidenceBucket, ...]
    more_buckets: bool
    events: tuple[EvidenceEvent, ...]
    more_from: Place | None


class Invoicing:
    """Works out, issues and explains invoices."""

    def __init__(self, parts: InvoiceParts) -> None:
        self._parts = parts

    async def calendar(self, tenant_id: TenantId) -> Calendar:
        """Return the calendar of a tenant as it is now. Raises `UnknownTenant`."""
        now_us = self._parts.clock.now_us()
        versions = await self._parts.history.versions(tenant_id, now_us, now_us)
        if not versions or (tenant := versions[-1].tenant) is None:
            raise UnknownTenant(field="tenant")
        return tenant.calendar

    async def current(self, tenant_id: TenantId) -> Window:
        """Return the billing period that a tenant is in. Raises `UnknownTenant`."""
        return period_at(await self.calendar(tenant_id), self._parts.clock.now_us())

    async def preview(self, tenant_id: TenantId, period: Window) -> Invoice:
        """Return the invoice of a period as it is now.

        Raises `UnknownTenant` for who had no plan by its end, `NotFound` where a rate of exchange
        is missing, `TooManyItems` for what passes a bound.
        """
        parts = self._parts
        # From an instant before the period on: who had a plan then has paid fees ahead.
        versions = await parts.history.versions(tenant_id, period.start_us - 1, period.end_us)
        last = version_at(versions, period.end_us - 1)
        if last is None or last.tenant is None:
            raise UnknownTenant("the tenant had no plan in this period", field="tenant")
        cut = segments(versions, period)
        asked = [
            UsageAsked(place, selection, segment.window)
            for place, segment in enumerate(cut)
            for selection in segment.selections()
        ]
        rating = Rating(
            tenant_id=tenant_id,
            period=period,
            currency=last.tenant.currency,
            segments=cut,
            usage=await parts.usage.billed(tenant_id, asked) if asked else (),
            used=await parts.usage.meters(tenant_id, period),
            ahead=_ahead(versions, last.tenant.calendar, period),
        )
        wanted = sorted(rates_asked(rating))
        balances = _balances(cut)
        rating = replace(
            rating,
            rates=await parts.rates.at(rating.currency, wanted) if wanted else {},
            grants=await parts.books.grants(tenant_id, period, balances) if balances else (),
        )
        return invoice_of(rating)

    async def issue(
        self, tenant_id: TenantId, period: Window, *, reason: str, actor: str
    ) -> StoredInvoice:
        """Write a period's invoice as it is now, or return the newest one where it says the same.

        Raises `InvalidField` for a period that is not over, and what `preview` raises.
        """
        if self._parts.clock.now_us() < period.end_us:
            raise InvalidField("is not over", field="period")
        for _ in range(ISSUE_TRIES_MAX):
            newest = await self._parts.books.newest(tenant_id)
            invoice = await self.preview(tenant_id, period)
            stored = await self._parts.books.write(Issuing(invoice, reason, actor), newest)
            if stored is not None:
                return stored
        raise BackendUnavailable("other invoices of this tenant are being issued; ask again")

    async def stored(self, tenant_id: TenantId, period: Window, revision: int) -> StoredInvoice:
        """Return an issued invoice, the newest revision for 0. Raises `NotFound`."""
        found = await self._parts.books.read(tenant_id, period.start_us, revision)
        if found is None:
            raise NotFound("no such invoice was issued", field="revision" if revision else "period")
        return found

    async def evidence(
        self, tenant_id: TenantId, line: InvoiceLine, after: Place, count: int
    ) -> Evidence:
        """Return what a line's usage is made of: up to `count` rollups, and as many events.

        Raises `InvalidField` for a line that is for no usage.
        """
        if line.selection is None:
            raise InvalidField("is for no usage", field="line")
        asked = UsageAsked(0, line.selection, line.segment)
        buckets: Sequence[EvidenceBucket] = ()
        if not line.selection.where and not line.selection.per:
            buckets = await self._parts.evidence.buckets(tenant_id, asked, START, count + 1)
        events = await self._parts.evidence.events(tenant_id, asked, line.group, after, count + 1)
        shown = tuple(events[:count])
        more = (shown[-1].event_time_us, str(shown[-1].event_id)) if events[count:] else None
        return Evidence(line, tuple(buckets[:count]), len(buckets) > count, shown, more)


def _ahead(versions: Sequence[Version], of: Calendar, period: Window) -> Ahead:
    """Return what fees in advance are worked out from: whoever had a plan before has paid some."""
    before = version_at(versions, period.start_us - 1)
    at_start = version_at(versions, period.start_us)
    at_end = version_at(versions, period.end_us)
    had = before is not None and segment_of(before, period) is not None
    return Ahead(
        paid=segment_of(at_start, period) if had and at_start is not None else None,
        following=_following(at_end, period_at(of, period.end_us)),
        previous_start_us=period_at(of, period.start_us - 1).start_us,
    )


def _following(version: Version | None, window: Window) -> Segment | None:
    return segment_of(version, window) if version is not None else None


def _balances(cut: Sequence[Segment]) -> list[LimitId]:
    credits_of = [segment.terms.credit for segment in cut]
    found = {each.balance for each in credits_of if each is not None and each.balance}
    return sorted(found)
