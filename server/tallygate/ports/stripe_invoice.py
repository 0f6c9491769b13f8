"""The seam to issued invoices that are to become invoice items at Stripe.

Guarantees: reading changes nothing; an invoice that was noted for an account is not found again.
Refuses to know: Stripe, and what an invoice says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.stripe_invoice import LineId


@dataclass(frozen=True, slots=True)
class IssuedRevision:
    """An issued invoice: `number` rises with each that is written."""

    number: int
    tenant_id: TenantId
    period_start_us: int
    revision: int


class StripeInvoices(Protocol):
    """Issued invoices, and which of them an account was told."""

    async def issued(
        self, destination: str, after: int, since_us: int, count: int
    ) -> Sequence[IssuedRevision]:
        """Return up to `count` that were not noted, by number, those above `after`.

        Those of periods from `since_us` on, of the last 70 days.
        """
        ...

    async def told(
        self, destination: str, of: IssuedRevision, meters: Sequence[MeterName]
    ) -> Mapping[LineId, int]:
        """Return what the revisions before this one have as items, by line and currency.

        Of lines for these meters; amounts are in the currencies' smallest units.
        """
        ...

    async def note(self, destination: str, number: int, items: int) -> None:
        """Note that all items of an invoice are intended; once, however often."""
        ...
