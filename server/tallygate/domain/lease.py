"""How much a sidecar may lease of a call's limits, and for how long.

Guarantees: a lease takes at most an eighth of a limit and of what is left of it, and does not reach
its next warning; a lease of nothing is said by 0. What is granted from a lease counts in the window
and in the bucket in which it is granted.
Refuses to know: stores, and who asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tallygate.domain.catalog import Catalog, OnExceed, Tenant, limits_of
from tallygate.domain.decision import (
    BalanceRule,
    Charge,
    ConcurrencyRule,
    LimitReading,
    LimitState,
    RateRule,
    SlidingRule,
    WindowRule,
)
from tallygate.domain.detail import (
    Piece,
    Share,
)
from tallygate.domain.hold import shares_of
from tallygate.domain.ids import AccountId, tenant_of

# Eight sidecars may each hold one, and the last eighth of a limit is shared out in ever less.
SHARE: Final = 8
# Below this a lease costs more calls of the store than it saves.
CALLS_MIN: Final = 4
CALLS_START: Final = 8
# A second's worth at the speed of the fastest transport: memory and loss stay bounded.
CALLS_MAX: Final = 65_536
# A lease that lasted less than this was too small.
QUICK_US: Final = 250_000
# A rate's tokens are used within this time of being taken: about what a slow answer takes.
RATE_LIFE_US: Final = 100_000
# A sliding limit whose buckets are narrower is not worth leasing.
WIDTH_MIN_US: Final = 100_000
SPAN_US: Final = 500_000
S_US: Final = 1_000_000


@dataclass(slots=True)
class Demand:
    """How often something is asked for: calls in the span that runs, and in the one before.

    The estimate weighs the span before by what of it lies within the trailing span.
    """

    starts_us: int = 0
    before: int = 0
    calls: int = 0

    def count(self, now_us: int, calls: int = 1) -> None:
        """Count calls; the time is any clock's that does not go back."""
        self._turn(now_us)
        self.calls += calls

    def per_second(self, now_us: int) -> int:
        """Return the calls per second, of the last half second."""
        self._turn(now_us)
        rest_us = SPAN_US - (now_us - self.starts_us)
        return (self.before * rest_us + self.calls * SPAN_US) * S_US // (SPAN_US * SPAN_US)

    def _turn(self, now_us: int) -> None:
        spans = (now_us - self.starts_us) // SPAN_US
        if spans > 0:
            self.before = self.calls if spans == 1 else 0
            self.calls = 0
            self.starts_us += spans * SPAN_US


@dataclass(frozen=True, slots=True)
class Past:
    """How the last lease went: its size in calls, those granted from it, and how long it lasted."""

    size: int
    granted: int
    lasted_us: int


def leasable(
    charges: Sequence[Charge], catalog: Catalog, lineage: Sequence[Tenant], now_us: int
) -> bool:
    """Say whether a call with these charges may be granted from a lease at all."""
    if not charges or not all(_divisible(charge) for charge in charges):
        return False
    inexact = {
        (tenant.tenant_id, limit.limit_id)
        for tenant in lineage
        for limit in limits_of(catalog, tenant, now_us)
        if not limit.exact
    }
    return all((tenant_of(charge.account), charge.limit_id) in inexact for charge in charges)


def size_after(past: Past | None, room: int, demand_per_s: int, rated: bool) -> int:
    """Return how many calls the next lease is for; 0 where none is worth having.

    It doubles while leases are used up quickly, and halves when half of one is left over. It is for
    a second's demand at most; where a rate is among the limits (`rated`), for what is asked while
    its tokens may be used.
    """
    size = CALLS_START
    if past is not None:
        size = past.size
        if past.granted * 2 < past.size:
            size = max(CALLS_START, size // 2)
        elif past.granted >= past.size and past.lasted_us < QUICK_US:
            size *= 2
    needed = demand_per_s * RATE_LIFE_US // S_US if rated else demand_per_s
    size = min(size, room, needed, CALLS_MAX)
    return size if size >= CALLS_MIN else 0


def room_for(charges: Sequence[Charge], readings: Sequence[LimitReading]) -> int:
    """Return how many such calls a lease may be for, by where the limits stood."""
    return min(
        min(charge.limit, _left(charge, reading.used)) // SHARE // charge.amount
        for charge, reading in zip(charges, readings, strict=True)
    )


def lease_charges(
    charges: Sequence[Charge], readings: Sequence[LimitReading], calls: int
) -> tuple[Charge, ...]:
    """Return what to reserve for so many such calls.

    Every limit gates it, a warning's threshold as well: speculation neither warns nor exceeds.
    """
    return tuple(
        replace(
            charge,
            amount=charge.amount * calls,
            limit=_ceiling(charge, reading.used),
            on_exceed=OnExceed.REFUSE,
        )
        for charge, reading in zip(charges, readings, strict=True)
    )


def ends_us(
    charges: Sequence[Charge], readings: Sequence[LimitReading], at_us: int, life_us: int
) -> int:
    """Return when a lease taken at that time is over, on the store's clock."""
    ends = [at_us + life_us]
    for charge, reading in zip(charges, readings, strict=True):
        match charge.rule:
            case WindowRule():
                ends.append(reading.resets_at_us)
            case SlidingRule(width_us=width_us):
                ends.append((at_us // width_us + 1) * width_us)
            case RateRule():
                ends.append(at_us + RATE_LIFE_US)
    return min(ends)


def shares_leased(
    charges: Sequence[Charge], readings: Sequence[LimitReading], at_us: int
) -> tuple[Share, ...]:
    """Return what the store holds for a lease that was taken at that time, as far as known here.

    A counter whose window is ahead of the store's clock is elsewhere: the store then says so.
    """
    return shares_of(
        charges,
        [_slots(charge, reading, at_us) for charge, reading in zip(charges, readings, strict=True)],
    )


def held_units(shares: Sequence[Share]) -> dict[tuple[AccountId, str], int]:
    """Return the units held, by account and field. A rate's are not among them."""
    return {
        (share.account, piece.field): piece.amount for share in shares for piece in share.pieces
    }


def less(shares: Sequence[Share], used: dict[tuple[AccountId, str], int]) -> tuple[Share, ...]:
    """Return what is held still once those units are used up. Each piece has one slot."""
    left: list[Share] = []
    for share in shares:
        pieces = tuple(
            Piece(piece.field, ((piece.slots[0][0], units),))
            for piece in share.pieces
            if (units := piece.amount - used.get((share.account, piece.field), 0)) > 0
        )
        if pieces:
            left.append(Share(share.account, pieces))
    return tuple(left)


def reading_now(charge: Charge, taken: LimitReading, unused: int) -> LimitReading:
    """Return a limit as it stands while that much of a lease is unused.

    `taken` is the reading with which the lease was taken: all of its units count in it.
    """
    used = max(0, taken.used - unused)
    warned = isinstance(charge.rule, WindowRule) and any(
        used >= units for _, units in charge.rule.thresholds
    )
    return LimitReading(
        account=charge.account,
        limit_id=charge.limit_id,
        meter=charge.meter,
        state=LimitState.WARNING if warned else LimitState.OK,
        used=used,
        limit=charge.limit,
        remaining=max(0, charge.limit - used),
        resets_at_us=taken.resets_at_us,
    )


def _divisible(charge: Charge) -> bool:
    if charge.amount <= 0 or isinstance(charge.rule, BalanceRule | ConcurrencyRule):
        return False
    return not isinstance(charge.rule, SlidingRule) or charge.rule.width_us >= WIDTH_MIN_US


def _ceiling(charge: Charge, used: int) -> int:
    if not isinstance(charge.rule, WindowRule):
        return charge.limit
    ahead = [units for _, units in charge.rule.thresholds if units > used]
    return min(charge.limit, ahead[0] - 1) if ahead else charge.limit


def _left(charge: Charge, used: int) -> int:
    return max(0, _ceiling(charge, used) - used)


def _slots(charge: Charge, reading: LimitReading, at_us: int) -> tuple[tuple[int, int], ...]:
    match charge.rule:
        case WindowRule() as rule:
            second = reading.resets_at_us > rule.turns_us
            return ((rule.turns_us if second else rule.starts_us, charge.amount),)
        case SlidingRule(width_us=width_us):
            return ((at_us // width_us, charge.amount),)
        case _:
            return ()
