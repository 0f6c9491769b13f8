"""api ─▶ [ pattern ] ─▶ lease: calls of one content, granted without being looked at again.

If we die here, nothing is lost: patterns are made anew of the calls that come.

Guarantees: a pattern's lease is one that each of its calls would be granted from: catalog, tenant
and parents are looked at anew in every turn, limits and windows when a lease is taken up.
Refuses to know: protos, and what is told of a grant.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from tallygate.domain.alike import Alike, alike_of
from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import OperationId
from tallygate.domain.request import ConsumeRequest
from tallygate.flow.draft import Draft
from tallygate.flow.heat import Hot
from tallygate.flow.lease import Leases
from tallygate.flow.settle import Lease

# Lengths of ids: callers have one way to make them, or a few.
LENGTHS_MAX: Final = 8


@dataclass(slots=True, eq=False)
class Pattern:
    """Calls that differ by their operation ids alone, and what they are granted from."""

    request: ConsumeRequest
    lease: Lease | None = None
    hot: Hot | None = None
    amounts: tuple[int, ...] = ()
    catalog: Catalog | None = None
    lineage: tuple[Tenant, ...] = ()
    # How many calls may be granted before some are settled.
    room: int = 0
    turn: int = 0
    # What was new when no lease was found.
    news: int = -1
    alikes: dict[int, Alike | None] = field(default_factory=dict)


class Patterns:
    """Finds leases for patterns. A turn is a list of calls that have come together."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._decide = leases.parts.decide
        self._turn = 0
        self._catalog: Catalog | None = None

    def begin(self) -> bool:
        """Begin a turn; say whether anything may be granted in it."""
        leases = self._leases
        if not (leases.live and leases.granting):
            return False
        try:
            self._catalog = self._decide.catalog()
        except TallygateError:
            return False
        self._turn += 1
        return True

    def lease(self, pattern: Pattern, now_s: float) -> Lease | None:
        """Return a lease with enough for a call, None for none."""
        lease = pattern.lease
        if lease is None:
            if pattern.news == self._leases.news:
                return None
            lease = self._found(pattern, now_s)
        elif pattern.turn != self._turn and not self._stands(pattern):
            lease = self._found(pattern, now_s)
        if lease is not None and not _enough(pattern, lease, now_s):
            lease = self._found(pattern, now_s)
        if lease is None or pattern.room <= 0:
            return None
        return lease

    def alike(self, pattern: Pattern, length: int) -> Alike | None:
        """Return the calls with ids of that length, None where they have to be encoded."""
        if length not in pattern.alikes:
            if len(pattern.alikes) >= LENGTHS_MAX:
                pattern.alikes.clear()

            def encode(of: OperationId) -> bytes:
                draft = self._drafted(replace(pattern.request, operation_id=of))
                return draft.operation.payload if draft is not None else b""

            request = pattern.request
            found = alike_of(request.tenant_id, len(request.items), length, encode)
            pattern.alikes[length] = found
        return pattern.alikes[length]

    def _stands(self, pattern: Pattern) -> bool:
        """Say whether the pattern's calls meet what they met; the turn's first look at it."""
        assert pattern.hot is not None
        pattern.turn = self._turn
        pattern.room = self._leases.room(pattern.hot)
        if pattern.catalog is not self._catalog:
            return False
        held = self._decide.held(pattern.request.tenant_id)
        return held is pattern.lineage or held == pattern.lineage

    def _found(self, pattern: Pattern, now_s: float) -> Lease | None:
        """Look for a lease, by what the calls meet now."""
        pattern.lease = None
        pattern.news = self._leases.news
        draft = self._drafted(pattern.request)
        if draft is None or not draft.undurable:
            return None
        hot = self._leases.hot_of(draft)
        lease = self._leases.open(hot, draft, now_s)
        if lease is None:
            return None
        pattern.lease, pattern.hot = lease, hot
        pattern.catalog, pattern.lineage = draft.catalog, draft.lineage
        pattern.amounts = tuple([charge.amount for charge in draft.operation.charges])
        pattern.turn, pattern.room = self._turn, self._leases.room(hot)
        return lease

    def _drafted(self, request: ConsumeRequest) -> Draft | None:
        decide = self._decide
        lineage = decide.held(request.tenant_id)
        if lineage is None or self._catalog is None:
            return None
        try:
            return decide.drafter.consume(request, self._catalog, lineage, decide.now_us())
        except TallygateError:
            # Whoever decides the call says why.
            return None


def _enough(pattern: Pattern, lease: Lease, now_s: float) -> bool:
    if now_s >= lease.ends_s or not lease.usable:
        return False
    left = lease.left
    for place, amount in enumerate(pattern.amounts):  # noqa: SIM110  every call comes through here
        if left[place] < amount:
            return False
    return True
