"""What a shard remembers of operations and reservations, each until some time.

Guarantees: a repeat's answer can be told from another operation's.
Refuses to know: for how long, and where.
"""

from dataclasses import dataclass

from tallygate.domain.decision import Decided, Reservation


@dataclass(frozen=True, slots=True)
class Remembered:
    """The first answer to an operation, what it was given for, and until when it is kept."""

    fingerprint: str
    until_us: int
    answer: Decided
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Kept:
    """A reservation and until when it is known."""

    reservation: Reservation
    until_us: int
