"""Stripe's sums in memory, as reconciliation asks for them.

Guarantees: passes the same contract tests as what asks Stripe's accounts.
Refuses to know: what sums are for.
"""

from dataclasses import dataclass, field
from decimal import Decimal

from tallygate.domain.errors import NotFound
from tallygate.domain.window import Window
from tallygate.testing.stripe import FakeStripeAccount


@dataclass(slots=True)
class FakeStripeSums:
    """The `StripeSums` port over accounts by destination; those in `keyless` cannot be asked."""

    accounts: dict[str, FakeStripeAccount] = field(default_factory=dict)
    keyless: set[str] = field(default_factory=set)
    reads: int = 0

    async def asks(self, destination: str) -> bool:
        """Say whether an account can be asked now."""
        return destination in self.accounts and destination not in self.keyless

    async def summed(
        self, destination: str, event_name: str, customer: str, window: Window
    ) -> Decimal:
        """Return what an account has of a customer's meter, in its own unit."""
        if destination not in self.accounts:
            raise NotFound(f"the catalog has no destination {destination} of kind stripe")
        self.reads += 1
        account = self.accounts[destination]
        return await account.summed(event_name, customer, window.start_us, window.end_us)
