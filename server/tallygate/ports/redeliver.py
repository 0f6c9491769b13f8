"""The seam of sending messages again.

Guarantees: a message is sent again once for each replay, under the id that it has.
Refuses to know: SQL and destinations.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RedeliverAsked:
    """Which messages, by when they were written, for which destination; empty type for all.

    The same `replay_id` again goes on with what it has not sent again yet.
    """

    replay_id: str
    destination: str
    from_us: int
    to_us: int
    type: str = ""


@dataclass(frozen=True, slots=True)
class RedeliverCounts:
    """Of the messages asked for: those that would be sent again, by where they are now.

    `delivered` and `parked` have been sent or given up, `unsent` were not meant for the
    destination; `waiting` are on their way already, and `replayed` were sent again by this replay.
    """

    delivered: int = 0
    parked: int = 0
    unsent: int = 0
    waiting: int = 0
    replayed: int = 0

    @property
    def again(self) -> int:
        """Return how many would be sent again."""
        return self.delivered + self.parked + self.unsent


@dataclass(frozen=True, slots=True)
class RedeliverBatch:
    """What a step has done: messages looked at and sent again, and where the next begins."""

    seen: int
    again: int
    after: tuple[str, int] | None


class MessageReplay(Protocol):
    """Gives messages back to relays."""

    async def counts(self, asked: RedeliverAsked) -> RedeliverCounts:
        """Return what would be sent again. Raises `NotFound` for an unknown destination."""
        ...

    async def again(
        self, asked: RedeliverAsked, after: tuple[str, int] | None, limit: int
    ) -> RedeliverBatch:
        """Give some messages back, after a place, all or none; `after` is None at the end."""
        ...
