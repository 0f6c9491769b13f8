"""A destination in memory.

Guarantees: passes the same contract tests as the senders of the real destinations.
Refuses to know: the outbox and retries.
"""

from collections import deque

from tallygate.ports import Delivery, DestinationRefused


class FakeDestination:
    """The `DestinationSender` port; what it took is in `accepted`, repeats and all."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.accepted: list[Delivery] = []
        self._refusals: deque[Exception] = deque()

    @property
    def name(self) -> str:
        """The destination's name in the catalog."""
        return self._name

    def refuse_next(
        self, reason: str = "refused", *, transient: bool, retry_after_ms: int | None = None
    ) -> None:
        """Refuse the next message that is not refused already."""
        self._refusals.append(
            DestinationRefused(reason, transient=transient, retry_after_ms=retry_after_ms)
        )

    def fail_next(self, fault: Exception) -> None:
        """Raise `fault` at the next message that is not refused already."""
        self._refusals.append(fault)

    async def send(self, delivery: Delivery) -> None:
        """Deliver, or raise `DestinationRefused`."""
        if self._refusals:
            raise self._refusals.popleft()
        self.accepted.append(delivery)
