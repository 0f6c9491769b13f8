"""One account: its counters, and what reservations hold of them.

Guarantees: settling divides each piece into what is used up, what comes back and what stays held;
nothing is made or lost. A share reads back as it was written.
Refuses to know: limits, and who holds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.decision import (
    Charge,
)
from tallygate.domain.detail import (
    Piece,
    Portion,
    Share,
)
from tallygate.domain.ids import AccountId, ReservationId
from tallygate.domain.limit import State, give_back

# A script runs alone: more expired holds than these wait for the account's next call.
EXPIRED_MAX: Final = 1_000
# Some 200 bytes each; who holds more at once has forgotten to settle.
HOLDS_MAX: Final = 10_000

Slots = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Account:
    """Counters by field, holds by text with their ends, and when to look for expired ones.

    `next_hold_us` is never later than the first end; 0 when nothing is held.
    """

    counters: dict[str, State] = field(default_factory=dict)
    holds: dict[str, tuple[int, Share]] = field(default_factory=dict)
    next_hold_us: int = 0
    # Whether what older epochs had used has been added.
    rebuilt: bool = False

    @property
    def full(self) -> bool:
        """Whether it may hold no more."""
        return len(self.holds) >= HOLDS_MAX

    def expire(self, now_us: int) -> None:
        """Let the units of expired holds come back, the oldest first, at most `EXPIRED_MAX`."""
        if not 0 < self.next_hold_us <= now_us:
            return
        due = sorted((ends, text.encode(), text) for text, (ends, _) in self.holds.items())
        for ends, _, text in due[:EXPIRED_MAX]:
            if ends > now_us:
                break
            _, share = self.holds.pop(text)
            for piece in share.pieces:
                self.give_back(piece.field, piece.slots)
        self.next_hold_us = min((ends for ends, _ in self.holds.values()), default=0)

    def give_back(self, name: str, slots: Iterable[tuple[int, int]]) -> None:
        """Let units come back to their places."""
        for place, units in slots:
            state = give_back(self.counters.get(name), place, units)
            if state is not None:
                self.counters[name] = state

    def hold(self, text: str, share: Share, ends_us: int) -> None:
        """Hold a share until then."""
        self.holds[text] = (ends_us, share)
        self.next_hold_us = min(self.next_hold_us or ends_us, ends_us)

    def held(self, name: str) -> list[tuple[int, int]]:
        """Return the slots that reservations hold of a counter, in the order of their ends."""
        due = sorted((ends, text.encode(), share) for text, (ends, share) in self.holds.items())
        return [
            slot
            for _, _, share in due
            for piece in share.pieces
            if piece.field == name
            for slot in piece.slots
        ]


@dataclass(frozen=True, slots=True)
class Settled:
    """One piece once it is settled: its slots used up, given back, and held still."""

    field: str
    used: Slots
    back: Slots
    left: Slots


def share_text(share: Share, reservation_id: ReservationId) -> str:
    """Return a share as it is stored: `FIELD,PLACE=UNITS+PLACE=UNITS;FIELD,...|RESERVATION`."""
    return f"{pieces_text(share.pieces)}|{reservation_id}"


def pieces_text(pieces: Sequence[Piece]) -> str:
    """Return the pieces of a share as text, without its reservation."""
    return ";".join(
        f"{piece.field},{'+'.join(f'{place}={units}' for place, units in piece.slots)}"
        for piece in pieces
    )


def pieces_from_text(text: str) -> tuple[Piece, ...]:
    """Return the pieces that `pieces_text` wrote. Raises ValueError for what it did not."""
    pieces: list[Piece] = []
    for part in text.split(";") if text else ():
        field, slots = part.split(",")
        found = (slot.split("=") for slot in slots.split("+"))
        pieces.append(Piece(field, tuple((int(place), int(units)) for place, units in found)))
    return tuple(pieces)


def shares_of(charges: Sequence[Charge], slots: Sequence[Slots]) -> tuple[Share, ...]:
    """Return what a reservation holds of each account, in the order of its charges.

    `slots` is what each charge has taken; what it has not taken it does not hold.
    """
    shares: dict[AccountId, list[Piece]] = {}
    for charge, taken in zip(charges, slots, strict=True):
        if taken:
            shares.setdefault(charge.account, []).append(Piece(charge.field, taken))
    return tuple(Share(account, tuple(pieces)) for account, pieces in shares.items())


def settle(portion: Portion) -> tuple[Settled, ...]:
    """Divide a share as its portion says.

    What is used up leaves from the front of its slots, what returns from the back, as a balance's
    grants are used up in order.
    """
    return tuple(
        _divide(piece, used, back)
        for piece, used, back in zip(
            portion.share.pieces, portion.settled, portion.given_back, strict=True
        )
    )


def left_of(settled: Sequence[Settled]) -> tuple[Piece, ...]:
    """Return the pieces that are held still."""
    return tuple(Piece(each.field, each.left) for each in settled if each.left)


def _divide(piece: Piece, used: int, back: int) -> Settled:
    assert used + back <= piece.amount, "more is settled than held"
    front, rest = _split(piece.slots, used)
    behind, between = _split(tuple(reversed(rest)), back)
    return Settled(piece.field, front, behind, tuple(reversed(between)))


def _split(slots: Iterable[tuple[int, int]], units: int) -> tuple[Slots, Slots]:
    """Return the first so many units, and the rest."""
    taken: list[tuple[int, int]] = []
    rest: list[tuple[int, int]] = []
    for place, held in slots:
        part = min(units, held)
        units -= part
        if part:
            taken.append((place, part))
        if held > part:
            rest.append((place, held - part))
    return tuple(taken), tuple(rest)
