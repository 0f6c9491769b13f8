"""What became of usage on its way to money, in memory.

Guarantees: passes the same contract tests as the reads in Postgres.
Refuses to know: what figures come to.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from tallygate.domain.catalog import Aggregation
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.invoice import LineKind, Selection
from tallygate.domain.stripe_intent import IntentKind, SendState
from tallygate.domain.window import Window
from tallygate.ports.billing import StoredInvoice, UsageAsked
from tallygate.ports.reconcile import IntendedUsage, IntentsAsked, InvoicedUsage, PeriodAsked
from tallygate.testing.billing import FakeInvoiceBooks
from tallygate.testing.late_places import FakeLatePlaces
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.stripe_rows import TAKEN, Row
from tallygate.testing.stripe_store import FakeStripeStore

# A window's beginning, and the sealed period that its usage came too late for.
_Place = tuple[int, int | None]

_DOUBTFUL = frozenset({SendState.SENDING, SendState.AMBIGUOUS})
_WAITING = _DOUBTFUL | {SendState.PENDING}
_REFUSED = frozenset({SendState.REJECTED, SendState.TOO_OLD})


@dataclass(slots=True)
class FakeMoneyReads:
    """The `MoneyReads` port over a ledger, intents with their sends, and issued invoices."""

    ledger: FakeLedger
    store: FakeStripeStore
    books: FakeInvoiceBooks
    late: FakeLatePlaces = field(default_factory=FakeLatePlaces)

    async def intended(self, asked: Sequence[IntentsAsked]) -> list[IntendedUsage]:
        """Return what is intended and due, for each ask with usage or intents, by its place."""
        self.ledger.answer()
        found = [self._intended(place, each) for place, each in enumerate(asked)]
        return [each for each in found if each is not None]

    async def invoiced(
        self, asked: Sequence[PeriodAsked], counted: Sequence[MeterName]
    ) -> list[InvoicedUsage]:
        """Return what newest invoices have of meters; of those in `counted` events count."""
        self.ledger.answer()
        found: list[InvoicedUsage] = []
        for number, each in enumerate(asked):
            tenant_id, period = each.tenant.tenant_id, each.period
            stored = await self.books.read(tenant_id, period.start_us, 0)
            if stored is not None and stored.invoice.period == period:
                found += self._invoiced(number, stored, counted)
        return found

    def _intended(self, place: int, of: IntentsAsked) -> IntendedUsage | None:
        used: dict[_Place, int] = {}
        fresh: set[_Place] = set()
        whole = carried = 0
        for at_us, received_us, units in self._units(of.tenant_id, of.meter, counts=of.counts):
            inside = units if of.period.holds(at_us) else 0
            if self._carried(of, at_us, received_us):
                carried += inside
                continue
            whole += inside
            if of.start_us <= at_us < of.end_us:
                place_us: _Place = (max(at_us - at_us % of.window_us, of.start_us), None)
                used[place_us] = used.get(place_us, 0) + units
                if received_us >= of.fresh_us:
                    fresh.add(place_us)
        came = 0
        for place_us, received_us, units in self._came(of):
            came += units
            used[place_us] = used.get(place_us, 0) + units
            if received_us >= of.fresh_us:
                fresh.add(place_us)
        rows = [*self._rows(of)]
        intended: dict[_Place, int] = {}
        for row in rows:
            place_us = (row.intent.place.start_us, row.intent.closed_start_us)
            intended[place_us] = intended.get(place_us, 0) + row.intent.quantity
        if not used and not intended:
            return None
        due, told = 0, 0
        for place_us in used.keys() | intended.keys():
            begun_us, _ = place_us
            if place_us not in intended and begun_us < of.since_us:
                continue
            told += used.get(place_us, 0)
            end_us = min(begun_us - begun_us % of.window_us + of.window_us, of.end_us)
            settled = end_us <= of.settled_us and place_us not in fresh
            due += (used if settled else intended).get(place_us, 0)
        taken = [row for row in rows if row.state in TAKEN]
        late = [row.intent.quantity for row in taken if (row.last_us or 0) >= of.fresh_us]
        doubtful = [
            row.intent.quantity
            for row in rows
            if row.state not in TAKEN and (row.doubtful or row.state in _DOUBTFUL)
        ]
        customers = sorted({row.intent.place.customer for row in rows})
        return IntendedUsage(
            place=place,
            intended=sum(intended.values()),
            due=due,
            aside=whole - (told - came),
            late=carried - came,
            taken=sum(row.intent.quantity for row in taken),
            waiting=sum(row.intent.quantity for row in rows if row.state in _WAITING),
            refused=sum(row.intent.quantity for row in rows if row.state in _REFUSED),
            shadow=sum(row.intent.quantity for row in rows if row.state is SendState.SHADOW),
            lacks=sum(max(each, 0) for each in late) + sum(max(-each, 0) for each in doubtful),
            exceeds=sum(max(-each, 0) for each in late) + sum(max(each, 0) for each in doubtful),
            customers=tuple(customers),
            shared=any(self._is_others(row, of, customers) for row in self.store.rows),
        )

    def _carried(self, of: IntentsAsked, at_us: int, received_us: int) -> bool:
        """Say whether usage is billed by a later period than its own."""
        return at_us >= of.since_us and any(
            (each.tenant_id, each.at_us, each.received_us) == (of.tenant_id, at_us, received_us)
            for each in self.store.late
        )

    def _came(self, of: IntentsAsked) -> Iterator[tuple[_Place, int, int]]:
        """Iterate over late usage that the period is billed for: where, when it came, how much."""
        for each in self.store.late:
            if each.tenant_id != of.tenant_id or each.at_us < of.since_us:
                continue
            if of.start_us <= each.allocated_us < of.end_us:
                at_us = max(each.allocated_us, min(each.received_us, of.end_us - 1))
                closed_us = None if of.totals else each.closed_us
                place = (max(at_us - at_us % of.window_us, of.start_us), closed_us)
                units = int(each.units > 0) if of.counts else each.units
                yield place, each.received_us, units

    def _rows(self, of: IntentsAsked) -> Iterator[Row]:
        """Iterate over what stands: not replaced, and of totals the last of each window."""
        replaced = {row.intent.replaces for row in self.store.rows}
        mine = [
            row
            for row in self.store.rows
            if row.intent.destination == of.destination
            and (row.intent.place.tenant_id, row.intent.place.meter) == (of.tenant_id, of.meter)
            and of.start_us <= row.intent.place.start_us < of.end_us
            and row.intent.kind not in (IntentKind.ITEM, IntentKind.QUANTITY)
            and row.intent_id not in replaced
        ]
        for row in mine:
            later = [each.intent.seq for each in mine if each.intent.place == row.intent.place]
            if not of.totals or row.intent.seq == max(later):
                yield row

    def _is_others(self, row: Row, of: IntentsAsked, customers: Sequence[str]) -> bool:
        place = row.intent.place
        return (
            row.intent.destination == of.destination
            and (place.meter, place.customer in customers) == (of.meter, True)
            and place.tenant_id != of.tenant_id
            and place.start_us < of.end_us
            and place.end_us > of.start_us
        )

    def _invoiced(
        self,
        number: int,
        stored: StoredInvoice,
        counted: Sequence[MeterName],
    ) -> Iterator[InvoicedUsage]:
        prices: dict[tuple[MeterName, Window], dict[tuple[str, str], Decimal]] = {}
        for line in stored.invoice.lines:
            of = line.selection
            own = line.kind is LineKind.USAGE and line.adjusts is None
            if own and of is not None and not of.where:
                units = prices.setdefault((of.meter, line.segment), {})
                price = (line.plan, line.price_id)
                units[price] = units.get(price, Decimal(0)) + line.quantity
        for meter in sorted({meter for meter, _ in prices}):
            period = stored.invoice.period
            used = [*self._used(stored, meter, counts=meter in counted)]
            # What another period bills is taken off what was frozen, and once.
            aside = sum(u for at_us, _, other, u in used if period.holds(at_us) and not other)
            invoiced, late = Decimal(0), 0
            for (of_meter, segment), units_of in prices.items():
                if of_meter != meter:
                    continue
                inside = [each for each in used if segment.holds(each[0])]
                kept = sum(units for _, after, other, units in inside if not (after or other))
                invoiced += _most_off(units_of.values(), kept)
                late += sum(units for _, after, other, units in inside if after and not other)
                aside -= sum(units for *_, other, units in inside if not other)
            yield InvoicedUsage(number, meter, invoiced, late, aside)

    def _used(
        self, stored: StoredInvoice, meter: MeterName, *, counts: bool
    ) -> Iterator[tuple[int, bool, bool, int]]:
        """Iterate over usage: when it was, if after the invoice, if billed elsewhere, how much."""
        invoice = stored.invoice
        asked = UsageAsked(
            *(0, Selection(meter, Aggregation.SUM), invoice.period, invoice.period.start_us)
        )
        for event in self.ledger.events.values():
            if (event.tenant_id, event.meter) == (invoice.tenant_id, meter):
                after = event.received_at_us >= stored.created_at_us
                elsewhere = not self.late.keeps(event, asked)
                yield event.event_time_us, after, elsewhere, _units_of(event, counts=counts)

    def _units(
        self, tenant_id: TenantId, meter: MeterName, *, counts: bool
    ) -> Iterator[tuple[int, int, int]]:
        """Iterate over usage: when it was, when it was accepted, and how much."""
        for event in self.ledger.events.values():
            if (event.tenant_id, event.meter) == (tenant_id, meter):
                units = _units_of(event, counts=counts)
                yield event.event_time_us, event.received_at_us, units


def _units_of(event: UsageEvent, *, counts: bool) -> int:
    return int(event.amount > 0) if counts else event.amount


def _most_off(found: Iterable[Decimal], expected: int) -> Decimal:
    """Return the quantity of several prices' of a segment that is most off."""
    return min(found, key=lambda units: (-abs(units - expected), units))
