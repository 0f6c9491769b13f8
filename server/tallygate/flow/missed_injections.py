"""Kubernetes ─▶ [ look ] ─▶ metric and log: pods that ask for a sidecar and have none.

If we die here nothing is lost: each look begins anew.

Guarantees: a look changes nothing in the cluster; it keeps at most so many pods, and counts all. A
look that failed leaves the last figures as they were.
Refuses to know: how pods are listed and who is told.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from tallygate.domain.injection import Rules
from tallygate.domain.injection_missed import Missed, missed
from tallygate.domain.injection_sidecar import Sidecar
from tallygate.ports.kubernetes import PodsAsking

# Enough to see which workloads they are of; a report of more is nobody's reading.
TOLD_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found: pods that ask, and those that miss their sidecar, some of them whole."""

    asking: int = 0
    missed: Sequence[Missed] = ()
    by_namespace: Mapping[str, int] = field(default_factory=dict)

    @property
    def more(self) -> bool:
        """Whether there is more to do at once: never."""
        return False


class MissedObserver(Protocol):
    """Who is told of each look."""

    def looked(self, look: Look) -> None:
        """A look has ended."""


class LookForMissed:
    """Looks for pods without the sidecar that they ask for; `sidecar` says what is in effect."""

    def __init__(
        self,
        pods: PodsAsking,
        sidecar: Callable[[], Sidecar],
        rules: Rules,
        observer: MissedObserver,
    ) -> None:
        self._pods = pods
        self._sidecar = sidecar
        self._rules = rules
        self._observer = observer

    async def run_once(self) -> Look:
        """Look at every pod that asks, once."""
        sidecar, asking = self._sidecar(), 0
        found: list[Missed] = []
        counts: Counter[str] = Counter()
        async for asked in self._pods.asking():
            asking += 1
            one = missed(asked, sidecar, self._rules)
            if one is None:
                continue
            counts[one.namespace] += 1
            if len(found) < TOLD_MAX:
                found.append(one)
        look = Look(asking, found, counts)
        self._observer.looked(look)
        return look
