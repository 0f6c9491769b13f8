"""ledger, catalog, grants, rates ─▶ [ invoice ] ─▶ an issued snapshot: what a tenant owes.

If we die here before a snapshot is committed, nothing has changed; asked again, the same input
gives the same invoice, and one that says what the newest revision says is not written again.

Guarantees: a preview changes nothing; the invoice of a closed period is of exactly the events of
its newest revision, and of what those change that came late for earlier ones and belong to it; what
credits an invoice burns is counted against what every other period's newest invoice has burned,
also when two are issued at once.
Refuses to know: SQL, and how invoices are shown.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from tallygate.domain.catalog import Aggregation
from tallygate.domain.errors import BackendUnavailable, InvalidField, NotFound, UnknownTenant
from tallygate.domain.ids import LimitId, TenantId
from tallygate.domain.invoice import Invoice, InvoiceLine, Measured
from tallygate.domain.invoice_period import period_at
from tallygate.domain.period import following
from tallygate.domain.period import period_at as billing_period_at
from tallygate.domain.purse import GrantLeft
from tallygate.domain.rating import (
    NOTHING_AHEAD,
    Adjusted,
    Ahead,
    Rating,
    invoice_of,
    rates_asked,
)
from tallygate.domain.segment import Segment, Version, segment_of, segments, version_at
from tallygate.domain.window import Calendar, Window
from tallygate.ports import Clock
from tallygate.ports.billing import (
    BilledUsage,
    EvidenceBucket,
    EvidenceEvent,
    ExchangeRates,
    InvoiceBooks,
    InvoiceSummary,
    Issuing,
    LatePlaces,
    LateShare,
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
    late: LatePlaces
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

    async def period(self, tenant_id: TenantId, instant_us: int) -> Window:
        """Return the period that holds an instant: as it ended, whatever the calendar is now.

        Raises `UnknownTenant`.
        """
        ended = await self._parts.late.period(tenant_id, instant_us)
        return ended or period_at(await self.calendar(tenant_id), instant_us)

    async def preview(self, tenant_id: TenantId, period: Window) -> Invoice:
        """Return the invoice of a period as it is now.

        Raises `UnknownTenant` for who had no plan by its end, `NotFound` where a rate of exchange
        is missing, `TooManyItems` for what passes a bound.
        """
        return invoice_of(await self._rated(tenant_id, period))

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

    async def wanted(self, tenant_id: TenantId, period: Window) -> Invoice | None:
        """Return the invoice of a period that is to have one, None where there is nothing to bill.

        There is where its plans have prices, or late usage is billed. Raises what `preview` raises,
        but for a tenant that had no plan.
        """
        try:
            rating = await self._rated(tenant_id, period)
        except UnknownTenant:
            return None
        invoice = invoice_of(rating)
        priced = any(each.prices for each in rating.segments)
        return invoice if priced or invoice.lines else None

    async def newest(self, tenant_id: TenantId, period: Window) -> StoredInvoice | None:
        """Return the newest revision of a period's invoice, None where none was issued."""
        return await self._parts.books.read(tenant_id, period.start_us, 0)

    async def _rated(self, tenant_id: TenantId, period: Window) -> Rating:
        """Return all that an invoice is made of; its usage is of one snapshot."""
        parts = self._parts
        begun = await self._begun(tenant_id, period)
        if begun is None:
            raise UnknownTenant("the tenant had no plan in this period", field="tenant")
        closed = await self._closed(tenant_id, begun)
        asked = [_Asked(begun, period.start_us)]
        for each in closed:
            asked += [_Asked(each, period.start_us - 1), _Asked(each, period.start_us)]
        own, *late = await self._measured(tenant_id, asked)
        rating = replace(
            begun,
            usage=own,
            used=await parts.usage.meters(tenant_id, period),
            grants=await self._grants(begun),
            adjusted=tuple(
                [
                    Adjusted(
                        replace(
                            each,
                            usage=before,
                            rates=await self._rates(each),
                            grants=await self._grants(each, period.start_us),
                        ),
                        now,
                    )
                    for each, before, now in zip(closed, late[::2], late[1::2], strict=True)
                ]
            ),
        )
        return replace(rating, rates=await self._rates(rating))

    async def _begun(self, tenant_id: TenantId, period: Window) -> Rating | None:
        """Return the prices that a tenant had in a period, None where it had no plan by its end."""
        # From an instant before the period on: who had a plan then has paid fees ahead.
        versions = await self._parts.history.versions(tenant_id, period.start_us - 1, period.end_us)
        last = version_at(versions, period.end_us - 1)
        if last is None or last.tenant is None:
            return None
        return Rating(
            tenant_id=tenant_id,
            period=period,
            currency=last.tenant.currency,
            segments=segments(versions, period),
            ahead=_ahead(versions, last.tenant.calendar, period),
        )

    async def _closed(self, tenant_id: TenantId, begun: Rating) -> list[Rating]:
        """Return the closed periods whose late usage the period bills, without fees in advance."""
        late = self._parts.late
        windows = await self._late_windows(tenant_id, begun.period)
        found: list[Rating] = []
        while windows:
            window = windows.pop(0)
            rating = await self._begun(tenant_id, window)
            if rating is None:
                continue
            found.append(replace(rating, ahead=NOTHING_AHEAD))
            next_one = await late.period(tenant_id, window.end_us)
            # A level that came late lasts: it may be another in all periods up to this one.
            if (
                any(_lasts(each) for each in rating.segments)
                and next_one is not None
                and next_one.start_us < begun.period.start_us
                and (not windows or next_one != windows[0])
            ):
                windows.insert(0, next_one)
        return found

    async def _late_windows(self, tenant_id: TenantId, period: Window) -> list[Window]:
        """Return the periods with late usage that a period bills, also from before the first."""
        late = self._parts.late
        found: list[Window] = []
        for window in await late.adjusted(tenant_id, period.start_us):
            if await late.period(tenant_id, window.start_us) is not None:
                found.append(window)
                continue
            versions = await self._parts.history.versions(tenant_id, period.start_us, period.end_us)
            tenant = versions[-1].tenant if versions else None
            own = tenant.calendar if tenant is not None else Calendar()
            begun = billing_period_at(own, window.start_us)
            while begun.start_us < window.end_us:
                found.append(Window(begun.start_us, min(begun.end_us, window.end_us)))
                begun = following(own, begun.end_us)
        return found

    async def _measured(
        self, tenant_id: TenantId, asked: Sequence["_Asked"]
    ) -> list[list[Measured]]:
        """Return what was used of each, by its own segments' places."""
        wanted: list[UsageAsked] = []
        firsts: list[int] = []
        place = 0
        for each in asked:
            firsts.append(place)
            for segment in each.rating.segments:
                wanted += [
                    UsageAsked(place, selection, segment.window, each.billed_by_us)
                    for selection in segment.selections()
                ]
                place += 1
        found: list[list[Measured]] = [[] for _ in asked]
        for measured in await self._parts.usage.billed(tenant_id, wanted) if wanted else ():
            of = bisect_right(firsts, measured.segment) - 1
            found[of].append(replace(measured, segment=measured.segment - firsts[of]))
        return found

    async def _grants(self, rating: Rating, invoiced_us: int | None = None) -> Sequence[GrantLeft]:
        balances = _balances(rating.segments)
        if not balances:
            return ()
        return await self._parts.books.grants(
            rating.tenant_id, rating.period, balances, invoiced_us
        )

    async def _rates(self, rating: Rating) -> Mapping[tuple[str, int], Decimal]:
        wanted = sorted(rates_asked(rating))
        return await self._parts.rates.at(rating.currency, wanted) if wanted else {}

    async def issued(
        self, tenant_id: TenantId | None, before: int, count: int
    ) -> Sequence[InvoiceSummary]:
        """Return up to `count` invoices, the newest first, below a number unless that is 0."""
        return await self._parts.books.page(tenant_id, before, count)

    async def stored(self, tenant_id: TenantId, period: Window, revision: int) -> StoredInvoice:
        """Return an issued invoice, the newest revision for 0. Raises `NotFound`."""
        found = await self._parts.books.read(tenant_id, period.start_us, revision)
        if found is None:
            raise NotFound("no such invoice was issued", field="revision" if revision else "period")
        return found

    async def shares(self, tenant_id: TenantId, period: Window) -> Sequence[LateShare]:
        """Return where usage of a period is billed that came late for it, by time."""
        return await self._parts.late.shares(tenant_id, period.start_us)

    async def evidence(
        self, invoice: Invoice, line: InvoiceLine, after: Place, count: int
    ) -> Evidence:
        """Return what a line's usage is made of: up to `count` rollups, and as many events.

        Of a line for late usage, these are the events that came late. Raises `InvalidField` for a
        line that is for no usage.
        """
        tenant_id, period = invoice.tenant_id, invoice.period
        if line.selection is None:
            raise InvalidField("is for no usage", field="line")
        asked = UsageAsked(0, line.selection, line.segment, period.start_us)
        if line.adjusts is not None:
            asked = replace(asked, billed_by_us=None, late_at_us=period.start_us)
        buckets: Sequence[EvidenceBucket] = ()
        if not line.selection.where and not line.selection.per and line.adjusts is None:
            buckets = await self._parts.evidence.buckets(tenant_id, asked, START, count + 1)
        events = await self._parts.evidence.events(tenant_id, asked, line.group, after, count + 1)
        shown = tuple(events[:count])
        more = (shown[-1].event_time_us, str(shown[-1].event_id)) if events[count:] else None
        return Evidence(line, tuple(buckets[:count]), len(buckets) > count, shown, more)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The usage of a period to read, with what came late of it and is billed by then."""

    rating: Rating
    billed_by_us: int


def _lasts(segment: Segment) -> bool:
    return any(each.aggregation is Aggregation.TIME_WEIGHTED for each in segment.selections())


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
