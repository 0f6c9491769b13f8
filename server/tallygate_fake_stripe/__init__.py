"""A behavioural fake of Stripe's usage-based billing, for tests: in memory, on a clock of its own.

    async with FakeStripe(clock=VirtualClock()) as stripe:
        ...  # StripeClient(key, base_addresses={"api": stripe.url, "meter_events": stripe.url})

It imports nothing of Tallygate, and Tallygate nothing of it.
"""

from .behaviour import Behaviour, Caps, UnknownCustomer
from .clock import Clock, SystemClock, VirtualClock
from .errors import RateLimitReason
from .faults import Fault, FaultKind, Rule
from .objects import Meter, MeterEvent
from .server import FakeStripe

__all__ = [
    "Behaviour",
    "Caps",
    "Clock",
    "FakeStripe",
    "Fault",
    "FaultKind",
    "Meter",
    "MeterEvent",
    "RateLimitReason",
    "Rule",
    "SystemClock",
    "UnknownCustomer",
    "VirtualClock",
]
