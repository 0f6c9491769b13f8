"""lease ─▶ [ granted ] ─▶ lease: what was granted lately, so that a repeat is known at once.

If we die here, repeats are known by the store once what was granted is settled.

Guarantees: at least the last so many grants are known, and at most three times as many are kept.
Refuses to know: leases' ends, and what is granted.
"""

from typing import NamedTuple

from tallygate.domain.alike import Alike
from tallygate.domain.decision import Decided
from tallygate.domain.ids import OperationId, TenantId
from tallygate.flow.heat import readings_of
from tallygate.flow.settle import Granted, Lease

Name = tuple[TenantId, OperationId]


class Repeatable(NamedTuple):
    """A call that was granted: with whom, from what, and what was left of it then."""

    alike: Alike
    granted: Granted
    lease: Lease
    left: tuple[int, ...]

    def answer(self, *, replayed: bool) -> Decided:
        """Return what its caller was told, or is told again."""
        return Decided(
            True,
            self.granted.at_us,
            readings_of(self.lease, self.left),
            replayed=replayed,
            leased=True,
            journal_mark=self.granted.mark,
        )


class Recent:
    """The last grants by name. Two generations, as a dict's oldest entry is slow to find."""

    def __init__(self, known_max: int) -> None:
        self._known_max = known_max
        self._young: dict[Name, Repeatable] = {}
        self._old: dict[Name, Repeatable] = {}
        # Forgotten, but let go one by one: all at once would take milliseconds.
        self._gone: dict[Name, Repeatable] = {}

    def get(self, name: Name) -> Repeatable | None:
        """Return what was granted under a name."""
        return self._young.get(name) or self._old.get(name)

    def put(self, name: Name, granted: Repeatable) -> None:
        """Keep what was granted."""
        if len(self._young) >= self._known_max:
            self._gone, self._old, self._young = self._old, self._young, {}
        if self._gone:
            self._gone.popitem()
        self._young[name] = granted
