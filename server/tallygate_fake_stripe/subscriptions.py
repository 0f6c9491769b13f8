"""Subscriptions over time: their periods, what each bills, and quantities that change within one.

Guarantees: a period's usage is on the invoice that is drafted at its end, a quantity on the one at
its start; a change within a period is prorated by the second, and its flags are kept.
Refuses to know: what an invoice makes of a span, and who asks.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from .clock import US_PER_S
from .invoices import Invoice, InvoiceItem, Span
from .periods import period_of
from .pricing import Price, rounded
from .tables import Json

if TYPE_CHECKING:
    from .world import World

ITEMS_MAX: Final = 20
PRORATIONS: Final = ("always_invoice", "create_prorations", "none")


@dataclass(slots=True)
class Item:
    """One price of a subscription."""

    id: str
    subscription: str
    price: Price
    quantity: int | None
    created: int
    # Since when it is billed within the period.
    since: int
    metadata: dict[str, str] = field(default_factory=dict)

    def amount(self) -> int:
        """Return what a whole period of it costs; usage is billed afterwards."""
        return 0 if self.quantity is None else self.price.amount(Decimal(self.quantity))


@dataclass(slots=True)
class Subscription:
    """What a customer is billed again and again."""

    id: str
    customer: str
    currency: str
    created: int
    anchor: int
    livemode: bool
    start_s: int
    end_s: int
    interval: str
    interval_count: int
    items: dict[str, Item] = field(default_factory=dict)
    status: str = "active"
    collection_method: str = "charge_automatically"
    description: str | None = None
    days_until_due: int | None = None
    cancel_at_period_end: bool = False
    canceled_at: int | None = None
    ended_at: int | None = None
    latest_invoice: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    # Usage of items that are gone or have another price now.
    left: list[Span] = field(default_factory=list)
    # Every change of an item, with the flags it came with.
    changes: list[Json] = field(default_factory=list)

    def render(self) -> Json:
        """Return it as the v1 API does."""
        rows = [render_item(self, item) for item in self.items.values()]
        url = f"/v1/subscription_items?subscription={self.id}"
        return {
            "id": self.id,
            "object": "subscription",
            "billing_cycle_anchor": self.anchor,
            "billing_mode": {"type": "flexible"},
            "cancel_at": None,
            "cancel_at_period_end": self.cancel_at_period_end,
            "canceled_at": self.canceled_at,
            "collection_method": self.collection_method,
            "created": self.created,
            "currency": self.currency,
            "customer": self.customer,
            "days_until_due": self.days_until_due,
            "description": self.description,
            "ended_at": self.ended_at,
            "items": {"object": "list", "data": rows, "has_more": False, "url": url},
            "latest_invoice": self.latest_invoice,
            "livemode": self.livemode,
            "metadata": self.metadata,
            "start_date": self.created,
            "status": self.status,
        }


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of an item, and how it is prorated."""

    at_s: int
    proration: str
    price: Price | None = None
    quantity: int | None = None


class Subscriptions:
    """The subscriptions of one account."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def begin(self, subscription: Subscription, *, prorated: bool, now_us: int) -> None:
        """Start a subscription: its first invoice is finalized at once, as Stripe's is."""
        world = self._world
        world.subscriptions.add(subscription.id, subscription)
        for item in subscription.items.values():
            world.subscription_items.add(item.id, subscription)
        spans = list(self._ahead(subscription, prorated=prorated))
        invoice = self._invoice(subscription, spans, "subscription_create", now_us)
        invoice.auto_advance = False
        world.billing.draft(invoice, take_pending=True, now_us=now_us)
        world.billing.finalize(invoice, now_us)
        self._await_end(subscription)
        self.tell("created", subscription, now_us)

    def add_item(self, subscription: Subscription, item: Item, change: Change) -> None:
        """Put another price on a subscription."""
        subscription.items[item.id] = item
        self._world.subscription_items.add(item.id, subscription)
        subscription.changes.append(_noted(item, change, "added"))
        self._prorate(subscription, item, 0, item.amount(), change)

    def change_item(self, subscription: Subscription, item: Item, change: Change) -> None:
        """Give an item another quantity or another price."""
        before = item.amount()
        if change.price is not None and change.price is not item.price:
            self._leave(subscription, item, change.at_s)
            item.price = change.price
        item.quantity = None if item.price.metered else change.quantity
        subscription.changes.append(_noted(item, change, "changed"))
        self._prorate(subscription, item, before, item.amount(), change)

    def remove_item(self, subscription: Subscription, item: Item, change: Change) -> None:
        """Take an item off; its usage so far is billed with the period."""
        self._leave(subscription, item, change.at_s)
        del subscription.items[item.id]
        self._world.subscription_items.remove(item.id)
        subscription.changes.append(_noted(item, change, "removed"))
        self._prorate(subscription, item, item.amount(), 0, change)

    def cancel(
        self, subscription: Subscription, *, invoice_now: bool, prorate: bool, now_us: int
    ) -> None:
        """End a subscription now; usage so far is billed only where an invoice is asked for."""
        now_s = now_us // US_PER_S
        if prorate:
            change = Change(now_s, "create_prorations")
            for item in subscription.items.values():
                self._prorate(subscription, item, item.amount(), 0, change)
        self._end(subscription, now_s)
        if invoice_now:
            spans = list(self._behind(subscription, now_s))
            invoice = self._invoice(subscription, spans, "subscription_update", now_us)
            invoice.end_s = now_s
            self._world.billing.draft(invoice, take_pending=True, now_us=now_us)
            self._world.billing.finalize(invoice, now_us)
        self.tell("deleted", subscription, now_us)

    def upcoming(self, subscription: Subscription, now_us: int) -> Json:
        """Return what the next invoice would say by now."""
        spans = list(self._behind(subscription, subscription.end_s))
        if not subscription.cancel_at_period_end:
            spans += self._quantities(subscription, *self._next(subscription))
        invoice = self._invoice(subscription, spans, "upcoming", now_us, id_="upcoming_in")
        return self._world.billing.preview(invoice)

    def tell(self, what: str, subscription: Subscription, now_us: int) -> None:
        """Tell of something that became of a subscription."""
        kind = f"customer.subscription.{what}"
        self._world.notices.snapshot(kind, now_us, subscription.render())

    def _await_end(self, subscription: Subscription) -> None:
        due_us = subscription.end_s * US_PER_S
        self._world.schedule.at(due_us, lambda at_us: self._roll(subscription, at_us))

    def _roll(self, subscription: Subscription, now_us: int) -> None:
        """Go on to the next period."""
        if subscription.status != "active":
            return
        spans = list(self._behind(subscription, subscription.end_s))
        invoice = self._invoice(subscription, spans, "subscription_cycle", now_us)
        subscription.left = []
        if subscription.cancel_at_period_end:
            self._end(subscription, now_us // US_PER_S)
            self.tell("deleted", subscription, now_us)
        else:
            subscription.start_s, subscription.end_s = self._next(subscription)
            for item in subscription.items.values():
                item.since = subscription.start_s
            invoice.spans += self._ahead(subscription, prorated=True)
            self._await_end(subscription)
        self._world.billing.draft(invoice, take_pending=True, now_us=now_us)

    def _next(self, subscription: Subscription) -> tuple[int, int]:
        each = subscription
        return period_of(each.anchor, each.interval, each.interval_count, each.end_s)

    def _end(self, subscription: Subscription, now_s: int) -> None:
        subscription.status = "canceled"
        subscription.ended_at = now_s
        subscription.canceled_at = subscription.canceled_at or now_s

    def _behind(self, subscription: Subscription, end_s: int) -> list[Span]:
        """Return the usage of the period that ends."""
        usage = [
            Span(subscription.id, item.id, item.price, item.since, end_s)
            for item in subscription.items.values()
            if item.price.metered
        ]
        return [*subscription.left, *usage]

    def _ahead(self, subscription: Subscription, *, prorated: bool) -> list[Span]:
        """Return the quantities of the period that begins; of a shorter first one, their share."""
        each = subscription
        start_s, end_s = period_of(each.anchor, each.interval, each.interval_count, each.start_s)
        share = Decimal(each.end_s - each.start_s) / (end_s - start_s)
        spans = self._quantities(each, each.start_s, each.end_s)
        if share == 1:
            return spans
        if not prorated:
            return []
        return [
            Span(s.subscription, s.item, s.price, s.start_s, s.end_s, s.quantity, share)
            for s in spans
        ]

    def _quantities(self, subscription: Subscription, start_s: int, end_s: int) -> list[Span]:
        return [
            Span(subscription.id, item.id, item.price, start_s, end_s, Decimal(item.quantity))
            for item in subscription.items.values()
            if item.quantity is not None
        ]

    def _leave(self, subscription: Subscription, item: Item, at_s: int) -> None:
        """Keep an item's usage so far for the invoice at the period's end."""
        if item.price.metered and at_s > item.since:
            span = Span(subscription.id, item.id, item.price, item.since, at_s)
            subscription.left.append(span)
            item.since = at_s

    def _invoice(
        self,
        subscription: Subscription,
        spans: list[Span],
        reason: str,
        now_us: int,
        *,
        id_: str | None = None,
    ) -> Invoice:
        invoice = Invoice(
            id=id_ or self._world.mint("in"),
            customer=subscription.customer,
            currency=subscription.currency,
            created=now_us // US_PER_S,
            start_s=subscription.start_s,
            end_s=subscription.end_s,
            livemode=subscription.livemode,
            billing_reason=reason,
            subscription=subscription.id,
            collection_method=subscription.collection_method,
            spans=spans,
        )
        if id_ is None:
            subscription.latest_invoice = invoice.id
        return invoice

    def _prorate(
        self, subscription: Subscription, item: Item, before: int, after: int, change: Change
    ) -> None:
        """Give back what is not used of the old amount, and bill what is left of the new one."""
        if change.proration == "none":
            return
        start_s, end_s, world = subscription.start_s, subscription.end_s, self._world
        share = Decimal(end_s - change.at_s) / (end_s - start_s)
        for amount, text in ((-before, "Unused time"), (after, "Remaining time")):
            if amount == 0:
                continue
            prorated = rounded(amount * share)
            made = InvoiceItem(
                id=world.mint("ii"),
                customer=subscription.customer,
                currency=subscription.currency,
                amount=prorated,
                created=change.at_s,
                livemode=subscription.livemode,
                start_s=change.at_s,
                end_s=end_s,
                unit_amount=Decimal(prorated),
                description=f"{text} on {item.price.nickname or item.price.product}",
                discountable=False,
                subscription=subscription.id,
                subscription_item=item.id,
                price=item.price.id,
                product=item.price.product,
                proration=True,
            )
            world.invoice_items.add(made.id, made)

    def invoice_changes(self, subscription: Subscription, now_us: int) -> None:
        """Bill what changes made pending, at once, as `always_invoice` asks for."""
        invoice = self._invoice(subscription, [], "subscription_update", now_us)
        invoice.auto_advance = False
        self._world.billing.draft(invoice, take_pending=True, now_us=now_us)
        self._world.billing.finalize(invoice, now_us)


def render_item(subscription: Subscription, item: Item) -> Json:
    """Return an item as the v1 API does."""
    shown: Json = {
        "id": item.id,
        "object": "subscription_item",
        "created": item.created,
        "current_period_end": subscription.end_s,
        "current_period_start": subscription.start_s,
        "discounts": [],
        "metadata": item.metadata,
        "price": item.price.render(),
        "subscription": subscription.id,
        "tax_rates": [],
    }
    return shown if item.quantity is None else shown | {"quantity": item.quantity}


def _noted(item: Item, change: Change, what: str) -> Json:
    return {
        "subscription": item.subscription,
        "subscription_item": item.id,
        "what": what,
        "at": change.at_s,
        "price": item.price.id,
        "quantity": item.quantity,
        "proration_behavior": change.proration,
    }
