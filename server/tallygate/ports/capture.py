"""The outbox of captured usage in an app's own database.

Guarantees: two who drain it never hold the same row at once.
Refuses to know: how rows come into it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.captured import CaptureBacklog, CapturedUse, Settled


@dataclass(frozen=True, slots=True)
class Claimed:
    """Rows that are ours until the lease ends."""

    lease: str
    uses: Sequence[CapturedUse]


class CaptureOutbox(Protocol):
    """Holds what was captured until it is handed on."""

    async def fold(self, at_most: int) -> int:
        """Have changes of levels become rows of the outbox; return how many changes that were."""
        ...

    async def claim(self, at_most: int, lease_ms: int) -> Claimed:
        """Take rows that are due, those that were written first first."""
        ...

    async def settle(self, lease: str, settled: Settled) -> int:
        """Do away with what is done, as far as it is still ours; return how many rows that were."""
        ...

    async def backlog(self) -> CaptureBacklog:
        """Return what the outbox holds."""
        ...
