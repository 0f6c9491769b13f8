"""The prepaid grants of a tenant, as its invoice burns them.

Guarantees: units come from grants of the lowest priority first, then from those that expire first,
then from the oldest; from each at most what is left of it, and only for a stretch of which some
instant lies in the grant's time.
Refuses to know: what units cost, and the counters, which burn for themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from tallygate.domain.ids import LimitId
from tallygate.domain.invoice import Burn
from tallygate.domain.money import exactly
from tallygate.domain.price import ZERO
from tallygate.domain.window import Window


@dataclass(frozen=True, slots=True)
class GrantLeft:
    """A grant, and what no other period's invoice has burned of it."""

    limit_id: LimitId
    seq: int
    grant_id: str
    left: Decimal
    priority: int
    starts_us: int
    expires_us: int


GrantPlace = tuple[LimitId, int]
"""Which of a tenant's grants: its balance, and its number there."""


class Purse:
    """Grants that are burned while an invoice is made; it is used for one invoice."""

    def __init__(self, grants: Sequence[GrantLeft]) -> None:
        self._grants = sorted(grants, key=lambda each: (each.priority, each.expires_us, each.seq))
        self._left = {(each.limit_id, each.seq): each.left for each in grants}

    @exactly
    def burn(self, balance: LimitId, during: Window, wanted: Decimal) -> list[Burn]:
        """Take up to `wanted` units of a balance's grants; return what came of which."""
        burns: list[Burn] = []
        for grant in self._grants:
            valid = grant.starts_us < during.end_us and during.start_us < grant.expires_us
            if grant.limit_id != balance or not valid:
                continue
            place = (grant.limit_id, grant.seq)
            units = min(wanted, self._left[place])
            if units > 0:
                burns.append(Burn(grant.limit_id, grant.seq, grant.grant_id, units))
                self._left[place] -= units
                wanted -= units
        return burns


@exactly
def after(grants: Sequence[GrantLeft], burned: Mapping[GrantPlace, Decimal]) -> list[GrantLeft]:
    """Return grants with what is left once so much more of each was burned, below 0 given back."""
    return [
        replace(each, left=max(ZERO, each.left - burned.get((each.limit_id, each.seq), ZERO)))
        for each in grants
    ]


@exactly
def left_of(granted: int, burned: Decimal) -> Decimal:
    """Return what is left of a grant, never below nothing."""
    return max(ZERO, granted - burned)
