"""One counter held against what the ledger says it should hold, to the unit.

Guarantees: pure. What reservations hold counts on the counter's side alone: it is no usage yet.
Refuses to know: where either side was read.
"""

from collections import Counter as Multiset
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tallygate.domain.balance import OVERDRAFT, Balance
from tallygate.domain.decision import Charge, ConcurrencyRule, SlidingRule, WindowRule
from tallygate.domain.drift import BalanceBook, spelled
from tallygate.domain.limit import State
from tallygate.domain.sliding import Buckets
from tallygate.domain.verdict import Counter

Slots = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Unlike:
    """A place of a counter with other units than expected; `since_us` is when it began, or 0."""

    where: str
    expected: int
    found: int
    since_us: int = 0


def unlike(
    template: Charge, stored: State | None, held: Sequence[tuple[int, int]], used: Slots, at_us: int
) -> Iterator[Unlike]:
    """Iterate over the live places where a counter is not what was used and what is held.

    `template` is the limit's charge at `at_us`; `used` are the ledger's slots, `held` those of
    reservations. A rate has none.
    """
    match template.rule:
        case WindowRule(starts_us=starts):
            counter = stored if isinstance(stored, Counter) else Counter()
            live = counter.amount if counter.at_us == starts else 0
            expected = sum(units for _, units in used) + _at(held, starts)
            if live != expected:
                yield Unlike(f"window of {spelled(starts)}", expected, live, starts)
        case SlidingRule(width_us=width, buckets=buckets):
            first = at_us // width - buckets
            found = dict(stored.units) if isinstance(stored, Buckets) else {}
            due = Multiset(dict(used))
            for place, units in held:
                due[place] += units
            for place in sorted({*found, *due}):
                if place >= first and found.get(place, 0) != due[place]:
                    start = place * width
                    yield Unlike(
                        f"bucket of {spelled(start)}", due[place], found.get(place, 0), start
                    )
        case ConcurrencyRule():
            counter = stored if isinstance(stored, Counter) else Counter()
            holding = sum(units for _, units in held)
            if counter.amount != holding:
                yield Unlike("held", holding, counter.amount)
        case _:
            return


def unlike_balance(
    stored: State | None,
    held: Sequence[tuple[int, int]],
    book: BalanceBook,
    burns: Sequence[tuple[int, int]],
    at_us: int,
) -> Iterator[Unlike]:
    """Iterate over the grants, and the overdraft, of which a balance has other units left.

    `burns` are those that the ledger has yet to post: the number of the grant, and units.
    """
    balance = stored if isinstance(stored, Balance) else Balance()
    taken: Multiset[int] = Multiset()
    for place, units in (*burns, *held):
        taken[place] += units
    left = {grant.seq: grant.remaining for grant in balance.grants}
    for grant in book.grants:
        if grant.seq > book.published_seq or grant.expires_us <= at_us:
            continue
        expected = grant.remaining - taken[grant.seq]
        if left.get(grant.seq, 0) != expected:
            yield Unlike(f"grant {grant.seq}", expected, left.get(grant.seq, 0))
    owed = book.owed + taken[OVERDRAFT]
    if balance.owed != owed:
        yield Unlike("overdraft", owed, balance.owed)


def _at(held: Sequence[tuple[int, int]], place: int) -> int:
    return sum(units for at, units in held if at == place)
