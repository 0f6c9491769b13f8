"""How a meter's usage goes to Stripe, as the catalog declares it, and what a value is there.

Guarantees: what is sent is an exact decimal of at most 15 digits, never a float; usage that is too
much for one value is divided, never rounded.
Refuses to know: Stripe's interface, tenants, and what was sent.
"""

from dataclasses import dataclass
from decimal import Context, Decimal, Inexact
from enum import StrEnum
from typing import Final

from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US

# What Stripe is known to take without loss; a double holds each such decimal apart from the next.
VALUE_DIGITS_MAX: Final = 15
SCALE_DECIMALS_MAX: Final = 12
# Long enough for events that are on their way, short beside the hour until an invoice is final.
SETTLE_US: Final = 10 * MINUTE_US
# What a meter of Stripe's reads an event's customer and value from, unless it was made otherwise.
CUSTOMER_KEY: Final = "stripe_customer_id"
VALUE_KEY: Final = "value"

# Exact or an error: no quantity may be rounded on its way.
_EXACT: Final = Context(prec=80, traps=[Inexact])


class Way(StrEnum):
    """By which of Stripe's interfaces a meter is billed."""

    METER_EVENTS = "meter_events"
    INVOICE_ITEMS = "invoice_items"
    QUANTITY = "quantity"


class Proration(StrEnum):
    """What a changed quantity does to the amount of the period that lasts; Stripe's own words."""

    CREATE = "create_prorations"
    NONE = "none"
    ALWAYS = "always_invoice"


class SyncWindow(StrEnum):
    """The stretch of time whose usage is sent as one, in UTC."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


WINDOW_US: Final = {
    SyncWindow.MINUTE: MINUTE_US,
    SyncWindow.HOUR: HOUR_US,
    SyncWindow.DAY: DAY_US,
}


class Mode(StrEnum):
    """Which of Stripe's worlds a key is of: its limits differ."""

    LIVE = "live"
    SANDBOX = "sandbox"


@dataclass(frozen=True, slots=True)
class StripeAccount:
    """What a destination of kind `stripe` has beside its key.

    `account` names a connected account. In `shadow` all is planned and recorded, nothing is sent.
    `calls_per_s` replaces the limit that the mode implies, 0 keeps it. The signing secret of the
    endpoint for error reports is in a variable or a file, as the key is. With `fees`, lines of
    issued invoices that are of no meter become items as well.
    """

    mode: Mode = Mode.SANDBOX
    shadow: bool = False
    account: str = ""
    calls_per_s: int = 0
    reports_env: str = ""
    reports_file: str = ""
    fees: bool = False


@dataclass(frozen=True, slots=True)
class StripeSync:
    """How one meter is synced.

    `scale` is what one of our units is in Stripe's, as a decimal. A window is sent `settle_us`
    after its end, or with `early` while it fills. `dimensions` are pairs of a payload's key and the
    dimension it is taken from. With `overwrite` whole totals are sent, to a meter that keeps the
    last of each window. `price` is the lookup key of the price whose quantity is set, or which an
    invoice item is for; `proration` is what a change of a quantity does.
    """

    way: Way
    event_name: str = ""
    since_us: int = 0
    window: SyncWindow = SyncWindow.HOUR
    scale: str = "1"
    settle_us: int = SETTLE_US
    early: bool = False
    overwrite: bool = False
    v2_stream: bool = False
    dimensions: tuple[tuple[str, str], ...] = ()
    price: str = ""
    destination: str = ""
    proration: Proration = Proration.CREATE

    @property
    def window_us(self) -> int:
        """The window's length."""
        return WINDOW_US[self.window]


def is_scale(text: str) -> bool:
    """Say whether a text is a scale: a decimal above 0, of bounded length, with no exponent."""
    whole, point, fraction = text.partition(".")
    digits = whole + fraction
    return (
        digits.isascii()
        and digits.isdigit()
        and bool(whole)
        and bool(fraction) == bool(point)
        and len(fraction) <= SCALE_DECIMALS_MAX
        and 0 < int(digits) < 10**VALUE_DIGITS_MAX
    )


def sent_value(units: int, scale: str) -> str:
    """Return so many of our units in Stripe's, as a decimal without exponent or idle zeros."""
    value = _EXACT.multiply(Decimal(units), Decimal(scale))
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def units_max(scale: str) -> int:
    """Return the most units that one value can carry."""
    unscaled = int(scale.replace(".", ""))
    return (10**VALUE_DIGITS_MAX - 1) // unscaled


def value_faults(value: str) -> str:
    """Return what keeps a decimal from being sent, empty for nothing."""
    digits = len(value.lstrip("-").replace(".", "").lstrip("0"))
    if digits > VALUE_DIGITS_MAX:
        return f"has {digits} digits, at most {VALUE_DIGITS_MAX} can be sent exactly"
    return ""
