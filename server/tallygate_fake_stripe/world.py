"""All that one account has, in one mode.

Guarantees: accounts, and live and sandbox mode, know nothing of each other.
Refuses to know: requests.
"""

from .alerts import Alert, Alerts
from .behaviour import Behaviour, Caps
from .clock import Schedule
from .credit_grants import Credits, Grant
from .idempotency import IdempotencyKeys
from .invoices import Invoice, InvoiceItem, Invoices
from .limits import RateLimits, Slots
from .notices import Notices
from .objects import Meter
from .post import Post
from .pricing import Price
from .reports import Reports
from .sessions import Sessions
from .subscriptions import Subscription, Subscriptions
from .tables import Json, Mint, Table
from .usage import Usage


class World:
    """The objects, the usage and the limits of an account."""

    def __init__(
        self,
        account: str,
        *,
        livemode: bool,
        connected: bool,
        behaviour: Behaviour,
        caps: Caps,
        schedule: Schedule,
        post: Post,
        mint: Mint,
        sessions: Sessions,
    ) -> None:
        self.account = account
        self.livemode = livemode
        self.connected = connected
        self.behaviour = behaviour
        self.caps = caps
        self.schedule = schedule
        self.post = post
        self.mint = mint
        self.sessions = sessions
        self.limits = RateLimits(livemode=livemode, connect=connected)
        self.slots = Slots()
        self.keys = IdempotencyKeys(caps.idempotency_keys)
        self.meters: Table[Meter] = Table("billing meter", caps.objects)
        self.meters_by_event: dict[str, Meter] = {}
        self.customers: Table[Json] = Table("customer", caps.objects)
        self.products: Table[Json] = Table("product", caps.objects)
        self.prices: Table[Price] = Table("price", caps.objects)
        self.subscriptions: Table[Subscription] = Table("subscription", caps.objects)
        # An item's subscription, by the item's id.
        self.subscription_items: Table[Subscription] = Table("subscription item", caps.objects)
        self.invoice_items: Table[InvoiceItem] = Table("invoiceitem", caps.objects)
        self.invoices: Table[Invoice] = Table("invoice", caps.objects)
        self.grants: Table[Grant] = Table("credit grant", caps.objects)
        self.credit_entries: Table[Json] = Table("credit balance transaction", caps.objects)
        self.alerts: Table[Alert] = Table("alert", caps.objects)
        self.adjustments: Table[Json] = Table("meter event adjustment", caps.objects)
        self.notices = Notices(self)
        self.reports = Reports(self)
        self.usage = Usage(self)
        self.alerting = Alerts(self)
        self.billing = Invoices(self)
        self.subscribing = Subscriptions(self)
        self.credits = Credits(self)

    def add_customer(self, id_: str, now_s: int, **said: object) -> Json:
        """Have a customer. Raises `StripeFault` where there are too many."""
        customer: Json = {
            "id": id_,
            "object": "customer",
            "created": now_s,
            "livemode": self.livemode,
            "metadata": {},
            "name": None,
            "email": None,
            "description": None,
            **said,
        }
        return self.customers.add(id_, customer)
