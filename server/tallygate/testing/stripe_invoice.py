"""Issued invoices on their way to Stripe, in memory.

Guarantees: passes the same contract tests as the port in Postgres.
Refuses to know: what an invoice says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tallygate.domain.ids import MeterName
from tallygate.domain.stripe_intent import IntentKind
from tallygate.domain.stripe_invoice import LineId
from tallygate.ports.stripe_invoice import IssuedRevision
from tallygate.testing.billing import FakeInvoiceBooks
from tallygate.testing.stripe_store import FakeStripeStore


@dataclass(slots=True)
class FakeStripeInvoices:
    """The `StripeInvoices` port over issued invoices and intents."""

    books: FakeInvoiceBooks
    store: FakeStripeStore
    noted: set[tuple[str, int]] = field(default_factory=set)

    async def issued(
        self, destination: str, after: int, since_us: int, count: int
    ) -> Sequence[IssuedRevision]:
        """Return up to `count` that were not noted, by number, those above `after`."""
        found = [
            IssuedRevision(number, tenant_id, stored.invoice.period.start_us, stored.revision)
            for number, (tenant_id, stored) in enumerate(self.books.issued, 1)
            if number > after
            and stored.invoice.period.start_us >= since_us
            and (destination, number) not in self.noted
        ]
        return found[:count]

    async def told(
        self, destination: str, of: IssuedRevision, meters: Sequence[MeterName]
    ) -> Mapping[LineId, int]:
        """Return what the revisions before this one have as items, by line and currency."""
        replaced = {row.intent.replaces for row in self.store.rows}
        found: dict[LineId, int] = {}
        for row in self.store.rows:
            intent, details = row.intent, row.intent.details
            mine = (
                intent.destination == destination
                and intent.kind is IntentKind.ITEM
                and intent.place.tenant_id == of.tenant_id
                and intent.place.meter in meters
                and row.intent_id not in replaced
            )
            if not mine or details.get("invoice") != str(of.period_start_us):
                continue
            if int(details["revision"]) < of.revision:
                key = (details["line"], details["currency"].upper())
                found[key] = found.get(key, 0) + intent.quantity
        return found

    async def note(self, destination: str, number: int, items: int) -> None:
        """Note that all items of an invoice are intended; once, however often."""
        self.noted.add((destination, number))
