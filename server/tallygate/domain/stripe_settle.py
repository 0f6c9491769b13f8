"""Which of the sends that may have been taken were, told from what Stripe has summed up.

Guarantees: what is decided explains the sum to the last digit; where nothing explains it, nothing
is decided. If several choices explain it they are worth the same, so any of them is right where all
are decided; of some of them, only what all choices agree on is.
Refuses to know: how sums and sends are read, and when.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from typing import Final, TypeAlias

from tallygate.domain.stripe_intent import IntentId

# All choices of so many are tried: 4,096. More at once in one period is nothing to guess at.
OPEN_MAX: Final = 12
# Of a sum that comes as a double, so many digits are meant.
_DIGITS: Final = 15

Open: TypeAlias = Sequence[tuple[IntentId, Decimal]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which were taken, or why that cannot be told; `behind` says that the sum may still grow."""

    taken: frozenset[IntentId] = frozenset()
    fault: str = ""
    behind: bool = False


def settle(
    known: Decimal, open_: Open, summed: Decimal, asked: Collection[IntentId] | None = None
) -> Verdict:
    """Return which of the open sends a sum holds beside what is known to be in it.

    `asked` are those that are decided now, all of them unless said. The others may go out again
    under their identifiers: of two that are worth the same, the one that was not taken would then
    be told, or the one that was be told twice.
    """
    every = frozenset(intent_id for intent_id, _ in open_)
    decided = every if asked is None else every & frozenset(asked)
    if len(open_) > OPEN_MAX:
        return _of_many(known, open_, summed, alone=decided == every)
    found: list[tuple[Decimal, frozenset[IntentId]]] = []
    for count in range(len(open_), -1, -1):
        for chosen in combinations(open_, count):
            told = known + sum((value for _, value in chosen), Decimal(0))
            if alike(told, summed):
                found.append((told, frozenset(intent_id for intent_id, _ in chosen)))
    # Of a large sum, fewer digits are meant than it has: what has them all comes first, and a send
    # that is worth less than the last of them cannot be told.
    found = [each for each in found if each[0] == summed] or found
    if found:
        worths = {told for told, _ in found}
        choices = {taken & decided for _, taken in found}
        if len(worths) > 1 or (decided != every and len(choices) > 1):
            return Verdict(fault=f"Stripe has {summed}, which several choices explain")
        return Verdict(found[0][1])
    least = known + sum((value for _, value in open_ if value < 0), Decimal(0))
    fault = f"Stripe has {summed}, of which {known} is known to be ours: no choice explains it"
    return Verdict(fault=fault, behind=summed < least)


def alike(exact: Decimal, summed: Decimal) -> bool:
    """Say whether a sum that came as a double is that of an exact one."""
    # Spelled like the double it would be: nearer than that, Stripe's answer cannot say it.
    return exact == summed or format(exact, f".{_DIGITS}g") == format(summed, f".{_DIGITS}g")


def _of_many(known: Decimal, open_: Open, summed: Decimal, *, alone: bool) -> Verdict:
    every = sum((value for _, value in open_), Decimal(0))
    # What only adds up comes to all or to nothing in one way.
    if alone or all(value > 0 for _, value in open_):
        taken, untaken = alike(known + every, summed), alike(known, summed)
        if taken and (not untaken or not every or known + every == summed):
            return Verdict(frozenset(intent_id for intent_id, _ in open_))
        if untaken and (not taken or known == summed):
            return Verdict()
    return Verdict(
        fault=f"{len(open_)} sends are open at once, at most {OPEN_MAX} can be told apart"
    )
