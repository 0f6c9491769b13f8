"""Which one of several processes this is, where they serve one port together.

Guarantees: shares add up to the whole.
Refuses to know: who starts the processes, and who watches over them.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Place:
    """A process's number, from 0, among those that serve together.

    One that does not listen hands in what an earlier process has left in its folder.
    """

    index: int = 0
    count: int = 1
    listens: bool = True

    @property
    def shares_port(self) -> bool:
        """Whether other processes listen on the same port."""
        return self.listens and self.count > 1

    def share_of(self, units: int) -> int:
        """Return what this process may spend of units that all of them have together."""
        if not self.listens:
            return 0
        return units // self.count + (self.index < units % self.count)


ALONE: Final = Place()
