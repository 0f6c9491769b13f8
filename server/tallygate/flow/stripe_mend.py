"""people ─▶ [ stripe mend ] ─▶ sends: what was left to them is sent again, or closed.

If we die here, what was written stands: what replaces a send, and the note that closes it, are
written together.

Guarantees: a send is said again under another identifier, to the customer its tenant has now, and
once; nothing that may have been taken is, as only its sum can tell.
Refuses to know: Postgres and Stripe.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tallygate.domain.errors import InvalidField
from tallygate.domain.stripe_intent import IntentId, SendState, made_again
from tallygate.domain.stripe_retry import is_too_old
from tallygate.ports import CatalogStore, Clock
from tallygate.ports.stripe_store import LeftSend, StripeUpkeep

PAGE = 500


@dataclass(slots=True)
class Mended:
    """How many were sent again, and how many cannot be."""

    again: int = 0
    too_old: int = 0
    doubtful: int = 0
    without_customer: int = 0


class Mend:
    """What an operator does to sends."""

    def __init__(self, upkeep: StripeUpkeep, catalogs: CatalogStore, clock: Clock) -> None:
        self._upkeep = upkeep
        self._catalogs = catalogs
        self._clock = clock

    async def retry(
        self, destination: str, *, code: str = "", ids: Sequence[IntentId] | None = None
    ) -> Mended:
        """Have rejected sends said again, all, those of a code, or those named."""
        mended, after = Mended(), IntentId(0)
        while True:
            page = await self._upkeep.left(
                destination, [SendState.REJECTED], code=code, ids=ids, after=after, limit=PAGE
            )
            if not page:
                return mended
            await self._again(destination, page, mended)
            after = page[-1].intent_id

    async def _again(self, destination: str, page: Sequence[LeftSend], mended: Mended) -> None:
        now_us = self._clock.now_us()
        tenants = await self._catalogs.tenants_named(
            sorted({left.intent.place.tenant_id for left in page})
        )
        replacements = []
        for left in page:
            tenant = tenants.get(left.intent.place.tenant_id)
            customer = tenant.stripe_customer_id if tenant is not None else ""
            if left.doubtful:
                mended.doubtful += 1
            elif is_too_old(left.intent, now_us):
                mended.too_old += 1
            elif not customer:
                mended.without_customer += 1
            else:
                replacements.append(made_again(left.intent, left.intent_id, customer=customer))
        mended.again += await self._upkeep.replace(destination, replacements, now_us)

    async def close(self, destination: str, ids: Sequence[IntentId], reason: str) -> int:
        """Close sends that are left to people, by hand; return how many were open.

        Raises `InvalidField` without a reason.
        """
        if not reason.strip():
            raise InvalidField("is required: what became of the usage", field="reason")
        return await self._upkeep.decide(destination, ids, f"by hand: {reason.strip()}")
