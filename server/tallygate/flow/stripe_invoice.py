"""issued invoices ─▶ [ stripe invoice ] ─▶ intents: invoice items, of revisions the differences.

If we die here after some items of an invoice were written and before it was noted, it is found
again, and makes the same items, which are known. Where two of us are at work, both make the same.

Guarantees: of each issued revision all items are intended, once; its amounts are the issued ones,
less what the revisions before it have told. Invoices are told in the order they were issued in.
Refuses to know: how amounts are worked out, and how items are sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from tallygate.domain.catalog import Catalog, Destination
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import MeterName
from tallygate.domain.price import NO_METER
from tallygate.domain.stripe_intent import Intent
from tallygate.domain.stripe_invoice import Itemized, item_intent, items_of
from tallygate.domain.stripe_rules import synced
from tallygate.domain.stripe_sync import Way
from tallygate.domain.window import HOUR_US
from tallygate.ports import CatalogStore, Clock
from tallygate.ports.billing import InvoiceBooks
from tallygate.ports.stripe_invoice import IssuedRevision, StripeInvoices
from tallygate.ports.stripe_store import StripeIntents

PAGE: Final = 100
# Numbers are given out before invoices are committed: so far below the last one is looked again.
OVERLAP: Final = 1_000
FULL_EVERY_US: Final = HOUR_US


class ItemObserver(Protocol):
    """What this tells of itself."""

    def planned(self, destination: str, kind: str, count: int) -> None:
        """So many intents of a kind were written."""

    def unsendable(self, destination: str, number: int, reason: str) -> None:
        """An invoice has an amount that Stripe cannot be told; none of it was written."""


@dataclass(frozen=True, slots=True)
class ItemParts:
    """What this works with."""

    invoices: StripeInvoices
    books: InvoiceBooks
    intents: StripeIntents
    catalogs: CatalogStore
    clock: Clock
    observer: ItemObserver


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which meters' lines are items, each of periods from when on; and whether fees are."""

    since_us: Mapping[MeterName, int]
    fees: bool

    def of(self, invoice: IssuedRevision) -> Itemized:
        """Return which lines of an invoice are."""
        meters = (name for name, us in self.since_us.items() if us <= invoice.period_start_us)
        return Itemized(frozenset(meters), self.fees)


@dataclass(slots=True)
class ItemizedCounts:
    """What one round did: invoices looked at, items that are new, invoices without exact units."""

    invoices: int = 0
    items: int = 0
    unsendable: int = 0
    more: bool = False


@dataclass(slots=True)
class StripeItems:
    """Writes what one account is to be told of issued invoices."""

    destination: str
    parts: ItemParts
    _highest: int = field(default=0, init=False)
    _full_us: int | None = field(default=None, init=False)

    async def run_once(self) -> ItemizedCounts:
        """Look at all invoices that are not told; return what was found of them.

        Raises the stores' errors; what was not noted is looked at again.
        """
        now_us = self.parts.clock.now_us()
        catalog = await self.parts.catalogs.effective(now_us)
        counts = ItemizedCounts()
        account = _account(catalog, self.destination)
        wanted = itemized(catalog, self.destination)
        if account is None or wanted is None:
            return counts
        since_us = min(wanted.since_us.values())
        full = self._full_us is None or now_us - self._full_us >= FULL_EVERY_US
        after = 0 if full else max(0, self._highest - OVERLAP)
        while True:
            page = await self.parts.invoices.issued(self.destination, after, since_us, PAGE)
            await self._tell(account, wanted, page, counts)
            if len(page) < PAGE:
                break
            after = page[-1].number
        if full:
            self._full_us = now_us
        return counts

    async def _tell(
        self,
        account: Destination,
        wanted: Wanted,
        page: Sequence[IssuedRevision],
        counts: ItemizedCounts,
    ) -> None:
        named = sorted({each.tenant_id for each in page})
        tenants = await self.parts.catalogs.tenants_named(named)
        for each in page:
            self._highest = max(self._highest, each.number)
            tenant = tenants.get(each.tenant_id)
            # Who has no customer yet may have one soon.
            if tenant is None or not tenant.stripe_customer_id:
                continue
            try:
                made = await self._made(wanted.of(each), each, tenant.stripe_customer_id)
            except InvalidField as error:
                # For people; the next revision is told whole, as this one was not told at all.
                made = []
                counts.unsendable += 1
                self.parts.observer.unsendable(self.destination, each.number, error.message)
            shadow = account.stripe is not None and account.stripe.shadow
            now_us = self.parts.clock.now_us()
            new = await self.parts.intents.intend(made, now_us, shadow=shadow)
            await self.parts.invoices.note(self.destination, each.number, len(made))
            counts.invoices += 1
            counts.items += len(new)
            if new:
                self.parts.observer.planned(self.destination, "item", len(new))

    async def _made(self, which: Itemized, of: IssuedRevision, customer: str) -> list[Intent]:
        """Return the items of a revision. Raises `InvalidField` for what has no unit."""
        stored = await self.parts.books.read(of.tenant_id, of.period_start_us, of.revision)
        if stored is None:
            return []
        meters = sorted({*which.meters, *((NO_METER,) if which.fees else ())})
        told = await self.parts.invoices.told(self.destination, of, meters)
        lines = items_of(stored.invoice, of.revision, which, told)
        return [
            item_intent(self.destination, customer, line, stored.invoice, of.revision)
            for line in lines
        ]


def itemized(catalog: Catalog, destination: str) -> Wanted | None:
    """Return which lines are items of an account; None where none are."""
    meters = {
        meter.name: sync.since_us
        for meter, sync in synced(catalog, destination, Way.INVOICE_ITEMS)
        # Without it lines are given by hand.
        if sync.since_us
    }
    account = _account(catalog, destination)
    if not meters or account is None or account.stripe is None:
        return None
    return Wanted(meters, account.stripe.fees)


def _account(catalog: Catalog, name: str) -> Destination | None:
    found = [each for each in catalog.destinations if each.name == name and each.stripe is not None]
    return found[0] if found else None
