"""app's own database: triggers ─▶ outbox ─▶ [ capture ] ──gRPC──▶ a sidecar's RecordUsage.

If we die here before a list is sent, its rows come due again with the lease; between the send and
the mark they are sent once more, under the same event ids, and are known already.

Guarantees: a row leaves the outbox only after a sidecar has accepted it, or has refused it for
good, and then it is kept with the reason. No transaction is open while a sidecar is asked.
Refuses to know: triggers, transports, and how often it is run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tallygate.domain.captured import CaptureBacklog, CapturedUse, Settled
from tallygate.domain.recording import Later, Outcome, Recorded, Refused
from tallygate.ports.capture import CaptureOutbox
from tallygate.ports.recording import UsageRecorder

CLAIM_MAX: Final = 500
FOLD_MAX: Final = 10_000
# Longer than a call may take, with its repeats.
LEASE_MS: Final = 60_000
BACKOFF_MAX_MS: Final = 60_000
# A refund finds its event as soon as Redis has it: some minutes of an outage.
REFUNDS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class CaptureCounts:
    """What one run did."""

    folded: int = 0
    accepted: int = 0
    replayed: int = 0
    refused: int = 0
    later: int = 0
    # One row asked alone whether anybody takes usage again, and somebody does.
    asked: bool = False

    @property
    def more(self) -> bool:
        """Say whether there is likely more to do at once."""
        return not self.later and (
            self.folded >= FOLD_MAX or self.asked or self.accepted + self.refused >= CLAIM_MAX
        )


class CaptureObserver(Protocol):
    """Hears what a drainer does."""

    def drained(self, counts: CaptureCounts) -> None:
        """A run ended."""
        ...

    def measured(self, backlog: CaptureBacklog) -> None:
        """The outbox was looked at."""
        ...


class DrainCapture:
    """A step: folds levels, and hands one list of captured usage on."""

    def __init__(
        self, outbox: CaptureOutbox, recorder: UsageRecorder, observer: CaptureObserver
    ) -> None:
        self._outbox = outbox
        self._recorder = recorder
        self._observer = observer
        self._claim_max = CLAIM_MAX

    async def run_once(self) -> CaptureCounts:
        """Fold, claim, send, settle."""
        folded = await self._outbox.fold(FOLD_MAX)
        claimed = await self._outbox.claim(self._claim_max, LEASE_MS)
        counts = CaptureCounts(folded=folded)
        if claimed.uses:
            outcomes = await self._told(claimed.uses)
            await self._outbox.settle(claimed.lease, _settled(claimed.uses, outcomes))
            counts = _counted(folded, outcomes, asked=self._claim_max == 1)
            # While nobody takes anything a single row asks: each claim is a write to the app's
            # database, and a long outbox would be written anew each minute.
            self._claim_max = 1 if counts.later == len(outcomes) else CLAIM_MAX
        self._observer.drained(counts)
        return counts

    async def measure(self) -> None:
        """Look at what the outbox holds."""
        self._observer.measured(await self._outbox.backlog())

    async def _told(self, uses: Sequence[CapturedUse]) -> list[Outcome]:
        outcomes = [*await self._recorder.record([each.use() for each in uses])]
        for place, each in enumerate(uses):
            if each.amount == 0 and isinstance(outcomes[place], Recorded):
                taken = await self._recorder.take_back(each.use())
                # Recorded but not taken back is not done: both are told again, under their ids.
                if not isinstance(taken, Recorded):
                    outcomes[place] = _patient(taken, each)
        return outcomes


def _patient(taken: Outcome, use: CapturedUse) -> Outcome:
    """Return what to do about a refund: it may have come before its event was in Redis."""
    early = use.attempts < REFUNDS_MAX
    if early and isinstance(taken, Refused) and taken.reason == "EVENT_NOT_FOUND":
        return Later(taken.reason, taken.message, backoff_ms(use.attempts))
    return taken


def _settled(uses: Sequence[CapturedUse], outcomes: Sequence[Outcome]) -> Settled:
    accepted, refused, later = list[int](), dict[int, Refused](), dict[int, int]()
    for use, outcome in zip(uses, outcomes, strict=True):
        match outcome:
            case Recorded():
                accepted.append(use.captured_id)
            case Refused():
                refused[use.captured_id] = outcome
            case Later(after_ms=after_ms):
                later[use.captured_id] = max(after_ms, backoff_ms(use.attempts))
    return Settled(accepted, refused, later)


def _counted(folded: int, outcomes: Sequence[Outcome], *, asked: bool) -> CaptureCounts:
    return CaptureCounts(
        folded=folded,
        accepted=sum(isinstance(each, Recorded) for each in outcomes),
        replayed=sum(isinstance(each, Recorded) and each.replayed for each in outcomes),
        refused=sum(isinstance(each, Refused) for each in outcomes),
        later=sum(isinstance(each, Later) for each in outcomes),
        asked=asked,
    )


def backoff_ms(attempts: int) -> int:
    """Return how long a row waits after so many attempts: doubling from 250 ms to a minute."""
    return int(min(BACKOFF_MAX_MS, 250 << min(attempts, 10)))
