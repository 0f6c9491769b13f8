"""outbox ─▶ [ relay ] ─▶ destination: claim → send → mark, one for each destination.

If we die here after the claim and before the send, the lease runs out and the message is claimed
again. If we die after the send and before the mark, it is sent again under the same message id, by
which the destination knows it. If we come back when another relay has taken over, our mark names a
lease that is gone and is refused.

Guarantees: no transaction is open while a destination is asked; what cannot be delivered is tried
later and later, and in the end set aside with its reason, never dropped. Messages may overtake each
other.
Refuses to know: Postgres, HTTP, and what a message says.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from tallygate.domain.errors import TallygateError
from tallygate.flow.loop import LoopOptions, backoff_ms
from tallygate.ports import (
    Delivery,
    DestinationRefused,
    DestinationSender,
    Outbox,
    OutboxDepth,
)

# A destination may ask for patience, but not for ever.
RETRY_AFTER_MAX_MS: Final = 86_400_000
REASON_LENGTH_MAX: Final = 500


class RelayObserver(Protocol):
    """What a relay tells of itself."""

    def delivered(self, destination: str, count: int) -> None:
        """So many messages were sent and marked."""

    def retried(self, destination: str, count: int) -> None:
        """So many messages were refused and wait for another try."""

    def parked(self, destination: str, count: int) -> None:
        """So many messages were given up on."""

    def stale(self, destination: str, count: int) -> None:
        """So many answers came after another relay had taken over; their marks were refused."""


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """How much is sent at once, and how often it is tried. `chance` is from 0 up to 1."""

    claim_max: int = 100
    concurrency_max: int = 8
    lease_ms: int = 60_000
    send_timeout_ms: int = 10_000
    attempts_max: int = 20
    backoff_ms: int = 1_000
    backoff_max_ms: int = 3_600_000
    chance: Callable[[], float] = field(default=random.random)

    @property
    def claim_count(self) -> int:
        """How many to claim, so that even when every send times out none outlasts its lease.

        One round's time is kept back for the claim and the marks.
        """
        rounds = max(1, self.lease_ms // self.send_timeout_ms - 1)
        return min(self.claim_max, self.concurrency_max * rounds)


@dataclass(slots=True)
class RelayCounts:
    """What one run did. `asked` is how many deliveries it would have taken."""

    asked: int
    claimed: int = 0
    delivered: int = 0
    retried: int = 0
    parked: int = 0
    stale: int = 0

    @property
    def more(self) -> bool:
        """Whether there is likely more to do at once: not while the destination takes nothing."""
        return self.claimed >= self.asked and self.delivered > 0


class Relay:
    """Moves messages from the outbox to one destination."""

    def __init__(
        self,
        outbox: Outbox,
        sender: DestinationSender,
        options: RelayOptions,
        observer: RelayObserver,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._options = options
        self._observer = observer
        self._backoff = LoopOptions(
            backoff_min_ms=options.backoff_ms,
            backoff_max_ms=options.backoff_max_ms,
            chance=options.chance,
        )

    async def run_once(self) -> RelayCounts:
        """Send what is due, and return what became of it.

        Raises the outbox's error when it fails; what is being sent then is still finished.
        """
        options = self._options
        counts = RelayCounts(asked=options.claim_count)
        deliveries = await self._outbox.claim(self._sender.name, counts.asked, options.lease_ms)
        counts.claimed = len(deliveries)
        waiting = iter(deliveries)
        failures: list[TallygateError] = []

        async def work() -> None:
            # What is not started now, because marks fail, is claimed again after its lease.
            while not failures and (delivery := next(waiting, None)) is not None:
                try:
                    await self._deliver(delivery, counts)
                except TallygateError as error:
                    failures.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(options.concurrency_max, len(deliveries))):
                group.create_task(work())
        if failures:
            raise failures[0]
        return counts

    async def snapshot(self) -> list[OutboxDepth]:
        """Return what awaits every destination, not only ours."""
        return await self._outbox.depths()

    async def _deliver(self, delivery: Delivery, counts: RelayCounts) -> None:
        if delivery.attempt > self._options.attempts_max:
            # Relays died over it so often that it was never refused; one more could die.
            await self._park(delivery, counts, "no attempt came to an end")
            return
        refused = await self._send(delivery)
        if refused is None:
            ours = await self._outbox.delivered([delivery]) == 1
            counts.delivered += ours
            self._tell(self._observer.delivered, counts, ours=ours)
        elif not refused.transient:
            await self._park(delivery, counts, refused.reason)
        elif delivery.attempt >= self._options.attempts_max:
            reason = f"gave up after {delivery.attempt} attempts: {refused.reason}"
            await self._park(delivery, counts, reason)
        else:
            delay_ms = self._delay_ms(delivery.attempt, refused.retry_after_ms)
            reason = refused.reason[:REASON_LENGTH_MAX]
            ours = await self._outbox.retry(delivery, delay_ms, reason)
            counts.retried += ours
            self._tell(self._observer.retried, counts, ours=ours)

    async def _send(self, delivery: Delivery) -> DestinationRefused | None:
        try:
            async with asyncio.timeout(self._options.send_timeout_ms / 1000):
                await self._sender.send(delivery)
        except DestinationRefused as refused:
            return refused
        except TimeoutError:
            return DestinationRefused("timed out", transient=True)
        # A fault of a sender over one message must not keep the others from being sent. Its text
        # is left out: it could quote an address or a secret.
        except Exception as error:  # noqa: BLE001
            return DestinationRefused(f"sender fault: {type(error).__name__}", transient=True)
        return None

    async def _park(self, delivery: Delivery, counts: RelayCounts, reason: str) -> None:
        ours = await self._outbox.park(delivery, reason[:REASON_LENGTH_MAX])
        counts.parked += ours
        self._tell(self._observer.parked, counts, ours=ours)

    def _delay_ms(self, attempt: int, retry_after_ms: int | None) -> int:
        asked = min(retry_after_ms or 0, RETRY_AFTER_MAX_MS)
        return max(asked, backoff_ms(attempt, self._backoff))

    def _tell(self, told: Callable[[str, int], None], counts: RelayCounts, *, ours: bool) -> None:
        if not ours:
            counts.stale += 1
            told = self._observer.stale
        told(self._sender.name, 1)
