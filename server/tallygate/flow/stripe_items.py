"""invoice lines ─▶ [ stripe items ] ─▶ intents: amounts that were worked out here.

If we die here between two lists, what was written stands, and the same lines given again are known.

Guarantees: a line is one invoice item, however often it is given; one that comes again with another
amount is refused, and nothing of its list is written.
Refuses to know: how amounts are worked out, and how intents are sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tallygate.domain.catalog import Destination
from tallygate.domain.errors import InvalidField
from tallygate.domain.stripe_intent import ChargeLine, Intent, item_for
from tallygate.ports import CatalogStore, Clock
from tallygate.ports.stripe_store import StripeIntents

PAGE: Final = 1_000


@dataclass(slots=True)
class ItemCounts:
    """How many lines are intended now, were before, and are of tenants without a customer."""

    new: int = 0
    known: int = 0
    without_customer: int = 0


class IntendItems:
    """Writes invoice items for one destination."""

    def __init__(self, intents: StripeIntents, catalogs: CatalogStore, clock: Clock) -> None:
        self._intents = intents
        self._catalogs = catalogs
        self._clock = clock

    async def intend(self, account: Destination, lines: Sequence[ChargeLine]) -> ItemCounts:
        """Write an intent for each line. Raises `InvalidField` for what differs from before."""
        check(lines)
        intents: list[Intent] = []
        for at in range(0, len(lines), PAGE):
            intents += await self._page(account, lines[at : at + PAGE])
        counts = ItemCounts(without_customer=len(lines) - len(intents))
        shadow = account.stripe is not None and account.stripe.shadow
        for at in range(0, len(intents), PAGE):
            page = intents[at : at + PAGE]
            new = await self._intents.intend(page, self._clock.now_us(), shadow=shadow)
            counts.new += len(new)
            counts.known += len(page) - len(new)
        return counts

    async def _page(self, account: Destination, lines: Sequence[ChargeLine]) -> list[Intent]:
        """Return the intents of some lines, none of which differs from one before."""
        named = sorted({line.tenant_id for line in lines})
        tenants = await self._catalogs.tenants_named(named)
        customers = {name: tenant.stripe_customer_id for name, tenant in tenants.items()}
        intents = [
            item_for(account.name, customer, line)
            for line in lines
            if (customer := customers.get(line.tenant_id, ""))
        ]
        before = await self._intents.items(account.name, [each.place for each in intents])
        for each in intents:
            told = before.get((each.place.tenant_id, each.place.dimensions))
            if told is not None and told != each.identifier:
                message = "was given before with another amount or currency"
                raise InvalidField(message, field=f"lines.{each.place.dimensions}")
        return intents


def check(lines: Sequence[ChargeLine]) -> None:
    """Raise `InvalidField` for a line that cannot be an item, or that is there twice."""
    seen: set[tuple[str, str]] = set()
    for index, line in enumerate(lines):
        at = f"lines[{index}]"
        if not line.line_id or len(line.line_id) > 256:
            raise InvalidField("must have 1 to 256 characters", field=f"{at}.id")
        if (line.tenant_id, line.line_id) in seen:
            raise InvalidField("is there twice", field=f"{at}.id")
        seen.add((line.tenant_id, line.line_id))
        if line.from_us >= line.to_us:
            raise InvalidField("must be before `to`", field=f"{at}.from")
        if len(line.currency) != 3:
            raise InvalidField("must be a code of ISO 4217", field=f"{at}.currency")
