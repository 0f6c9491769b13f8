"""What a shard whose counters were lost still decides, and how its counters are made whole.

Guarantees: a hard limit refuses nothing and lets nothing pass by a counter that is not whole; what
has happened is always counted.
Refuses to know: where what was used is read from, and who says that the counters are whole.
"""

from collections.abc import Sequence
from dataclasses import replace

from tallygate.domain.answer import asking
from tallygate.domain.catalog import OnExceed
from tallygate.domain.decision import (
    BalanceRule,
    Charge,
    Mode,
    Operation,
    RateRule,
    SlidingRule,
    WindowRule,
)
from tallygate.domain.detail import Extension, Rebuilt, Settlement
from tallygate.domain.hold import Account
from tallygate.domain.ids import AMOUNT_MAX
from tallygate.domain.limit import State, evaluate
from tallygate.domain.verdict import Moment

# They tell of counters, or take from them what they may not hold yet.
_ALWAYS = {Mode.CHECK, Mode.REFUND, Mode.RESET}
_GATED = {Mode.CONSUME, Mode.RESERVE}
# They use nothing up.
_GIVING = {Mode.GRANT, Mode.REBUILD, Mode.REJECT}


def is_fenced(operation: Operation, *, known: bool = True, lost: bool = False) -> bool:
    """Say whether the operation has to wait until the counters are rebuilt.

    `known` says whether the reservation that it settles or extends is. `lost` says that balances
    lack their grants still: what is used of them now would be taken from nothing, and be free.
    """
    if operation.mode in _ALWAYS:
        return True
    if lost and operation.mode not in _GIVING and _prepaid(operation):
        return True
    if isinstance(operation.detail, Settlement | Extension) and not known:
        return True
    return asking(operation) in _GATED and any(
        charge.on_exceed is OnExceed.REFUSE and charge.amount > 0 for charge in operation.charges
    )


def _prepaid(operation: Operation) -> bool:
    return any(
        isinstance(charge.rule, BalanceRule) and charge.amount > 0 for charge in operation.charges
    )


def not_begun(operation: Operation, now_us: int) -> bool:
    """Say whether a window's slot is of a window that is still to come: it has no counter yet."""
    return isinstance(operation.detail, Rebuilt) and any(
        isinstance(charge.rule, WindowRule) and place > now_us
        for charge, slots in zip(operation.charges, operation.detail.slots, strict=True)
        for place, _ in slots
    )


def rebuild(account: Account, charges: Sequence[Charge], rebuilt: Rebuilt, now_us: int) -> bool:
    """Add what older epochs had used to an account, once; say whether this was the first time."""
    if account.rebuilt:
        return False
    account.rebuilt = True
    for charge, slots in zip(charges, rebuilt.slots, strict=True):
        for slot in slots:
            state = _counted_again(charge, account.counters.get(charge.field), slot, now_us)
            if state is not None:
                account.counters[charge.field] = state
    return True


def _counted_again(
    charge: Charge, stored: State | None, slot: tuple[int, int], now_us: int
) -> State | None:
    """Return what is stored of a limit once a slot's units are added to it, None for no change.

    Units count as RECORD would count them, up to the most that a counter holds: one that overflowed
    could never be rebuilt. Concurrency and balances are not rebuilt this way: what is held is
    reserved again, and what is prepaid is granted again.
    """
    place, units = slot
    match charge.rule:
        case WindowRule():
            used_at_us = place
        case SlidingRule(width_us=width_us):
            used_at_us = place * width_us
        case RateRule():
            used_at_us = now_us
        case _:
            return None
    moment = Moment(now_us, Mode.RECORD, used_at_us)
    verdict = evaluate(replace(charge, amount=units), stored, moment)
    if verdict.overflow:
        room = AMOUNT_MAX - verdict.before.used
        verdict = evaluate(replace(charge, amount=room), stored, moment)
    return verdict.counter
