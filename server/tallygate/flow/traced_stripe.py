"""stripe send ─▶ [ traced stripe ] ─▶ Stripe: what Stripe is told is recorded as spans.

If we die here, spans that were not sent are lost, and nothing else.

Guarantees: does what it stands around does, and raises what that raises. It is put in only where a
tracer is.
Refuses to know: OpenTelemetry, HTTP, and what becomes of an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tallygate.domain.trace import NOWHERE
from tallygate.ports.stripe import Answer, Outcome, StripeApi
from tallygate.ports.stripe_store import Claimed
from tallygate.ports.tracing import Kind, Span, Tracer, Value, within

WELL: Final = (Outcome.TAKEN, Outcome.REPEATED)


@dataclass(frozen=True, slots=True)
class TracedStripe:
    """A `StripeApi` whose sends begin traces: they tell of sums, and not of single calls."""

    api: StripeApi
    tracer: Tracer

    async def tell(self, claimed: Claimed, *, checked: bool = False) -> Answer:
        """Tell one intent by a call of its own."""
        span = self._begun("stripe send", 1)
        if span is None:
            return await self.api.tell(claimed, checked=checked)
        with within(span):
            return _told(span, await self.api.tell(claimed, checked=checked))

    async def stream(self, batch_key: str, claimed: Sequence[Claimed]) -> Answer:
        """Tell up to 100 meter events in one call."""
        span = self._begun("stripe stream", len(claimed))
        if span is None:
            return await self.api.stream(batch_key, claimed)
        with within(span):
            return _told(span, await self.api.stream(batch_key, claimed))

    async def summed(self, event_name: str, customer: str, from_us: int, to_us: int) -> Decimal:
        """Return what Stripe has of a customer's meter in whole minutes."""
        return await self.api.summed(event_name, customer, from_us, to_us)

    async def item_known(self, claimed: Claimed) -> bool:
        """Say whether an invoice item of this intent is there."""
        return await self.api.item_known(claimed)

    def _begun(self, name: str, count: int) -> Span | None:
        attributes: dict[str, Value] = {
            "messaging.system": "stripe",
            "messaging.operation.type": "send",
            "messaging.batch.message_count": count,
        }
        return self.tracer.begin(name, Kind.CLIENT, NOWHERE, attributes)


def _told(span: Span, answer: Answer) -> Answer:
    span.tell("tallygate.outcome", answer.outcome.value)
    if answer.outcome not in WELL:
        span.tell("tallygate.code", answer.code)
        # It has ended by then, and its later end, which knows of no error, says nothing.
        span.end(answer.outcome.value)
    return answer
