"""What is asked of a shard's accounts, and what comes of it.

Guarantees: an `Operation` carries all that a decision needs but the time and the counters, so that
the Lua script and its specification in `account.py` take the same input.
Refuses to know: tenants' plans, and how any of this travels.
"""

from dataclasses import dataclass
from enum import StrEnum

from tallygate.domain.catalog import OnExceed
from tallygate.domain.ids import EventId, LimitId, MeterName, OperationId, TenantId


class Mode(StrEnum):
    """What to do with an operation: the letters are those of the script."""

    CONSUME = "c"
    RECORD = "r"
    CHECK = "k"
    REJECT = "j"


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
class Charge:
    """One limit as one operation meets it. For a rate, `limit` is the burst.

    `account` is the tenant whose counter it is. `field` names the counter within the account: it
    changes when the limit comes to measure something else.
    """

    account: TenantId
    field: str
    limit_id: LimitId
    meter: MeterName
    amount: int
    limit: int
    on_exceed: OnExceed
    rule: WindowRule | RateRule


@dataclass(frozen=True, slots=True)
class Operation:
    """One logical call, ready to be decided. `payload` is stored as it is when it is accepted.

    Without `operation_id` it is not remembered. `event_time_us` 0 means now. `event_count` is how
    many sequence numbers the operation takes. `reject_reason` is set in mode REJECT only.
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


@dataclass(frozen=True, slots=True)
class LimitReading:
    """One limit as it stood when the operation was decided."""

    limit_id: LimitId
    meter: MeterName
    state: LimitState
    used: int
    limit: int
    remaining: int
    resets_at_us: int


@dataclass(frozen=True, slots=True)
class Decided:
    """The operation was decided. `first_seq` is 0 when nothing was stored."""

    allowed: bool
    at_us: int
    readings: tuple[LimitReading, ...]
    refused_by: LimitId | None = None
    retry_after_us: int | None = None
    first_seq: int = 0
    replayed: bool = False


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
class Broken:
    """A stored value cannot be read; nothing was changed."""

    detail: str


Outcome = Decided | Reused | Stale | Overflowed | Broken
