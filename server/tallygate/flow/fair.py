"""api ─▶ [ fair ] ─▶ gather: calls wait by tenant, and tenants take turns.

If we die here, what waits was not sent and nobody was answered: callers retry.

Guarantees: what one tenant has waiting delays another's by a turn and no more; the room is bounded,
and when it is full it is taken from a tenant that has at least half as much waiting as any. Every
step costs the same however many tenants wait.
Refuses to know: what operations mean, and how long anything takes.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from tallygate.domain.decision import Operation, Outcome
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import TenantId

Answers = list[Outcome | TallygateError]

# Turns that fill a pipeline: so many busy tenants share each, and a tenant with one call is in the
# next.
TURNS: Final = 8


class Part(Protocol):
    """Operations of one tenant that are sent and answered together."""

    @property
    def tenant_id(self) -> TenantId:
        """Whose they are."""
        ...

    @property
    def operations(self) -> Sequence[Operation]:
        """Return them in order."""
        ...

    def gone(self) -> bool:
        """Say whether nobody waits for the answers any more."""
        ...

    def answered(self, answers: Answers) -> None:
        """Take the answers, one per operation."""
        ...

    def failed(self, error: Exception) -> None:
        """Take why there are none."""
        ...


@dataclass(slots=True, eq=False)
class _Lane:
    """One tenant's parts in order, and the operations in them."""

    tenant_id: TenantId
    parts: deque[Part] = field(default_factory=deque)
    waiting: int = 0
    # What it may send in its turn and has not: parts are sent whole, so some turns save up.
    credit: int = 0


class FairQueue:
    """Parts by tenant, taken in turns: deficit round robin (Shreedhar and Varghese, 1995)."""

    def __init__(self, room: int, size_max: int) -> None:
        self._room = room
        # Operations of one tenant before the next one's turn.
        self._turn = max(1, size_max // TURNS)
        self._lanes: dict[TenantId, _Lane] = {}
        self._turns: deque[_Lane] = deque()
        # Lanes by the bit length of what waits in them: whoever has most is in the last of these.
        self._sizes: list[dict[_Lane, None]] = [{} for _ in range(room.bit_length() + 1)]
        self._largest = 0
        self.depth = 0

    def __bool__(self) -> bool:
        return self.depth > 0

    def ahead(self, tenant_id: TenantId) -> int:
        """Return how many operations are sent before one more of the tenant's, at most."""
        lane = self._lanes.get(tenant_id)
        own = lane.waiting if lane is not None else 0
        return min(self.depth, (own + self._turn) * len(self._lanes))

    def put(self, part: Part) -> list[Part]:
        """Have a part wait; return those that cannot, most often none.

        When there is no room, the newest parts of whoever has most waiting have to go; the part
        itself, when nobody has about twice as much as its own tenant would have.
        """
        size = len(part.operations)
        lane = self._lanes.get(part.tenant_id)
        gone: list[Part] = []
        if self.depth + size > self._room:
            own = size + (lane.waiting if lane is not None else 0)
            if size > self._room or not self._evict(size, own, gone):
                gone.append(part)
                return gone
        if lane is None:
            lane = self._lanes[part.tenant_id] = _Lane(part.tenant_id)
            self._turns.append(lane)
        lane.parts.append(part)
        before = lane.waiting
        lane.waiting = after = before + size
        self.depth += size
        if before.bit_length() != after.bit_length():
            self._move(lane, before, after)
        return gone

    def take(self, size_max: int) -> list[Part]:
        """Return parts of about so many operations, each tenant's in its turn and in order.

        Parts that nobody waits for are dropped on the way.
        """
        taken: list[Part] = []
        size = 0
        while self._turns and size < size_max:
            lane = self._turns.popleft()
            # Alone, a lane needs no turns.
            lane.credit = lane.credit + self._turn if self._turns else size_max
            before = lane.waiting
            while lane.parts and size < size_max:
                cost = len(lane.parts[0].operations)
                if cost > lane.credit and self._turns:
                    break
                part = lane.parts.popleft()
                lane.waiting -= cost
                if not part.gone():
                    lane.credit -= cost
                    size += cost
                    taken.append(part)
            self.depth -= before - lane.waiting
            self._move(lane, before, lane.waiting)
            if lane.parts:
                # What a full pipeline has left over of a turn is not saved up.
                lane.credit = min(lane.credit, len(lane.parts[0].operations))
                self._turns.append(lane)
            else:
                del self._lanes[lane.tenant_id]
        return taken

    def _evict(self, size: int, own: int, gone: list[Part]) -> bool:
        """Make room at the expense of who has most, but not for `own` that would be as much."""
        while self.depth + size > self._room:
            while not self._sizes[self._largest]:
                self._largest -= 1
            if own.bit_length() >= self._largest:
                return False
            lane = next(iter(self._sizes[self._largest]))
            part = lane.parts.pop()
            before = lane.waiting
            lane.waiting -= len(part.operations)
            self.depth -= before - lane.waiting
            self._move(lane, before, lane.waiting)
            # A lane that is empty now keeps its place until its turn, as finding it would cost.
            gone.append(part)
        return True

    def _move(self, lane: _Lane, waited: int, waits: int) -> None:
        """Put a lane where it belongs by what waits in it now."""
        before, after = waited.bit_length(), waits.bit_length()
        if before != after:
            if before:
                del self._sizes[before][lane]
            if after:
                self._sizes[after][lane] = None
                self._largest = max(self._largest, after)
