"""A Stripe account in memory, as the flow sees one: the ports of `ports/stripe.py`.

Guarantees: passes the same contract tests as the adapter over Stripe's client.
Refuses to know: HTTP, and Stripe's limits; for those there is a Stripe of its own in
`tallygate_fake_stripe`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from tallygate.domain.stripe_intent import Intent, IntentKind
from tallygate.domain.stripe_meters import AccountMeter
from tallygate.domain.stripe_prices import AccountPrice
from tallygate.domain.stripe_retry import KEY_BURNT
from tallygate.domain.window import DAY_US, MINUTE_US
from tallygate.ports.stripe import (
    Answer,
    ErrorReport,
    NotSigned,
    Outcome,
    StripeRefused,
    StripeSilent,
)
from tallygate.ports.stripe_store import Claimed

TAKEN: Final = Answer(Outcome.TAKEN)
OLDEST_US: Final = 35 * DAY_US
AHEAD_US: Final = 5 * MINUTE_US
CANCEL_US: Final = DAY_US
GOOD_SIGNATURE: Final = "good"


@dataclass(slots=True)
class Event:
    """Usage that was taken."""

    event_name: str
    customer: str
    identifier: str
    value: Decimal
    timestamp_us: int
    received_us: int


@dataclass(slots=True)
class FakeStripeAccount:
    """The `StripeApi`, `StripeMeters`, `StripePrices` and `StripeReports` ports.

    Set `down` to have nobody there; what `next_answers` holds is answered first, with its effect
    where `effect` says so.
    """

    now_us: Callable[[], int]
    down: bool = False
    effect: bool = False
    next_answers: list[Answer] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    items: dict[str, Intent] = field(default_factory=dict)
    priced: list[AccountPrice] = field(default_factory=list)
    asked_prices: list[AccountPrice] = field(default_factory=list)
    quantities: dict[tuple[str, str], str] = field(default_factory=dict)
    account: list[AccountMeter] = field(default_factory=list)
    reports: dict[bytes, ErrorReport | None] = field(default_factory=dict)
    _answered: dict[str, Answer] = field(default_factory=dict)

    async def tell(self, claimed: Claimed, *, checked: bool = False) -> Answer:
        """Tell one intent by a call of its own."""
        if self.down:
            return Answer(Outcome.NOT_SENT, reason="cannot connect")
        if self.next_answers:
            answer = self.next_answers.pop(0)
            if self.effect:
                self._carry_out(claimed)
            return answer
        key = claimed.intent.idempotency_key
        if claimed.code == KEY_BURNT:
            key = f"{key}.{claimed.attempt}"
        if key not in self._answered:
            answer = self._carry_out(claimed)
            if answer.outcome is not Outcome.TAKEN:
                return answer
            self._answered[key] = answer
        return self._answered[key]

    async def stream(self, batch_key: str, claimed: Sequence[Claimed]) -> Answer:
        """Tell meter events in one call; what is wrong with one is not said here."""
        if self.down:
            return Answer(Outcome.NOT_SENT, reason="cannot connect")
        if self.next_answers:
            return self.next_answers.pop(0)
        for each in claimed:
            self._carry_out(each)
        return TAKEN

    async def summed(self, event_name: str, customer: str, from_us: int, to_us: int) -> Decimal:
        """Return what was taken of a customer's meter between two instants."""
        self._answer()
        self._meter(event_name)
        found = [
            each.value
            for each in self.events
            if (each.event_name, each.customer) == (event_name, customer)
            and from_us <= each.timestamp_us < to_us
        ]
        return sum(found, Decimal(0))

    async def item_known(self, claimed: Claimed) -> bool:
        """Say whether an invoice item of this intent is there."""
        self._answer()
        return claimed.intent.identifier in self.items

    async def meters(self) -> list[AccountMeter]:
        """Return all meters."""
        self._answer()
        return list(self.account)

    async def create_meter(self, wanted: AccountMeter) -> str:
        """Make a meter, once however often it is asked for alike."""
        self._answer()
        for each in self.account:
            if each == replace(wanted, meter_id=each.meter_id):
                return each.meter_id
        meter_id = f"mtr_{len(self.account) + 1}"
        self.account.append(replace(wanted, meter_id=meter_id))
        return meter_id

    async def rename_meter(self, meter_id: str, display_name: str) -> None:
        """Give a meter another name."""
        self._change(meter_id, display_name=display_name)

    async def reactivate_meter(self, meter_id: str) -> None:
        """Have a meter take events again."""
        self._change(meter_id, active=True)

    async def prices(self, lookup_keys: Sequence[str]) -> list[AccountPrice]:
        """Return those that are active under these keys."""
        self._answer()
        return [each for each in self.priced if each.lookup_key in lookup_keys]

    async def create_price(self, wanted: AccountPrice) -> str:
        """Make a price that has its lookup key from then on, once for all alike."""
        self._answer()
        if wanted in self.asked_prices:
            return f"price_{self.asked_prices.index(wanted) + 1}"
        names = [each.event_name for each in self.account if each.active]
        if wanted.event_name and wanted.event_name not in names:
            raise StripeRefused("no active meter of this event name")
        self.asked_prices.append(wanted)
        made = f"price_{len(self.asked_prices)}"
        others = [each for each in self.priced if each.lookup_key != wanted.lookup_key]
        self.priced = [*others, replace(wanted, price_id=made, name="")]
        return made

    async def read(self, body: bytes, signature: str) -> ErrorReport | None:
        """Return the report that was put for a body."""
        if signature != GOOD_SIGNATURE:
            raise NotSigned
        self._answer()
        return self.reports.get(body)

    def _change(self, meter_id: str, **fields: object) -> None:
        self._answer()
        places = [place for place, each in enumerate(self.account) if each.meter_id == meter_id]
        if not places:
            raise StripeRefused("no such meter")
        changed = replace(self.account[places[0]], **fields)  # type: ignore[arg-type]  # by name
        self.account[places[0]] = changed

    def _carry_out(self, claimed: Claimed) -> Answer:
        intent = claimed.intent
        match intent.kind:
            case IntentKind.CANCEL:
                return self._cancel(claimed)
            case IntentKind.ITEM:
                self.items[intent.identifier] = intent
                return TAKEN
            case IntentKind.QUANTITY:
                place = (intent.place.customer, intent.details.get("price", ""))
                if place not in self.quantities:
                    return Answer(Outcome.REFUSED, "not_found", "no subscription to this price")
                self.quantities[place] = intent.value
                return TAKEN
            case _:
                return self._take(intent)

    def _take(self, intent: Intent) -> Answer:
        now_us = self.now_us()
        if any(each.identifier == intent.identifier for each in self.events):
            return Answer(Outcome.REPEATED)
        if not any(each.event_name == intent.event_name and each.active for each in self.account):
            return Answer(Outcome.REFUSED, "no_meter", "no active meter of this event name")
        if not now_us - OLDEST_US <= intent.timestamp_us <= now_us + AHEAD_US:
            return Answer(Outcome.REFUSED, "timestamp", "the timestamp is out of bounds")
        self.events.append(
            Event(
                intent.event_name,
                intent.place.customer,
                intent.identifier,
                Decimal(intent.value),
                intent.timestamp_us,
                now_us,
            )
        )
        return TAKEN

    def _cancel(self, claimed: Claimed) -> Answer:
        for each in self.events:
            if each.identifier == claimed.cancelled:
                if self.now_us() - each.received_us > CANCEL_US:
                    break
                # The identifier stays known: it is not for another event.
                each.value = Decimal(0)
                return TAKEN
        return Answer(Outcome.REFUSED, "not_found", "nothing to cancel under this identifier")

    def _meter(self, event_name: str) -> AccountMeter:
        for each in self.account:
            if each.event_name == event_name:
                return each
        raise StripeRefused(f"Stripe has no meter for events named {event_name}")

    def _answer(self) -> None:
        if self.down:
            raise StripeSilent
