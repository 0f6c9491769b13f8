"""Operations of the two phases, refunds, resets and grants, as the contract of stores asks them.

Owns how a settlement is made from what is stored. Refuses to know what comes of an operation.
"""

from collections.abc import Sequence

from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.domain.catalog import Limit, LimitKind
from tallygate.domain.decision import (
    Mode,
    Operation,
    Reservation,
)
from tallygate.domain.detail import (
    Credit,
    Extension,
    Grant,
    Hold,
    Portion,
    Refund,
    Settlement,
)
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import AMOUNT_MAX, EventId, OperationId, ReservationId, TenantId
from tallygate.ports import OperationKey, QuotaStore, ReservationKey
from tests.builders import ACME, REQUESTS, charges, consume, payload, window
from tests.quota_subjects import SHARD

TTL_US = 20_000_000


def concurrency(limit: int = 2) -> Limit:
    """Return a limit of units held at once."""
    return window("slots", limit, kind=LimitKind.CONCURRENCY, period=None)


def balance(overdraft: int = 0) -> Limit:
    """Return a limit to prepaid credits."""
    return window("credits", 0, kind=LimitKind.BALANCE, period=None, overdraft=overdraft)


def reserve(
    limits: Sequence[Limit], amount: int = 1, name: str = "hold", **fields: object
) -> Operation:
    """Return a reservation of `amount` with the same name as its operation."""
    ttl_us = fields.pop("ttl_us", TTL_US)
    assert isinstance(ttl_us, int)
    values: dict[str, object] = {
        "mode": Mode.RESERVE,
        "event_count": 0,
        "detail": Hold(ReservationId(name), ttl_us),
    }
    return consume(limits, amount, name, **{**values, **fields})


def key_of(name: str = "hold", tenant: TenantId = ACME) -> ReservationKey:
    """Return where a reservation is."""
    return ReservationKey(SHARD, tenant, ReservationId(name))


async def found(store: QuotaStore, name: str = "hold") -> Reservation:
    """Return a reservation that has to be there."""
    reservation = await store.reservation(key_of(name))
    assert reservation is not None
    return reservation


def portions(reservation: Reservation, used: int, back: int | None = None) -> tuple[Portion, ...]:
    """Use up so many units of each piece; give so many back, else all of the rest."""
    made: list[Portion] = []
    for share in reservation.shares:
        settled = tuple(min(used, piece.amount) for piece in share.pieces)
        returned = tuple(
            piece.amount - units if back is None else back
            for piece, units in zip(share.pieces, settled, strict=True)
        )
        made.append(Portion(share, settled, returned))
    return tuple(made)


def commit(
    reservation: Reservation, used: int, name: str = "commit", **fields: object
) -> Operation:
    """Return a commit of `used` units of what the reservation `hold` was found to be."""
    values: dict[str, object] = {
        "mode": Mode.COMMIT,
        "event_count": 1 if used else 0,
        "payload": payload(f"{name}:0", used) if used else b"",
        "detail": Settlement(ReservationId("hold"), portions(reservation, used)),
    }
    return consume([], used, name, **{**values, **fields})


def commit_more(
    reservation: Reservation, limits: Sequence[Limit], used: int, excess: int, *, record: bool
) -> Operation:
    """Return a commit of `used` reserved units and of an excess, to ask for or to record."""
    detail = Settlement(
        ReservationId("hold"), portions(reservation, used), record, payload("more", excess), 1
    )
    return commit(reservation, used, charges=charges(limits, excess), detail=detail)


def release(reservation: Reservation, name: str = "release", **fields: object) -> Operation:
    """Return a release of the reservation `hold`."""
    return commit(reservation, 0, name, **{"mode": Mode.RELEASE, **fields})


def settle(reservation: Reservation, used: int, back: int, name: str) -> Operation:
    """Return a settling of a part, after which the rest stays held."""
    detail = Settlement(ReservationId("hold"), portions(reservation, used, back))
    return commit(reservation, used, name, mode=Mode.SETTLE, detail=detail)


def extend(reservation: Reservation, ttl_us: int = TTL_US) -> Operation:
    """Return a heartbeat of the reservation `hold`."""
    detail = Extension(ReservationId("hold"), ttl_us, reservation.shares)
    return consume([], mode=Mode.EXTEND, event_count=0, payload=b"", detail=detail)


def refund(
    limits: Sequence[Limit], units: int, of: str, name: str, units_max: int = 10, **fields: object
) -> Operation:
    """Return a refund of the event `of`, which had `units_max`."""
    event = UsageEvent(
        EventId(f"{name}:0"), ACME, REQUESTS, -units, 0, OperationId(name), refund_of=EventId(of)
    )
    values: dict[str, object] = {
        "mode": Mode.REFUND,
        "payload": ProtobufEventEncoder().encode([event]),
        "detail": Refund(EventId(of), units, units_max),
    }
    return consume(limits, units, name, **{**values, **fields})


def event_key(name: str, operation: str) -> OperationKey:
    """Return where an event of `acme` is remembered."""
    return OperationKey(SHARD, ACME, OperationId(operation), EventId(name))


def reset(limits: Sequence[Limit], name: str = "reset") -> Operation:
    """Return a reset of the limits."""
    return consume(limits, 0, name, mode=Mode.RESET, event_count=0, payload=b"")


def grant(limit: Limit, *grants: Grant) -> Operation:
    """Return a handing over of credits."""
    return consume(
        [limit], 0, mode=Mode.GRANT, event_count=0, payload=b"", detail=Credit(tuple(grants))
    )


def credits_of(units: int, seq: int = 1) -> Grant:
    """Return a grant that never expires."""
    return Grant(seq, 0, 0, AMOUNT_MAX, units, units)
