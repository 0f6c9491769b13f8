"""What is asked of a shard's accounts, and what comes of it.

Guarantees: an `Operation` carries all that a decision needs but the time and the counters, so that
the Lua script and its specification in `account.py` take the same input.
Refuses to know: tenants' plans, and how any of this travels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tallygate.domain.catalog import OnExceed
from tallygate.domain.detail import Detail, Share
from tallygate.domain.ids import (
    AccountId,
    EventId,
    LimitId,
    MeterName,
    OperationId,
    SourceId,
    TenantId,
)
from tallygate.domain.quick import quick


class Mode(StrEnum):
    """What to do with an operation: the letters are those of the script."""

    CONSUME = "c"
    RECORD = "r"
    CHECK = "k"
    REJECT = "j"
    RESERVE = "v"
    COMMIT = "m"
    RELEASE = "l"
    SETTLE = "p"
    EXTEND = "x"
    REFUND = "f"
    RESET = "z"
    GRANT = "g"
    REBUILD = "b"
    LATE = "t"


class LimitState(StrEnum):
    """Where an account stands against a limit: the letters are those of the script."""

    OK = "o"
    WARNING = "w"
    EXCEEDED = "e"
    SHADOW_EXCEEDED = "s"


@dataclass(frozen=True, slots=True)
class WindowRule:
    """A calendar window's limit. Two windows in a row: [starts_us, turns_us), [turns_us, ends_us).

    The store picks the one that holds its own time, so that one clock decides. `thresholds` are
    pairs of a ratio in ppm and the units at which it is crossed, rising.
    """

    starts_us: int
    turns_us: int
    ends_us: int
    thresholds: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RateRule:
    """A token bucket in exact integers. One unit weighs `weight`; `drain` weight leaves per µs.

    `weight / drain` is the emission interval in µs, in lowest terms. `period_us` bounds how old an
    event may be to count.
    """

    weight: int
    drain: int
    period_us: int


@dataclass(frozen=True, slots=True)
class SlidingRule:
    """A trailing time of `buckets` times `width_us`, counted in buckets of that width.

    Usage counts for at least the trailing time and for at most one bucket's width longer: the limit
    is never passed, but may refuse that much too long.
    """

    width_us: int
    buckets: int


@dataclass(frozen=True, slots=True)
class ConcurrencyRule:
    """Units held at once, by reservations only."""


@dataclass(frozen=True, slots=True)
class BalanceRule:
    """Prepaid credits. `low_at` are units left, falling, at which a crossing is emitted."""

    overdraft: int
    low_at: tuple[int, ...] = ()


Rule = WindowRule | RateRule | SlidingRule | ConcurrencyRule | BalanceRule


@quick
@dataclass(frozen=True, slots=True)
class Charge:
    """One limit as one operation meets it. For a rate, `limit` is the burst; for a balance, 0.

    `account` is whose counter it is. `field` names the counter within the account: it changes when
    the limit comes to measure something else.
    """

    account: AccountId
    field: str
    limit_id: LimitId
    meter: MeterName
    amount: int
    limit: int
    on_exceed: OnExceed
    rule: Rule


class ReservationState(StrEnum):
    """What became of a reservation: the letters are those of the script."""

    HELD = "h"
    COMMITTED = "c"
    RELEASED = "l"
    EXPIRED = "e"
    UNKNOWN = "n"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation as it is stored. `payload` is its events with the amounts reserved.

    HELD is said of an expired one too: `expires_us` and the store's time tell.
    """

    state: ReservationState
    reserved_at_us: int
    expires_us: int
    shares: tuple[Share, ...]
    payload: bytes


@quick
@dataclass(frozen=True, slots=True)
class Operation:
    """One logical call, ready to be decided. `payload` is stored as it is when it is accepted.

    Without `operation_id` it is not remembered. `event_time_us` 0 means now. `event_count` is how
    many sequence numbers the operation takes. `reject_reason` is set in mode REJECT only, `detail`
    in the modes that name it.
    """

    mode: Mode
    tenant_id: TenantId
    shard: int
    operation_id: OperationId | None = None
    fingerprint: str = ""
    charges: tuple[Charge, ...] = ()
    event_count: int = 0
    event_ids: tuple[EventId, ...] = ()
    event_time_us: int = 0
    payload: bytes = b""
    reject_reason: str = ""
    # Loop time, in seconds, past which nobody waits for the answer; it must not be charged then.
    expires_at: float = float("inf")
    # The same instant on the store's clock, 0 for none: a store that was stalled must not charge
    # for somebody who has gone. Answers to repeats are given all the same.
    deadline_us: int = 0
    detail: Detail | None = None
    # The only epoch of the shard's counters in which it may be decided, empty for whichever there
    # is: in another one it is `Fenced`.
    epoch: str = ""
    # Whether somebody may wait for the journal's entry of it, and has to be told its mark.
    marked: bool = True
    # The place in a trace that its events are linked to, empty for none: no part of what it says.
    trace: bytes = b""


@quick
@dataclass(frozen=True, slots=True)
class LimitReading:
    """One limit as it stood when the operation was decided. `resets_at_us` is 0 for never.

    `account` is empty in the answer to a repeat when the limits that apply have changed meanwhile.
    """

    account: AccountId
    limit_id: LimitId
    meter: MeterName
    state: LimitState
    used: int
    limit: int
    remaining: int
    resets_at_us: int


@quick
@dataclass(frozen=True, slots=True)
class Decided:
    """The operation was decided. `first_seq` is 0 when no event was stored.

    Of a COMMIT that is allowed, `refused_by` says that its excess was refused. RESET has two
    readings per charge, before and after.
    """

    allowed: bool
    at_us: int
    readings: Sequence[LimitReading]
    refused_by: LimitId | None = None
    retry_after_us: int | None = None
    first_seq: int = 0
    replayed: bool = False
    # Decided without the store, by the limits' rules for an outage.
    degraded: bool = False
    # Granted from units that were debited before; the store has no record of it yet.
    leased: bool = False
    # Who decided in which epoch, and so under whose numbers; in a repeat's answer as in the first.
    source_id: SourceId = SourceId("")
    # Its mark in this process's journal, 0 where that does not have it.
    journal_mark: int = 0


@dataclass(frozen=True, slots=True)
class Reused:
    """The operation id was used before with other content."""


@dataclass(frozen=True, slots=True)
class Stale:
    """None of the windows offered holds the store's time, which was `now_us`."""

    now_us: int


@dataclass(frozen=True, slots=True)
class Overflowed:
    """The counter of that limit would pass what is exact."""

    limit_id: LimitId


@dataclass(frozen=True, slots=True)
class Unresolved:
    """The reservation is not held any more; nothing was done."""

    state: ReservationState


@dataclass(frozen=True, slots=True)
class Changed:
    """The reservation holds something else than was said; nothing was done. Read it again."""


@dataclass(frozen=True, slots=True)
class RefundExceeds:
    """The event has only so many units left to refund; nothing was done."""

    left: int


@dataclass(frozen=True, slots=True)
class Crowded:
    """An account holds as many reservations as it may; nothing was done."""


@dataclass(frozen=True, slots=True)
class TooLate:
    """The operation's deadline had passed when its turn came, at `now_us`; nothing was done."""

    now_us: int


@dataclass(frozen=True, slots=True)
class Moved:
    """The tenant's counters are, or are on their way to, another shard; nothing was done."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """The shard's counters were lost and are being rebuilt; nothing was done."""


@dataclass(frozen=True, slots=True)
class Known:
    """Of the calls that an operation records, some are known already; nothing was done.

    By its place among them, each of these: "p" a repeat, "u" other content under the same id, "b"
    something that cannot be read; or "t" for the first of a stem, of which some were met elsewhere:
    they have to be told apart.
    """

    calls: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A stored value cannot be read; nothing was changed."""

    detail: str


Outcome = (
    Decided
    | Reused
    | Stale
    | Overflowed
    | Unresolved
    | Changed
    | RefundExceeds
    | Crowded
    | TooLate
    | Moved
    | Fenced
    | Known
    | Broken
)
