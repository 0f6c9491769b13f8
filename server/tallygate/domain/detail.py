"""What some modes of an operation have beside their charges.

Guarantees: a detail says all that its mode needs, so that script and specification take the same.
Refuses to know: operations, and what comes of them.
"""

from dataclasses import dataclass

from tallygate.domain.ids import AccountId, EventId, OperationId, ReservationId


@dataclass(frozen=True, slots=True)
class Piece:
    """What a reservation holds of one counter: so many units, in `slots`.

    A slot is a place and the units in it. The place is a window's start, a sliding bucket's number,
    0 for concurrency, or the number of a balance's grant (0: overdraft, -1: not funded).
    """

    field: str
    slots: tuple[tuple[int, int], ...]

    @property
    def amount(self) -> int:
        """The units held."""
        return sum(units for _, units in self.slots)


@dataclass(frozen=True, slots=True)
class Share:
    """What a reservation holds of one account."""

    account: AccountId
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """Detail of RESERVE: what is charged is held until it is settled or `ttl_us` have passed."""

    reservation_id: ReservationId
    ttl_us: int


@dataclass(frozen=True, slots=True)
class Portion:
    """How a share is settled: per piece, units used up and units given back; the rest stays."""

    share: Share
    settled: tuple[int, ...]
    given_back: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """Calls that were granted without the store, and are recorded with what settles their units.

    Each has `event_count` events, in `size_bytes`: their operation's payload is those of all calls,
    in order. A call without an id is not remembered. With a `stem`, the ids are its places from the
    first on, and all fingerprints are one.
    """

    operation_ids: tuple[OperationId | None, ...]
    fingerprints: tuple[str, ...]
    event_count: int
    size_bytes: int
    stem: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """Detail of COMMIT, RELEASE and SETTLE, of which the last leaves the reservation held.

    The operation's charges are of the excess: what was used beyond the reservation. They gate as
    `CONSUME`, or, with `record_excess`, not at all. When they are refused, the rest is settled.
    `given` is what was granted from the units that are used up, each id once.
    """

    reservation_id: ReservationId
    portions: tuple[Portion, ...]
    record_excess: bool = False
    excess_payload: bytes = b""
    excess_count: int = 0
    given: tuple[Given, ...] = ()


@dataclass(frozen=True, slots=True)
class Late:
    """Detail of LATE: calls that were granted from a reservation which is lost.

    The operation's charges are their units, counted as `RECORD` counts.
    """

    given: tuple[Given, ...]


@dataclass(frozen=True, slots=True)
class Extension:
    """Detail of EXTEND: the reservation ends `ttl_us` from now."""

    reservation_id: ReservationId
    ttl_us: int
    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Refund:
    """Detail of REFUND: takes `units` of an event of `units_max` back.

    Of a `counted` event the charges come back with its last unit, and with none before it.
    """

    event_id: EventId
    units: int
    units_max: int
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """Credits. `seq` numbers a balance's grants from 1; `expires_us` is AMOUNT_MAX for never."""

    seq: int
    priority: int
    starts_us: int
    expires_us: int
    granted: int
    remaining: int


@dataclass(frozen=True, slots=True)
class Credit:
    """Detail of GRANT: grants, by `seq`, of the operation's one charge, a balance.

    Grants that the balance has had are passed over. `owed` is overdraft in use that this balance
    does not know of; it is added to one that has had no grant yet, as after a loss of Redis.
    """

    grants: tuple[Grant, ...]
    owed: int = 0


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Detail of REBUILD: what counters of older epochs had used, in slots per charge.

    Of a window a slot is its start and the units used in it; of a sliding limit the bucket's number
    and its units; of a rate 0 and the units that have not drained by now. All charges are of one
    account, which takes this once in an epoch: a second time changes nothing and is `replayed`.
    Units are added to what the account has been debited meanwhile; slots of the past are dropped.
    """

    slots: tuple[tuple[tuple[int, int], ...], ...]


Detail = Hold | Settlement | Late | Extension | Refund | Credit | Rebuilt
