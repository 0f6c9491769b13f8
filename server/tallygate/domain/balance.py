"""Balances: prepaid credits, used up grant by grant.

Guarantees: units leave live grants in the order of priority, expiry and number, then the overdraft;
what comes back goes where it came from. What nothing funds is counted, never owed.
Refuses to know: the ledger of credits, and other limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tallygate.domain.decision import (
    BalanceRule,
    Charge,
    LimitReading,
    LimitState,
)
from tallygate.domain.detail import (
    Credit,
    Grant,
)
from tallygate.domain.ids import AMOUNT_MAX
from tallygate.domain.verdict import Crossing, Moment, gates, reading_of, state_of

# Each costs a line in the stored value, and a turn of the loops on every call.
GRANTS_MAX: Final = 64
OVERDRAFT: Final = 0
UNFUNDED: Final = -1

Slots = tuple[tuple[int, int], ...]
"""Places and units: a grant's number, `OVERDRAFT` or `UNFUNDED`."""


@dataclass(frozen=True, slots=True)
class Balance:
    """The newest grant's number, the overdraft in use, the mark, the grants in burn-down order.

    `mark` is one more than the lowest `low_at` that was emitted and not made good since, or 0.
    """

    seq: int = 0
    owed: int = 0
    mark: int = 0
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class BalanceVerdict:
    """What `evaluate_balance` found; `slots` says where the units come from."""

    refuses: bool
    before: LimitReading
    after: LimitReading
    balance: Balance | None
    slots: Slots
    retry_after_us: int | None
    crossings: tuple[Crossing, ...]
    overflow: bool


def evaluate_balance(
    charge: Charge, rule: BalanceRule, stored: Balance, moment: Moment
) -> BalanceVerdict:
    """Say what the charge does to the limit whose balance is `stored`."""
    now_us, amount = moment.now_us, charge.amount
    funds = sum(grant.remaining for grant in stored.grants if _live(grant, now_us))
    over = amount > funds + rule.overdraft - stored.owed
    slots, taken = _take(stored, rule, amount, now_us)
    crossings = _crossings(rule, taken, stored.mark, now_us) if amount > 0 else ()
    if crossings:
        taken = replace(taken, mark=crossings[-1].threshold + 1)
    return BalanceVerdict(
        refuses=over and amount > 0 and gates(charge, moment),
        before=read_balance(charge, rule, stored, over, now_us),
        after=read_balance(charge, rule, taken, over, now_us),
        balance=taken if amount > 0 else None,
        slots=slots,
        # Only a grant can help, and nobody knows when one comes.
        retry_after_us=None,
        crossings=crossings,
        overflow=_total(stored.grants) + rule.overdraft > AMOUNT_MAX,
    )


def read_balance(
    charge: Charge, rule: BalanceRule, balance: Balance, over: bool, now_us: int
) -> LimitReading:
    """Return the balance as a limit: what was granted and not lost, and what is gone of it."""
    live = [grant for grant in balance.grants if _live(grant, now_us)]
    used = sum(grant.granted - grant.remaining for grant in live) + balance.owed
    limit = sum(grant.granted for grant in live) + rule.overdraft
    left = _left(balance, now_us)
    low = bool(rule.low_at) and left <= rule.low_at[0]
    ends = [grant.expires_us for grant in live if grant.expires_us < AMOUNT_MAX]
    state = state_of(charge, over, LimitState.WARNING if low else LimitState.OK)
    # An overdraft that was raised above full grants passes what is exact: it is shown as the most.
    used, limit = min(used, AMOUNT_MAX), min(limit, AMOUNT_MAX)
    return reading_of(charge, state, used, min(ends, default=0), limit)


def give_back(balance: Balance, place: int, units: int) -> Balance:
    """Return the balance with units back in their place; those of a grant that is gone are lost."""
    if place == OVERDRAFT:
        return replace(balance, owed=max(0, balance.owed - units))
    return replace(
        balance,
        grants=tuple(
            replace(grant, remaining=min(grant.granted, grant.remaining + units))
            if grant.seq == place
            else grant
            for grant in balance.grants
        ),
    )


def refund(balance: Balance, units: int, now_us: int) -> tuple[Slots, Balance]:
    """Give units back in the reverse order of burning; return where they went, as negatives."""
    slots: list[tuple[int, int]] = []
    repaid = min(units, balance.owed)
    if repaid:
        slots.append((OVERDRAFT, -repaid))
        balance, units = give_back(balance, OVERDRAFT, repaid), units - repaid
    for grant in reversed(balance.grants):
        room = grant.granted - grant.remaining
        back = min(units, room) if _live(grant, now_us) else 0
        if back:
            slots.append((grant.seq, -back))
            balance, units = give_back(balance, grant.seq, back), units - back
    return tuple(slots), balance


def add_grants(
    balance: Balance, credit: Credit, rule: BalanceRule, now_us: int
) -> tuple[Slots, Balance] | None:
    """Add the grants that are new; return what repaid the overdraft, None when there is no room."""
    slots: list[tuple[int, int]] = []
    if balance.seq == 0:
        balance = replace(balance, owed=balance.owed + credit.owed)
    for grant in credit.grants:
        if grant.seq <= balance.seq:
            continue
        repaid = min(balance.owed, grant.remaining) if _live(grant, now_us) else 0
        if repaid:
            slots += [(grant.seq, repaid), (OVERDRAFT, -repaid)]
        kept = _with_room(balance.grants, now_us)
        if kept is None or rule.overdraft + _total([*kept, grant]) > AMOUNT_MAX:
            return None
        added = replace(grant, remaining=grant.remaining - repaid)
        balance = replace(
            balance,
            seq=grant.seq,
            owed=balance.owed - repaid,
            grants=tuple(sorted([*kept, added], key=_order)),
        )
    left = _left(balance, now_us)
    still = [units for units in rule.low_at if left <= units]
    # Thresholds that the grants have lifted the balance over are armed again.
    armed = balance.mark == 0 or not still
    mark = 0 if armed else max(balance.mark, still[-1] + 1)
    return tuple(slots), replace(balance, mark=mark)


def _with_room(grants: Sequence[Grant], now_us: int) -> list[Grant] | None:
    """Return the grants with room for one more: without those expired, then without one used up."""
    kept = [grant for grant in grants if now_us < grant.expires_us]
    if len(kept) < GRANTS_MAX:
        return kept
    used_up = [grant for grant in kept if grant.remaining == 0]
    if not used_up:
        return None
    oldest = min(used_up, key=lambda grant: grant.seq)
    return [grant for grant in kept if grant is not oldest]


def _order(grant: Grant) -> tuple[int, int, int]:
    return (grant.priority, grant.expires_us, grant.seq)


def _live(grant: Grant, now_us: int) -> bool:
    return grant.starts_us <= now_us < grant.expires_us


def _total(grants: Sequence[Grant]) -> int:
    return sum(grant.granted for grant in grants)


def _left(balance: Balance, now_us: int) -> int:
    funds = sum(grant.remaining for grant in balance.grants if _live(grant, now_us))
    return max(0, funds - balance.owed)


def _take(stored: Balance, rule: BalanceRule, amount: int, now_us: int) -> tuple[Slots, Balance]:
    slots: list[tuple[int, int]] = []
    grants: list[Grant] = []
    for grant in stored.grants:
        units = min(amount, grant.remaining) if _live(grant, now_us) else 0
        if units:
            slots.append((grant.seq, units))
            amount -= units
        if now_us < grant.expires_us:
            grants.append(replace(grant, remaining=grant.remaining - units))
    owed = min(amount, max(0, rule.overdraft - stored.owed))
    if owed:
        slots.append((OVERDRAFT, owed))
    if amount > owed:
        slots.append((UNFUNDED, amount - owed))
    return tuple(slots), replace(stored, owed=stored.owed + owed, grants=tuple(grants))


def _crossings(rule: BalanceRule, taken: Balance, mark: int, now_us: int) -> tuple[Crossing, ...]:
    left = _left(taken, now_us)
    return tuple(
        Crossing(0, units, left, 0, 0)
        for units in rule.low_at
        if left <= units and (mark == 0 or units < mark - 1)
    )
