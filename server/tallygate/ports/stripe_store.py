"""Seams to what Stripe is to be told: intents, their sends, and what is left to people.

Guarantees: what a planner writes is there once, however many plan; a sender's notes count only
while nobody has taken its lanes over.
Refuses to know: Stripe.

Instants are the caller's, so that what is due, late or too old is judged by one clock; leases are
in the store's own time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from tallygate.domain.catalog import Aggregation
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.stripe_intent import Intent, IntentId, IntentPlace, SendState, WindowGap
from tallygate.domain.window import Window


class Source(StrEnum):
    """Of what a window's usage is made."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class Cut:
    """A stretch of one billing period of a tenant with a customer."""

    tenant_id: TenantId
    customer: str
    period_start_us: int
    period_end_us: int
    from_us: int
    to_us: int


@dataclass(frozen=True, slots=True)
class GapQuery:
    """Which windows to compare: those of the cuts that have ended by `settled_us`.

    With `latest` the last intent of a window says what it had, instead of all of them together.
    A delta may be cancelled that was first sent after `cancel_after_us`.

    Usage of `late_since_us` or after that came late for a sealed period, and is billed by a later
    one, counts in that one's window in which it came, or in its last; with `latest` in the window's
    total, else in a gap of its own. None leaves all usage where it is.
    """

    destination: str
    meter: MeterName
    measure: Aggregation
    source: Source
    window_us: int
    settled_us: int
    cuts: tuple[Cut, ...]
    dimensions: tuple[tuple[str, str], ...] = ()
    latest: bool = False
    cancel_after_us: int = 0
    limit: int = 1_000
    late_since_us: int | None = None


class StripeIntents(Protocol):
    """What is intended, beside what was used."""

    async def gaps(self, query: GapQuery) -> list[WindowGap]:
        """Return windows whose usage is not what is intended of them, earliest first."""
        ...

    async def chains(
        self, tenants: Sequence[TenantId], from_us: int, to_us: int
    ) -> Mapping[TenantId, Sequence[Window]]:
        """Return the billing periods that tenants have between two instants, in order.

        A tenant without any is left out. There are no holes between them.
        """
        ...

    async def intend(
        self, intents: Sequence[Intent], now_us: int, *, shadow: bool = False
    ) -> Sequence[str]:
        """Write intents, to be sent from `now_us` on; return the identifiers of those new.

        One whose place in its window, or whose identity, is taken is not written.
        """
        ...

    async def items(
        self, destination: str, places: Sequence[IntentPlace]
    ) -> Mapping[tuple[TenantId, str], str]:
        """Return the identifiers of items that are intended, by tenant and dimensions."""
        ...


@dataclass(frozen=True, slots=True)
class Claimed:
    """An intent to be sent now. `attempt` counts from 1, this one included.

    `doubtful` says that an attempt before may have been taken; the first was at `first_us`.
    `code` is what the last attempt ended with. `cancelled` is the identifier of what a cancel is
    of. `alone` keeps it out of streams. `outdone` says that a later total or quantity stands.
    """

    intent_id: IntentId
    intent: Intent
    attempt: int
    doubtful: bool
    alone: bool
    first_us: int
    code: str = ""
    cancelled: str = ""
    outdone: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """Lanes that are ours: each the sends of one customer's meter, in order."""

    token: str
    lanes: tuple[tuple[Claimed, ...], ...]


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of a claimed send. `unsent` takes the attempt back, as it was never made."""

    intent_id: IntentId
    state: SendState
    due_us: int
    doubtful: bool = False
    unsent: bool = False
    alone: bool = False
    batch_key: str = ""
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PeriodSend:
    """One send of a period, in Stripe's units. `open` may have been taken, the others were."""

    intent_id: IntentId
    value: Decimal
    open: bool
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True)
class LeftSend:
    """A send as people see it."""

    intent_id: IntentId
    intent: Intent
    state: SendState
    doubtful: bool
    attempts: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class StripeDepth:
    """How many sends of a destination are in a state, the oldest usage, and how many are late."""

    destination: str
    state: SendState
    sends: int
    oldest_us: int
    late: int


@dataclass(frozen=True, slots=True)
class ReportedError:
    """What Stripe said afterwards of a call, by the key that the call went under."""

    key: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReportNoted:
    """What a report led to. `new` is false for one that had come before."""

    new: bool
    rejected: int
    opened: int


class StripeSends(Protocol):
    """How far intents have come."""

    async def claim(
        self, destination: str, now_us: int, *, lanes: int, per_lane: int, lease_ms: int
    ) -> Claim:
        """Lease up to so many lanes that are due, and the first sends of each."""
        ...

    async def finish(
        self, token: str, results: Sequence[SendResult], replacements: Sequence[Intent] = ()
    ) -> int:
        """Note results, and write what replaces some, at once; return how many were still ours."""
        ...

    async def release(
        self, token: str, quiet: Mapping[tuple[str, MeterName], int] | None = None
    ) -> None:
        """Give back every lane of a claim.

        From the customers' meters in `quiet` nothing is claimed before an instant.
        """
        ...

    async def period(
        self, destination: str, customer: str, meter: MeterName, window: Window
    ) -> list[PeriodSend]:
        """Return what adds up in a stretch of time: what was taken, and what may have been."""
        ...

    async def depths(self, late_before_us: int) -> list[StripeDepth]:
        """Return what is not done, by destination and state; late is usage of before then."""
        ...


class StripeUpkeep(Protocol):
    """What reports of errors, and people, do to sends."""

    async def report(
        self, destination: str, event_id: str, errors: Sequence[ReportedError], now_us: int
    ) -> ReportNoted:
        """Reject the sends that a report names, once per report.

        Where a key is that of a call that carried many, they are opened again to go alone.
        """
        ...

    async def left(
        self,
        destination: str,
        states: Sequence[SendState],
        *,
        code: str = "",
        ids: Sequence[IntentId] | None = None,
        after: IntentId = IntentId(0),  # noqa: B008  a number
        limit: int = 1_000,
    ) -> list[LeftSend]:
        """Return sends in these states that nothing replaces, by number."""
        ...

    async def replace(self, destination: str, replacements: Sequence[Intent], now_us: int) -> int:
        """Write what replaces open sends, and close these, all or none; return how many.

        Raises `BackendUnavailable` when one is replaced already, or its window is planned just now.
        """
        ...

    async def decide(self, destination: str, ids: Sequence[IntentId], reason: str) -> int:
        """Close open sends as settled; return how many were open."""
        ...

    async def leave_shadow(self, destination: str, from_us: int, now_us: int) -> int:
        """Have what was planned in shadow sent, from an instant of usage on; return how many."""
        ...
