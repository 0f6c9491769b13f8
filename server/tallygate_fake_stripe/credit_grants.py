"""Credit grants: given, listed, used up by invoices, expired, voided.

Guarantees: credits pay for usage only, in one currency, in order (priority, then what expires
first, then promotional before paid, then what is effective first); no grant pays more than it has.
Refuses to know: how lines come about.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .calls import Call, Route
from .clock import US_PER_S
from .customers import merged
from .errors import invalid
from .fields import Fields
from .invoices import Invoice, Line
from .tables import Json, listed

if TYPE_CHECKING:
    from .world import World

PATH: Final = "/v1/billing/credit_grants"
SUMMARY: Final = "/v1/billing/credit_balance_summary"
TRANSACTIONS: Final = "/v1/billing/credit_balance_transactions"
PRIORITY_DEFAULT: Final = 50
NEVER: Final = 2**62


@dataclass(slots=True)
class Grant:
    """Credits of a customer."""

    id: str
    customer: str
    currency: str
    value: int
    category: str
    created: int
    livemode: bool
    effective_at: int
    # Empty where every metered price is paid for.
    prices: list[str] = field(default_factory=list)
    expires_at: int | None = None
    voided_at: int | None = None
    name: str | None = None
    priority: int = PRIORITY_DEFAULT
    used: int = 0
    updated: int = 0
    metadata: dict[str, str] = field(default_factory=dict)

    def order(self) -> tuple[int, int, int, int, int]:
        """Return what grants are sorted by when they pay."""
        expires_at = NEVER if self.expires_at is None else self.expires_at
        promotional = 0 if self.category == "promotional" else 1
        return self.priority, expires_at, promotional, self.effective_at, self.created

    def available(self, now_s: int) -> int:
        """Return what it still has."""
        expired = self.expires_at is not None and now_s >= self.expires_at
        if expired or self.voided_at is not None or now_s < self.effective_at:
            return 0
        return self.value - self.used

    def pays(self, line: Line) -> bool:
        """Tell whether it may pay for a line."""
        price = line.price
        return price is not None and price.metered and (not self.prices or price.id in self.prices)

    def render(self) -> Json:
        """Return it as the v1 API does."""
        scope: Json = {"price_type": "metered"}
        if self.prices:
            scope = {"prices": [{"id": each} for each in self.prices]}
        return {
            "id": self.id,
            "object": "billing.credit_grant",
            "amount": _money(self.currency, self.value),
            "applicability_config": {"scope": scope},
            "category": self.category,
            "created": self.created,
            "customer": self.customer,
            "effective_at": self.effective_at,
            "expires_at": self.expires_at,
            "livemode": self.livemode,
            "metadata": self.metadata,
            "name": self.name,
            "priority": self.priority,
            "updated": self.updated,
            "voided_at": self.voided_at,
        }


class Credits:
    """The credits of one account."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def apply(self, invoice: Invoice, now_us: int) -> None:
        """Have grants pay for the usage of an invoice that is being finalized."""
        now_s = now_us // US_PER_S
        grants = sorted(
            (
                grant
                for grant in self._world.grants
                if (grant.customer, grant.currency) == (invoice.customer, invoice.currency)
            ),
            key=Grant.order,
        )
        for line in invoice.lines or []:
            owed = line.amount
            for grant in grants:
                taken = min(owed, grant.available(now_s)) if grant.pays(line) else 0
                if taken > 0:
                    owed -= taken
                    grant.used += taken
                    line.credits.append((self.post(grant, -taken, now_s, invoice.id), taken))

    def post(self, grant: Grant, amount: int, now_s: int, invoice: str | None = None) -> str:
        """Enter what a grant got or gave; return the entry's id."""
        credit, debit = None, None
        if amount >= 0:
            kind = "credits_granted"
            credit = {"amount": _money(grant.currency, amount), "type": kind}
        else:
            applied = {"invoice": invoice, "invoice_line_item": None}
            debit = {
                "amount": _money(grant.currency, -amount),
                "credits_applied": applied,
                "type": "credits_applied",
            }
        id_ = self._world.mint("cbtxn")
        entry: Json = {
            "id": id_,
            "object": "billing.credit_balance_transaction",
            "created": now_s,
            "credit": credit,
            "credit_grant": grant.id,
            "customer": grant.customer,
            "debit": debit,
            "effective_at": now_s,
            "livemode": grant.livemode,
            "type": "credit" if credit else "debit",
        }
        self._world.credit_entries.add(id_, entry)
        return id_


def create(call: Call) -> Json:
    """Give a customer credits."""
    fields, world = call.fields, call.world
    customer = fields.needed("customer")
    world.customers.named(customer, "customer")
    amount, config = fields.below("amount"), fields.below("applicability_config")
    amount.needed("type")
    amount.choice("type", ("monetary",))
    monetary, scope = amount.below("monetary"), config.below("scope")
    value, currency = monetary.needed_integer("value"), monetary.needed("currency", longest=3)
    prices = _prices(scope, world)
    category = fields.choice("category", ("paid", "promotional"))
    effective_at, expires_at = fields.integer("effective_at"), fields.integer("expires_at")
    priority = fields.integer("priority")
    name, metadata = fields.text("name", longest=100), fields.strings("metadata")
    for each in (fields, amount, config, monetary, scope):
        each.done()
    if value <= 0:
        raise monetary.fault("value", "must be more than 0")
    if priority is not None and not 0 <= priority <= 100:
        raise fields.fault("priority", "must be from 0 to 100")
    grant = Grant(
        id=world.mint("credgr"),
        customer=customer,
        currency=currency.lower(),
        value=value,
        category=category or "paid",
        created=call.now_s,
        livemode=world.livemode,
        effective_at=effective_at or call.now_s,
        prices=prices,
        expires_at=expires_at,
        name=name,
        priority=PRIORITY_DEFAULT if priority is None else priority,
        updated=call.now_s,
        metadata=metadata,
    )
    world.grants.add(grant.id, grant)
    world.credits.post(grant, value, call.now_s)
    return grant.render()


def retrieve(call: Call) -> Json:
    """Return a grant."""
    grant = call.world.grants.get(call.ids[0])
    call.fields.done()
    return grant.render()


def update(call: Call) -> Json:
    """Change when a grant expires, and what is said of it."""
    grant, fields = call.world.grants.get(call.ids[0]), call.fields
    expires_at, metadata = fields.integer("expires_at"), merged(grant.metadata, fields)
    sent = fields.has("expires_at")
    fields.done()
    grant.expires_at = expires_at if sent else grant.expires_at
    grant.metadata, grant.updated = metadata, call.now_s
    return grant.render()


def expire(call: Call) -> Json:
    """Have a grant end now."""
    grant = call.world.grants.get(call.ids[0])
    call.fields.done()
    if grant.voided_at is not None:
        raise invalid("The grant is void.")
    grant.expires_at = grant.updated = call.now_s
    return grant.render()


def void(call: Call) -> Json:
    """Have a grant that nothing was paid from be none."""
    grant = call.world.grants.get(call.ids[0])
    call.fields.done()
    if grant.used:
        raise invalid("A grant that was used cannot be voided.")
    grant.voided_at = grant.updated = call.now_s
    return grant.render()


def list_all(call: Call) -> Json:
    """Return a page of grants, newest first."""
    customer = call.fields.text("customer")
    rows = [grant for grant in call.world.grants if customer in (None, grant.customer)]
    page = listed(PATH, rows, call.fields, Grant.render)
    call.fields.done()
    return page


def summary(call: Call) -> Json:
    """Return what a customer has in credits."""
    fields, world = call.fields, call.world
    customer = fields.needed("customer")
    world.customers.named(customer, "customer")
    wanted = fields.below("filter")
    wanted.needed("type")
    kind = wanted.choice("type", ("applicability_scope", "credit_grant"))
    name, scope = wanted.text("credit_grant"), wanted.below("applicability_scope")
    prices = _prices(scope, world)
    for each in (fields, wanted, scope):
        each.done()
    rows = [grant for grant in world.grants if grant.customer == customer]
    if kind == "credit_grant":
        rows = [grant for grant in rows if grant.id == name]
    elif prices:
        rows = [grant for grant in rows if not grant.prices or set(prices) & set(grant.prices)]
    balances: dict[str, int] = {}
    for grant in rows:
        left = grant.available(call.now_s)
        balances[grant.currency] = balances.get(grant.currency, 0) + left
    return {
        "object": "billing.credit_balance_summary",
        "balances": [
            {"available_balance": _money(*each), "ledger_balance": _money(*each)}
            for each in balances.items()
        ],
        "customer": customer,
        "livemode": world.livemode,
    }


def list_transactions(call: Call) -> Json:
    """Return a page of what a customer's grants got and gave, newest first."""
    customer, grant = call.fields.needed("customer"), call.fields.text("credit_grant")
    rows = [
        each
        for each in call.world.credit_entries
        if each["customer"] == customer and grant in (None, each["credit_grant"])
    ]
    page = listed(TRANSACTIONS, rows, call.fields, dict)
    call.fields.done()
    return page


def _prices(scope: Fields, world: "World") -> list[str]:
    """Read which prices a scope names, none where it is all that are metered."""
    scope.choice("price_type", ("metered",))
    names = []
    for row in scope.rows("prices"):
        name = row.needed("id")
        row.done()
        if not world.prices.named(name, row.name("id")).metered:
            raise row.fault("id", "is no metered price")
        names.append(name)
    if not names and not scope.has("price_type"):
        raise scope.fault("price_type", "or prices must be there")
    return names


def _money(currency: str, value: int) -> Json:
    return {"monetary": {"currency": currency, "value": value}, "type": "monetary"}


_READ: Final = "credit_grant_read"
_WRITE: Final = "credit_grant_write"

ROUTES: Final = (
    Route("POST", PATH, create, _WRITE),
    Route("GET", PATH, list_all, _READ),
    Route("GET", f"{PATH}/{{}}", retrieve, _READ),
    Route("POST", f"{PATH}/{{}}", update, _WRITE),
    Route("POST", f"{PATH}/{{}}/expire", expire, _WRITE),
    Route("POST", f"{PATH}/{{}}/void", void, _WRITE),
    Route("GET", SUMMARY, summary, _READ),
    Route("GET", TRANSACTIONS, list_transactions, _READ),
)
