"""Seams to Stripe itself: what is told, what it has summed up, what it says of errors, its catalog.

Guarantees: an answer is a value, whatever happened on the way; what is asked of Stripe and gets no
answer is `StripeSilent`. No answer holds a key.
Refuses to know: HTTP, Stripe's library, and what is done about an answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.stripe_meters import AccountMeter
from tallygate.domain.stripe_prices import AccountPrice
from tallygate.ports.stripe_store import Claimed, ReportedError


class StripeSilent(BackendUnavailable):
    """Stripe did not answer, or not for now."""


class StripeRefused(TallygateError):
    """Stripe refused what was asked of it."""

    reason = "INVALID_FIELD"


class NotSigned(TallygateError):
    """A report's signature is missing, wrong or too old."""

    reason = "INVALID_FIELD"


class Outcome(StrEnum):
    """What became of a call.

    Taken and repeated (known already) are both delivered. Ambiguous may have been taken; not sent,
    throttled, busy and key refused were surely not. Refused never will be.
    """

    TAKEN = "taken"
    REPEATED = "repeated"
    AMBIGUOUS = "ambiguous"
    NOT_SENT = "not_sent"
    THROTTLED = "throttled"
    BUSY = "busy"
    KEY_REFUSED = "key_refused"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """An outcome, why, and for how long to be patient where that was said."""

    outcome: Outcome
    code: str = ""
    reason: str = ""
    retry_after_ms: int = 0


class StripeApi(Protocol):
    """Tells Stripe of usage."""

    async def tell(self, claimed: Claimed, *, checked: bool = False) -> Answer:
        """Tell one intent by a call of its own; `checked` has Stripe judge it before it answers."""
        ...

    async def stream(self, batch_key: str, claimed: Sequence[Claimed]) -> Answer:
        """Tell up to 100 meter events in one call, which Stripe judges afterwards."""
        ...

    async def summed(self, event_name: str, customer: str, from_us: int, to_us: int) -> Decimal:
        """Return what Stripe has of a customer's meter in whole minutes. Raises `StripeSilent`.

        It may be behind by minutes, and does not say so. Raises `StripeRefused` where it has no
        such meter or customer.
        """
        ...

    async def item_known(self, claimed: Claimed) -> bool:
        """Say whether an invoice item of this intent is there. Raises `StripeSilent`."""
        ...


class Pace(Protocol):
    """Keeps calls to so many a second."""

    async def take(self) -> float:
        """Wait for a turn; return for how many seconds."""
        ...


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """A report of errors: the calls it names, and how many errors it counts in all."""

    event_id: str
    errors: tuple[ReportedError, ...]
    total: int
    codes: Mapping[str, int] = field(default_factory=dict)


class StripeReports(Protocol):
    """Reports of errors that Stripe found after it had answered."""

    async def read(self, body: bytes, signature: str) -> ErrorReport | None:
        """Return what a notice leads to, None for one that is about something else.

        Raises `NotSigned`, and `StripeSilent` when the report cannot be fetched now.
        """
        ...


class StripeMeters(Protocol):
    """The meters of an account."""

    async def meters(self) -> list[AccountMeter]:
        """Return all of them, also those that are not active. Raises `StripeSilent`."""
        ...

    async def create_meter(self, wanted: AccountMeter) -> str:
        """Make a meter, once however often it is asked for alike; return its id."""
        ...

    async def rename_meter(self, meter_id: str, display_name: str) -> None:
        """Give a meter another name for people."""
        ...

    async def reactivate_meter(self, meter_id: str) -> None:
        """Have a meter take events again."""
        ...


class StripePrices(Protocol):
    """The prices of an account that go by lookup keys."""

    async def prices(self, lookup_keys: Sequence[str]) -> list[AccountPrice]:
        """Return those that are active under these keys. Raises `StripeSilent`."""
        ...

    async def create_price(self, wanted: AccountPrice) -> str:
        """Make a price that has its lookup key from then on, once for all alike; return its id.

        `price_id` is that of the price which has the key so far, if any: it stays as it is, without
        the key. Raises `StripeRefused`, as where there is no active meter of its event name.
        """
        ...
