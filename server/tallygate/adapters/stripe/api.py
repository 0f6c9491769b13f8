"""Tells Stripe of usage, and asks what it has summed up: the `StripeApi` port.

Guarantees: an intent always goes out under its own identifier, in decimal strings; what comes of a
call is an answer, never an exception.
Refuses to know: when to send, and what to do about an answer.
"""

import json
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal, assert_never

import stripe

from tallygate.adapters.stripe.answers import TAKEN, answer_of, reason_of
from tallygate.adapters.stripe.client import Client
from tallygate.adapters.stripe.secrets import KeyMissing
from tallygate.domain.stripe_intent import Intent, IntentKind
from tallygate.domain.stripe_retry import KEY_BURNT
from tallygate.domain.stripe_sync import CUSTOMER_KEY, VALUE_KEY
from tallygate.domain.window import MINUTE_US, SECOND_US, to_datetime
from tallygate.ports import Clock
from tallygate.ports.stripe import Answer, Outcome, StripeRefused, StripeSilent
from tallygate.ports.stripe_store import Claimed

# A session is given up this long before its end, so that no call meets it.
SESSION_MARGIN_US: Final = MINUTE_US
PAGE: Final = 100
# By how much Stripe's clock and ours may differ.
CLOCKS_S: Final = 300
EVENTS_PATH: Final = "/v1/billing/meter_events"
# Where an item's identifier stands, so that it can be found again.
ITEM_KEY: Final = "tallygate_identifier"


class StripeUsage:
    """The `StripeApi` port over Stripe's client."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._meters: dict[str, str] = {}
        self._items: dict[tuple[str, str], str] = {}
        self._token = ""
        self._token_until_us = 0

    async def tell(self, claimed: Claimed, *, checked: bool = False) -> Answer:
        """Tell one intent by a call of its own; `checked` has Stripe judge it before it answers."""
        intent = claimed.intent
        match intent.kind:
            case IntentKind.DELTA | IntentKind.NEGATIVE | IntentKind.TOTAL:
                call = self._checked_event(claimed) if checked else self._event(claimed)
            case IntentKind.CANCEL:
                call = self._cancel(claimed)
            case IntentKind.ITEM:
                call = self._item(claimed)
            case IntentKind.QUANTITY:
                call = self._quantity(claimed)
            case _:
                assert_never(intent.kind)
        return await _answered(call)

    async def stream(self, batch_key: str, claimed: Sequence[Claimed]) -> Answer:
        """Tell up to 100 meter events in one call, which Stripe judges afterwards."""
        answer = await _answered(self._streamed(batch_key, claimed))
        if answer.outcome in (Outcome.NOT_SENT, Outcome.KEY_REFUSED):
            self._token_until_us = 0
        return answer

    async def summed(self, event_name: str, customer: str, from_us: int, to_us: int) -> Decimal:
        """Return what Stripe has of a customer's meter in whole minutes."""
        try:
            meter_id = await self._meter_id(event_name)
            found = await self._client.stripe().v1.billing.meters.event_summaries.list_async(
                meter_id,
                {
                    "customer": customer,
                    "start_time": from_us // SECOND_US,
                    "end_time": to_us // SECOND_US,
                    "limit": PAGE,
                },
                self._client.calling(),
            )
        # The client raises whatever its transport does; what it means is told in one place.
        except Exception as error:  # noqa: BLE001
            raise _unanswered(error) from None
        # Each sum comes as a double; spelled as it is, it is the decimal that was meant.
        return sum((Decimal(repr(each.aggregated_value)) for each in found.data), Decimal(0))

    async def item_known(self, claimed: Claimed) -> bool:
        """Say whether an invoice item of this intent is there."""
        intent = claimed.intent
        try:
            items = await self._client.stripe().v1.invoice_items.list_async(
                {"customer": intent.place.customer, "limit": PAGE}, self._client.calling()
            )
            # Newest first: what is older than the first attempt cannot be of this intent.
            async for item in items.auto_paging_iter():
                if item.date < claimed.first_us // SECOND_US - CLOCKS_S:
                    return False
                if _said(item.metadata) == intent.identifier:
                    return True
        # The client raises whatever its transport does; what it means is told in one place.
        except Exception as error:  # noqa: BLE001
            raise _unanswered(error) from None
        return False

    async def _event(self, claimed: Claimed) -> None:
        intent = claimed.intent
        # Nothing of the answer is read, and making an object of it costs a fifth of the call: so
        # the client is asked for a raw one. Its errors are the same.
        await self._client.stripe().raw_request_async(
            "post",
            EVENTS_PATH,
            event_name=intent.event_name,
            payload=_payload(intent),
            identifier=intent.identifier,
            timestamp=intent.timestamp_us // SECOND_US,
            **self._client.calling(_key(claimed)),
        )

    async def _checked_event(self, claimed: Claimed) -> None:
        intent = claimed.intent
        await self._client.stripe().v2.billing.meter_events.create_async(
            {
                "event_name": intent.event_name,
                "payload": _payload(intent),
                "identifier": intent.identifier,
                "timestamp": _rfc3339(intent.timestamp_us),
            },
            self._client.calling(_key(claimed)),
        )

    async def _streamed(self, batch_key: str, claimed: Sequence[Claimed]) -> None:
        options = self._client.calling(batch_key)
        options["api_key"] = await self._session_token()
        await self._client.stripe().v2.billing.meter_event_stream.create_async(
            {
                "events": [
                    {
                        "event_name": each.intent.event_name,
                        "payload": _payload(each.intent),
                        "identifier": each.intent.identifier,
                        "timestamp": _rfc3339(each.intent.timestamp_us),
                    }
                    for each in claimed
                ]
            },
            options,
        )

    async def _cancel(self, claimed: Claimed) -> None:
        await self._client.stripe().v1.billing.meter_event_adjustments.create_async(
            {
                "event_name": claimed.intent.event_name,
                "type": "cancel",
                "cancel": {"identifier": claimed.cancelled},
            },
            self._client.calling(_key(claimed)),
        )

    async def _item(self, claimed: Claimed) -> None:
        intent, place = claimed.intent, claimed.intent.place
        await self._client.stripe().v1.invoice_items.create_async(
            {
                "customer": place.customer,
                "amount": intent.quantity,
                "currency": intent.details.get("currency", ""),
                "description": intent.details.get("description", ""),
                "period": {
                    "start": place.start_us // SECOND_US,
                    "end": place.end_us // SECOND_US,
                },
                "metadata": {ITEM_KEY: intent.identifier, "tenant": place.tenant_id},
            },
            self._client.calling(_key(claimed)),
        )

    async def _quantity(self, claimed: Claimed) -> None:
        intent = claimed.intent
        place = (intent.place.customer, intent.details.get("price", ""))
        if place not in self._items:
            self._items[place] = await self._subscription_item(*place)
        try:
            await self._client.stripe().v1.subscription_items.update_async(
                self._items[place],
                {
                    "quantity": int(intent.value),
                    "proration_behavior": _proration(intent.details.get("proration", "")),
                },
                self._client.calling(_key(claimed)),
            )
        except stripe.InvalidRequestError:
            # The item may be gone: it is looked up anew the next time.
            del self._items[place]
            raise

    async def _subscription_item(self, customer: str, price: str) -> str:
        found = await self._client.stripe().v1.subscriptions.list_async(
            {"customer": customer, "limit": PAGE}, self._client.calling()
        )
        async for subscription in found.auto_paging_iter():
            for item in subscription["items"].data:
                if price in (item.price.lookup_key, item.price.id):
                    return str(item.id)
        raise StripeRefused(f"the customer has no subscription to the price {price}")

    async def _meter_id(self, event_name: str) -> str:
        if event_name not in self._meters:
            found = await self._client.stripe().v1.billing.meters.list_async(
                {"limit": PAGE}, self._client.calling()
            )
            async for meter in found.auto_paging_iter():
                # Of several meters of one name, one is active.
                if meter.status == "active" or meter.event_name not in self._meters:
                    self._meters[meter.event_name] = meter.id
        if event_name not in self._meters:
            raise StripeRefused(f"Stripe has no meter for events named {event_name}")
        return self._meters[event_name]

    async def _session_token(self) -> str:
        now_us = self._clock.now_us()
        if now_us >= self._token_until_us:
            session = await self._client.stripe().v2.billing.meter_event_session.create_async(
                options=self._client.calling()
            )
            ends = datetime.fromisoformat(str(session.expires_at)).astimezone(UTC)
            self._token = session.authentication_token
            self._token_until_us = int(ends.timestamp()) * SECOND_US - SESSION_MARGIN_US
        return self._token


async def _answered(call: Awaitable[None]) -> Answer:
    try:
        await call
    except KeyMissing as missing:
        return Answer(Outcome.KEY_REFUSED, "key_missing", missing.message)
    except StripeRefused as refused:
        return Answer(Outcome.REFUSED, "not_found", refused.message)
    # Whatever went wrong, an answer says whether usage may have arrived.
    except Exception as error:  # noqa: BLE001
        return answer_of(error)
    return TAKEN


def _unanswered(error: Exception) -> StripeSilent | StripeRefused:
    if isinstance(error, StripeRefused):
        return error
    answer = answer_of(error)
    if answer.outcome is Outcome.REFUSED and isinstance(error, stripe.StripeError):
        return StripeRefused(reason_of(error))
    return StripeSilent(answer.reason or "Stripe did not answer")


def _key(claimed: Claimed) -> str:
    """Return the call's idempotency key: the intent's, unless Stripe has an error under it."""
    key = claimed.intent.idempotency_key
    # The identifier stays, by which Stripe knows the event all the same.
    return f"{key}.{claimed.attempt}" if claimed.code == KEY_BURNT else key


def _payload(intent: Intent) -> dict[str, str]:
    text = intent.place.dimensions
    dimensions: dict[str, str] = {} if text == "{}" else json.loads(text)
    return {**dimensions, CUSTOMER_KEY: intent.place.customer, VALUE_KEY: intent.value}


def _said(metadata: stripe.StripeObject | None) -> str:
    found = {} if metadata is None else metadata.to_dict()
    return str(found.get(ITEM_KEY, ""))


def _proration(text: str) -> Literal["always_invoice", "create_prorations", "none"]:
    """Return what was decided, or what Stripe does where nothing was."""
    match text:
        case "always_invoice" | "none":
            return text
        case _:
            return "create_prorations"


def _rfc3339(instant_us: int) -> str:
    return to_datetime(instant_us).strftime("%Y-%m-%dT%H:%M:%S.000Z")
