"""What a call answers: frozen dataclasses, and how each is read from the service's reply."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from .errors import CODES, TallygateError, error_of
from .gen.v1 import event_pb2, limit_pb2, quota_pb2, reason_pb2, usage_pb2

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class LimitState(enum.Enum):
    """Where a tenant stands against one limit."""

    UNSPECIFIED = "UNSPECIFIED"
    OK = "OK"
    WARNING = "WARNING"
    EXCEEDED = "EXCEEDED"
    SHADOW_EXCEEDED = "SHADOW_EXCEEDED"


class Durability(enum.Enum):
    """How safely what was recorded is held; each is safer than the one before."""

    UNSPECIFIED = "UNSPECIFIED"
    BUFFERED = "BUFFERED"
    REDIS = "REDIS"
    JOURNAL = "JOURNAL"
    POSTGRES = "POSTGRES"


class Outcome(enum.Enum):
    """What became of a reservation."""

    UNSPECIFIED = "UNSPECIFIED"
    COMMITTED = "COMMITTED"
    COMMITTED_PARTIALLY = "COMMITTED_PARTIALLY"
    RELEASED = "RELEASED"
    EXTENDED = "EXTENDED"
    ALREADY_COMMITTED = "ALREADY_COMMITTED"
    ALREADY_RELEASED = "ALREADY_RELEASED"
    EXPIRED = "EXPIRED"


class Excess(enum.Enum):
    """What to do with usage beyond what was reserved."""

    ASK = "ASK"
    RECORD = "RECORD"


class WatchCause(enum.Enum):
    """Why a watch sends."""

    UNSPECIFIED = "UNSPECIFIED"
    SNAPSHOT = "SNAPSHOT"
    CHANGED = "CHANGED"
    CROSSED = "CROSSED"


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """One limit as it stood when the call was decided, in the meter's smallest unit."""

    limit_id: str
    meter: str
    state: LimitState
    used: int
    limit: int
    remaining: int
    resets_at: datetime | None
    tenant_id: str
    scope: str
    unlimited: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether work may be done.

    Attributes:
        allowed: whether it may; if not, nothing was charged.
        limits: every limit that applied, in the catalog's order.
        refused_by: the id of the first limit that refused; empty when allowed.
        retry_after: seconds until the same could pass; None when allowed, or when it never can.
        replayed: this is the answer of an earlier call with the same `operation_id`.
        durability: how safely the events are held.
        event_ids: one per item, in order; empty when refused.
        degraded: the limits' rules for an outage have decided.
        local: nobody answered, and this client's own `on_absent="open"` has decided.
        operation_id: names the logical call, the same over its retries.
    """

    allowed: bool
    limits: tuple[LimitStatus, ...] = ()
    refused_by: str = ""
    retry_after: float | None = None
    replayed: bool = False
    durability: Durability = Durability.UNSPECIFIED
    event_ids: tuple[str, ...] = ()
    degraded: bool = False
    local: bool = False
    operation_id: str = ""


@dataclass(frozen=True, slots=True)
class Granted:
    """The decision of a reservation, and what names what it holds."""

    decision: Decision
    reservation_id: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a reservation was settled.

    Attributes:
        outcome: what became of it.
        limits: its limits as they stand now; empty unless settled now.
        refused_by: of `COMMITTED_PARTIALLY`, the first limit that refused the excess.
        unrecorded: of `COMMITTED_PARTIALLY`, what was used but not recorded, per item.
        replayed: this is the answer of an earlier call with the same `operation_id`.
        durability: how safely the events are held.
        event_ids: the events recorded.
        buffered: nobody answered; the buffer holds it and goes on trying.
        recorded: the reservation was gone, and the usage was recorded by itself.
        operation_id: names the logical call, the same over its retries.
    """

    outcome: Outcome
    limits: tuple[LimitStatus, ...] = ()
    refused_by: str = ""
    unrecorded: tuple[int, ...] = ()
    replayed: bool = False
    durability: Durability = Durability.UNSPECIFIED
    event_ids: tuple[str, ...] = ()
    buffered: bool = False
    recorded: bool = False
    operation_id: str = ""


@dataclass(frozen=True, slots=True)
class Extension:
    """Until when a reservation holds now; None unless it was extended."""

    outcome: Outcome
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Refunded:
    """What was taken back, and the id of the negative event."""

    event_id: str
    amount: int
    replayed: bool
    durability: Durability
    limits: tuple[LimitStatus, ...]
    operation_id: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event was accepted."""

    event_id: str
    replayed: bool
    durability: Durability
    degraded: bool


@dataclass(frozen=True, slots=True)
class Quota:
    """A tenant's limits as they stand."""

    limits: tuple[LimitStatus, ...]
    plan: str
    catalog_version: int


@dataclass(frozen=True, slots=True)
class QuotaChange:
    """Where a tenant stands now, and why it is told."""

    limits: tuple[LimitStatus, ...]
    cause: WatchCause
    plan: str
    catalog_version: int


def _by_number(kind: type[Any], descriptor: Any, prefix: str) -> dict[int, Any]:
    return {
        value.number: kind[value.name.removeprefix(prefix)]
        for value in descriptor.values
        if value.name.removeprefix(prefix) in kind.__members__
    }


_STATES: dict[int, LimitState] = _by_number(
    LimitState, limit_pb2.LimitState.DESCRIPTOR, "LIMIT_STATE_"
)
_DURABILITIES: dict[int, Durability] = _by_number(
    Durability, event_pb2.Durability.DESCRIPTOR, "DURABILITY_"
)
_OUTCOMES: dict[int, Outcome] = _by_number(
    Outcome, quota_pb2.ReservationOutcome.DESCRIPTOR, "RESERVATION_OUTCOME_"
)
_CAUSES: dict[int, WatchCause] = _by_number(
    WatchCause, quota_pb2.WatchCause.DESCRIPTOR, "WATCH_CAUSE_"
)


def durability_of(number: int) -> Durability:
    """Return a durability; one that this version does not know is `UNSPECIFIED`."""
    return _DURABILITIES.get(number, Durability.UNSPECIFIED)


def limits_of(statuses: Any) -> tuple[LimitStatus, ...]:
    """Read the limits of a reply."""
    return tuple(
        LimitStatus(
            each.limit_id,
            each.meter,
            _STATES.get(each.state, LimitState.UNSPECIFIED),
            each.used,
            each.limit,
            each.remaining,
            _moment(each.resets_at) if each.HasField("resets_at") else None,
            each.tenant_id,
            each.scope,
            each.unlimited,
        )
        for each in statuses
    )


def decision_of(
    reply: quota_pb2.CheckAndConsumeResponse | quota_pb2.CheckResponse | quota_pb2.ReserveResponse,
    operation_id: str,
) -> Decision:
    """Read a decision; what a kind of reply does not tell has its default."""
    charged = reply if isinstance(reply, quota_pb2.CheckAndConsumeResponse) else None
    return Decision(
        allowed=reply.allowed,
        limits=limits_of(reply.limits),
        refused_by=reply.refused_by,
        retry_after=seconds_of(reply.retry_after) if reply.HasField("retry_after") else None,
        replayed=not isinstance(reply, quota_pb2.CheckResponse) and reply.replayed,
        durability=durability_of(charged.durability) if charged else Durability.UNSPECIFIED,
        event_ids=tuple(charged.event_ids) if charged else (),
        degraded=charged.degraded if charged else False,
        operation_id=operation_id,
    )


def granted_of(reply: quota_pb2.ReserveResponse, operation_id: str) -> Granted:
    """Read what a reservation was answered."""
    ends = _moment(reply.expires_at) if reply.HasField("expires_at") else None
    return Granted(decision_of(reply, operation_id), reply.reservation_id, ends)


def settlement_of(reply: quota_pb2.CommitResponse, operation_id: str) -> Settlement:
    """Read how a reservation was committed."""
    return Settlement(
        outcome=_OUTCOMES.get(reply.outcome, Outcome.UNSPECIFIED),
        limits=limits_of(reply.limits),
        refused_by=reply.refused_by,
        unrecorded=tuple(reply.unrecorded),
        replayed=reply.replayed,
        durability=durability_of(reply.durability),
        event_ids=tuple(reply.event_ids),
        operation_id=operation_id,
    )


def released_of(reply: quota_pb2.ReleaseResponse, operation_id: str) -> Settlement:
    """Read how a reservation was given back."""
    outcome = _OUTCOMES.get(reply.outcome, Outcome.UNSPECIFIED)
    return Settlement(outcome, replayed=reply.replayed, operation_id=operation_id)


def extension_of(reply: quota_pb2.ExtendReservationResponse) -> Extension:
    """Read until when a reservation holds."""
    ends = _moment(reply.expires_at) if reply.HasField("expires_at") else None
    return Extension(_OUTCOMES.get(reply.outcome, Outcome.UNSPECIFIED), ends)


def refunded_of(reply: quota_pb2.RefundResponse, operation_id: str) -> Refunded:
    """Read what was refunded."""
    return Refunded(
        reply.event_id,
        reply.amount,
        reply.replayed,
        durability_of(reply.durability),
        limits_of(reply.limits),
        operation_id,
    )


def recorded_of(reply: usage_pb2.RecordUsageResponse) -> Recorded:
    """Read how an event was accepted."""
    durability = durability_of(reply.durability)
    return Recorded(reply.event_id, reply.replayed, durability, reply.degraded)


def quota_of(reply: quota_pb2.GetQuotaResponse) -> Quota:
    """Read where a tenant stands."""
    return Quota(limits_of(reply.limits), reply.plan, reply.catalog_version)


def change_of(reply: quota_pb2.WatchQuotaResponse) -> QuotaChange:
    """Read one message of a watch."""
    cause = _CAUSES.get(reply.cause, WatchCause.UNSPECIFIED)
    return QuotaChange(limits_of(reply.limits), cause, reply.plan, reply.catalog_version)


def item_error_of(told: reason_pb2.ItemError, operation_id: str = "") -> TallygateError:
    """Return the error of one item of a list."""
    number = told.reason
    known = number in reason_pb2.Reason.values()
    reason = reason_pb2.Reason.Name(number).removeprefix("REASON_") if known else str(number)
    error = error_of(
        CODES.get(told.code, "UNKNOWN"),
        told.message,
        reason=reason,
        field=told.field,
        retry_after=seconds_of(told.retry_after) if told.HasField("retry_after") else None,
    )
    error.operation_id = operation_id
    return error


def seconds_of(duration: Duration) -> float:
    """Return a duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def _moment(stamp: Timestamp) -> datetime:
    # Several times as fast as its own ToDatetime, which every limit of every call would wait for.
    return EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1_000)
