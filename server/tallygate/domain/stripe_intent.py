"""Intents: what Stripe is to be told, written down before it is told.

Guarantees: an intent never changes; the same usage makes the same identifiers, so that a database
that was restored says again what it had said, and Stripe knows it.
Refuses to know: what became of an intent; that is its send.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, NewType

from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.stripe_sync import StripeSync, sent_value, units_max

IntentId = NewType("IntentId", int)

IDENTIFIER_LENGTH_MAX: Final = 100
# The number of an intent that the store is to number.
NEXT: Final = 0
# 160 bits: no two intents of ours meet.
_HASH_LENGTH: Final = 40


class IntentKind(StrEnum):
    """What an intent asks for.

    A delta adds usage, a negative takes some back, a cancel takes one delta back whole, a total
    replaces what a window had. An item is a line of an invoice, a quantity a subscription's.
    """

    DELTA = "delta"
    NEGATIVE = "negative"
    CANCEL = "cancel"
    TOTAL = "total"
    ITEM = "item"
    QUANTITY = "quantity"


ADDING: Final = frozenset({IntentKind.DELTA, IntentKind.NEGATIVE, IntentKind.CANCEL})
"""Kinds whose repetition would count twice, and which Stripe's summaries add up."""


class SendState(StrEnum):
    """How far an intent has come.

    Shadow is never sent. Ambiguous may have been taken. Settled was found to have been taken, or
    was replaced after it was found not to. Too old is left to people, as a rejected one is.
    """

    PENDING = "pending"
    SENDING = "sending"
    AMBIGUOUS = "ambiguous"
    DELIVERED = "delivered"
    SETTLED = "settled"
    REJECTED = "rejected"
    TOO_OLD = "too_old"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class IntentPlace:
    """Where an intent's usage belongs: whose it is, and its window within a billing period.

    `dimensions` is a JSON object of payload keys, in the database's own spelling.
    """

    tenant_id: TenantId
    customer: str
    meter: MeterName
    dimensions: str
    start_us: int
    end_us: int
    period_start_us: int
    period_end_us: int


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing to tell Stripe, before it has a number.

    `quantity` is in our smallest unit, or the currency's for an item; `value` is the text that is
    sent. `seq` counts the intents of one window, from 1. `replaces` and `cancels` name others.
    `closed_start_us` is that of the sealed period which the usage came too late for, and which is
    billed here for it; 0 for usage of before the first period, None for a window's own.
    """

    destination: str
    place: IntentPlace
    seq: int
    kind: IntentKind
    quantity: int
    value: str
    event_name: str
    timestamp_us: int
    identifier: str
    idempotency_key: str
    replaces: IntentId | None = None
    cancels: IntentId | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    closed_start_us: int | None = None

    def with_details(self, more: Mapping[str, str]) -> "Intent":
        """Return the intent with more of them."""
        return replace(self, details={**self.details, **more})


@dataclass(frozen=True, slots=True)
class WindowGap:
    """A window whose usage is not what is intended of it.

    `seq` is the last intent's. `cancellable` is a delta that was delivered a short while ago and is
    as large as what there is too much. `closed_start_us` is an intent's.
    """

    place: IntentPlace
    total: int
    intended: int
    seq: int
    cancellable: IntentId | None = None
    closed_start_us: int | None = None


def intent_for(destination: str, sync: StripeSync, gap: WindowGap, kind: IntentKind) -> Intent:
    """Return the intent that closes a gap, or the first of several where it is too large for one.

    Of kind delta the sign decides; a total or a quantity is sent whole, however large.
    """
    if kind is not IntentKind.DELTA:
        return _intent(destination, sync, gap, kind, gap.total)
    missing = gap.total - gap.intended
    if missing < 0 and gap.cancellable is not None:
        return _intent(destination, sync, gap, IntentKind.CANCEL, missing)
    most = units_max(sync.scale)
    part = max(-most, min(most, missing))
    kind = IntentKind.DELTA if part > 0 else IntentKind.NEGATIVE
    return _intent(destination, sync, gap, kind, part)


def identity(parts: Sequence[object]) -> tuple[str, str]:
    """Return the identifier and the idempotency key of what these parts tell apart."""
    # Lengths go in, so that no two lists of parts run together alike.
    texts = [str(part) for part in parts]
    joined = "".join(f"{len(text)}:{text}" for text in texts)
    found = hashlib.sha256(joined.encode()).hexdigest()[:_HASH_LENGTH]
    return f"tallygate-{found}", f"tallygate-key-{found}"


@dataclass(frozen=True, slots=True)
class ChargeLine:
    """A line of an invoice that was worked out here: an amount in the currency's smallest unit.

    `line_id` tells it apart among the tenant's lines, for ever.
    """

    tenant_id: TenantId
    line_id: str
    meter: MeterName
    amount: int
    currency: str
    description: str
    from_us: int
    to_us: int


def item_for(destination: str, customer: str, line: ChargeLine) -> Intent:
    """Return the intent of an invoice item: one for each line, whatever else it says."""
    identifier, key = identity(
        (destination, line.tenant_id, line.line_id, line.amount, line.currency)
    )
    return Intent(
        destination=destination,
        place=IntentPlace(
            tenant_id=line.tenant_id,
            customer=customer,
            meter=line.meter,
            dimensions=json.dumps({"line": line.line_id}),
            start_us=line.from_us,
            end_us=line.to_us,
            period_start_us=line.from_us,
            period_end_us=line.to_us,
        ),
        seq=1,
        kind=IntentKind.ITEM,
        quantity=line.amount,
        value=str(line.amount),
        event_name="",
        timestamp_us=line.from_us,
        identifier=identifier,
        idempotency_key=key,
        details={"currency": line.currency.lower(), "description": line.description},
    )


def made_again(of: Intent, intent_id: IntentId, *, customer: str, negative: bool = False) -> Intent:
    """Return an intent that says the same under another identity, to the customer of now.

    An intent is replaced once at most, so its own identifier tells its successor from all others;
    the store numbers it within its window. A cancel that came too late goes on as a `negative`.
    """
    identifier, key = identity(("again", of.identifier))
    kind = IntentKind.NEGATIVE if negative else of.kind
    return replace(
        of,
        place=replace(of.place, customer=customer),
        seq=NEXT,
        kind=kind,
        identifier=identifier,
        idempotency_key=key,
        replaces=intent_id,
        cancels=of.cancels if kind is IntentKind.CANCEL else None,
    )


def _intent(
    destination: str, sync: StripeSync, gap: WindowGap, kind: IntentKind, quantity: int
) -> Intent:
    seq = gap.seq + 1
    place = gap.place
    identifier, key = identity(
        (
            *(destination, place.tenant_id, place.customer, place.meter, place.dimensions),
            *(place.start_us, place.end_us, seq, kind.value, quantity),
            *(() if gap.closed_start_us is None else ("late", gap.closed_start_us)),
        )
    )
    return Intent(
        destination=destination,
        place=place,
        seq=seq,
        kind=kind,
        quantity=quantity,
        value=sent_value(quantity, sync.scale),
        event_name=sync.event_name,
        # The window's first instant lies in its period too, and never ahead of anybody's clock.
        timestamp_us=place.start_us,
        identifier=identifier,
        idempotency_key=key,
        cancels=gap.cancellable if kind is IntentKind.CANCEL else None,
        details={"price": sync.price, "proration": sync.proration.value} if sync.price else {},
        closed_start_us=gap.closed_start_us,
    )
