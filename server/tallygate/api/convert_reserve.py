"""Between the protos of the two phases and of refunds, and the domain.

Guarantees: a request that converts is within bounds; a field at fault is named by its path.
Refuses to know: what is done with requests.
"""

from typing import Final

from google.protobuf.duration_pb2 import Duration

from tallygate.api.convert import context_of, counted, items_of, limit_status, operation_id_of
from tallygate.domain import event as bounds
from tallygate.domain import ids
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import AMOUNT_MAX, EventId, OperationId, ReservationId
from tallygate.domain.request import (
    ITEMS_MAX,
    TTL_DEFAULT_US,
    TTL_MAX_US,
    TTL_MIN_US,
    CommitRequest,
    ExtendRequest,
    RefundRequest,
    RefundResult,
    ReleaseRequest,
    ReserveRequest,
    ReserveResult,
    Resolution,
    ResolveResult,
)
from tallygate.gen.v1 import quota_pb2

RESERVATION_LENGTH_MAX: Final = ids.ID_LENGTH_MAX + 3
# A colon and the number of an item, or of an item's excess, which follow the items.
EVENT_ID_LENGTH_MAX: Final = ids.ID_LENGTH_MAX + len(f":{2 * ITEMS_MAX - 1}")
_OUTCOMES: Final = {
    Resolution.COMMITTED: quota_pb2.RESERVATION_OUTCOME_COMMITTED,
    Resolution.COMMITTED_PARTIALLY: quota_pb2.RESERVATION_OUTCOME_COMMITTED_PARTIALLY,
    Resolution.RELEASED: quota_pb2.RESERVATION_OUTCOME_RELEASED,
    Resolution.EXTENDED: quota_pb2.RESERVATION_OUTCOME_EXTENDED,
    Resolution.ALREADY_COMMITTED: quota_pb2.RESERVATION_OUTCOME_ALREADY_COMMITTED,
    Resolution.ALREADY_RELEASED: quota_pb2.RESERVATION_OUTCOME_ALREADY_RELEASED,
    Resolution.EXPIRED: quota_pb2.RESERVATION_OUTCOME_EXPIRED,
}
_EXCESS: Final = {
    quota_pb2.EXCESS_UNSPECIFIED: False,
    quota_pb2.EXCESS_ASK: False,
    quota_pb2.EXCESS_RECORD: True,
}


def reserve_request(message: quota_pb2.ReserveRequest) -> ReserveRequest:
    """Return the request. Raises `InvalidField`."""
    return ReserveRequest(
        tenant_id=ids.tenant_id(message.tenant_id),
        items=items_of(message.items),
        operation_id=operation_id_of(message.operation_id),
        ttl_us=_ttl_us(message.ttl) if message.HasField("ttl") else TTL_DEFAULT_US,
        context=context_of(message),
    )


def commit_request(message: quota_pb2.CommitRequest) -> CommitRequest:
    """Return the request. Raises `InvalidField`."""
    counted(message.amounts, ITEMS_MAX, "amounts", at_least=0)
    for index, amount in enumerate(message.amounts):
        if not 0 <= amount <= AMOUNT_MAX:
            raise InvalidField(f"must be from 0 to {AMOUNT_MAX}", field=f"amounts[{index}]")
    record_excess = _EXCESS.get(message.excess)
    if record_excess is None:
        raise InvalidField("is not a known way", field="excess")
    reservation_id = _reservation_id(message.reservation_id)
    return CommitRequest(
        tenant_id=ids.tenant_id(message.tenant_id),
        reservation_id=reservation_id,
        operation_id=_resolving_id(message.operation_id, reservation_id, "c"),
        amounts=tuple(message.amounts),
        record_excess=record_excess,
        named=bool(message.operation_id),
    )


def release_request(message: quota_pb2.ReleaseRequest) -> ReleaseRequest:
    """Return the request. Raises `InvalidField`."""
    reservation_id = _reservation_id(message.reservation_id)
    return ReleaseRequest(
        tenant_id=ids.tenant_id(message.tenant_id),
        reservation_id=reservation_id,
        operation_id=_resolving_id(message.operation_id, reservation_id, "r"),
    )


def extend_request(message: quota_pb2.ExtendReservationRequest) -> ExtendRequest:
    """Return the request. Raises `InvalidField`."""
    return ExtendRequest(
        tenant_id=ids.tenant_id(message.tenant_id),
        reservation_id=_reservation_id(message.reservation_id),
        ttl_us=_ttl_us(message.ttl) if message.HasField("ttl") else TTL_DEFAULT_US,
    )


def refund_request(message: quota_pb2.RefundRequest) -> RefundRequest:
    """Return the request. Raises `InvalidField`."""
    return RefundRequest(
        tenant_id=ids.tenant_id(message.tenant_id),
        event_id=_made_event_id(message.event_id),
        operation_id=ids.operation_id(message.operation_id),
        amount=ids.amount(message.amount) if message.amount else 0,
        reason=bounds.text(message.reason, "reason"),
    )


def reserve_response(result: ReserveResult) -> quota_pb2.ReserveResponse:
    """Return the reply to a reservation."""
    decision = result.decision
    message = quota_pb2.ReserveResponse(
        allowed=decision.allowed,
        limits=[limit_status(reading) for reading in decision.readings],
        refused_by=decision.refused_by or "",
        replayed=decision.replayed,
        reservation_id=result.reservation_id,
    )
    if decision.retry_after_us is not None:
        message.retry_after.FromMicroseconds(decision.retry_after_us)
    if result.expires_us:
        message.expires_at.FromMicroseconds(result.expires_us)
    return message


def commit_response(result: ResolveResult) -> quota_pb2.CommitResponse:
    """Return the reply to a settling."""
    return quota_pb2.CommitResponse(
        outcome=_OUTCOMES[result.resolution],
        limits=[limit_status(reading) for reading in result.readings],
        refused_by=result.refused_by or "",
        unrecorded=result.unrecorded,
        replayed=result.replayed,
        durability=int(result.durability),  # type: ignore[arg-type]
        event_ids=result.event_ids,
    )


def release_response(result: ResolveResult) -> quota_pb2.ReleaseResponse:
    """Return the reply to a release."""
    return quota_pb2.ReleaseResponse(outcome=_OUTCOMES[result.resolution], replayed=result.replayed)


def extend_response(result: ResolveResult) -> quota_pb2.ExtendReservationResponse:
    """Return the reply to an extension."""
    message = quota_pb2.ExtendReservationResponse(outcome=_OUTCOMES[result.resolution])
    if result.expires_us:
        message.expires_at.FromMicroseconds(result.expires_us)
    return message


def refund_response(result: RefundResult) -> quota_pb2.RefundResponse:
    """Return the reply to a refund."""
    return quota_pb2.RefundResponse(
        event_id=result.event_id,
        amount=result.amount,
        replayed=result.replayed,
        durability=int(result.durability),  # type: ignore[arg-type]
        limits=[limit_status(reading) for reading in result.readings],
    )


def _ttl_us(ttl: Duration) -> int:
    # The decoder does not hold a Duration to its own bounds.
    if not 0 <= ttl.nanos < 10**9:
        raise InvalidField("is not a duration", field="ttl")
    ttl_us = ttl.seconds * 1_000_000 + ttl.nanos // 1000
    if not TTL_MIN_US <= ttl_us <= TTL_MAX_US:
        raise InvalidField("must be from 1 ms to 24 h", field="ttl")
    return ttl_us


def _reservation_id(value: str) -> ReservationId:
    if not value:
        raise InvalidField("is required", field="reservation_id")
    if len(value) > RESERVATION_LENGTH_MAX or not value.isascii() or not value.isprintable():
        raise InvalidField("is not a reservation's id", field="reservation_id")
    return ReservationId(value)


def _made_event_id(value: str) -> EventId:
    """Return the id of an event, which may be one made of the longest operation id."""
    if len(value) > EVENT_ID_LENGTH_MAX:
        raise InvalidField(f"must be at most {EVENT_ID_LENGTH_MAX} characters", field="event_id")
    ids.event_id(value[: ids.ID_LENGTH_MAX])
    if len(value) > ids.ID_LENGTH_MAX:
        ids.event_id(value[ids.ID_LENGTH_MAX :])
    return EventId(value)


def _resolving_id(value: str, reservation_id: ReservationId, suffix: str) -> OperationId:
    """Return the id asked for, or one made of the reservation's: a repeat makes the same."""
    if value:
        return ids.operation_id(value)
    # Ids end at 128 characters; what is cut off is the part that all share.
    return OperationId(f"{reservation_id[-(ids.ID_LENGTH_MAX - 2) :]}#{suffix}")
