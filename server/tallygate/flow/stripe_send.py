"""intents ─▶ [ stripe send ] ─▶ Stripe: claim → send → note, one customer's meter after another.

If we die here after the claim and before a send, the lease runs out and the send is claimed again,
in doubt. If we die after a send and before its note, the same: it goes out again under the same
identifier and key, which Stripe knows, or after a day is settled by its sum. If we come back when
another relay has taken over, our notes name a lease that is gone and are refused.

Guarantees: the sends of one customer's meter go out one by one, and none that may have been taken
goes out again once Stripe might have forgotten it. A refusal is kept with its reason; throttling,
silence and a refused key hold the whole account back, and nothing else.
Refuses to know: Postgres, HTTP, and what usage is.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import MeterName
from tallygate.domain.stripe_intent import Intent, IntentKind, SendState
from tallygate.domain.stripe_retry import Move, move_of
from tallygate.flow.stripe_gate import Gate
from tallygate.flow.stripe_judge import Judge
from tallygate.flow.stripe_settle import UNDECIDED, Settler
from tallygate.ports import Clock
from tallygate.ports.stripe import Answer, Outcome, StripeApi, StripeRefused, StripeSilent
from tallygate.ports.stripe_store import Claim, Claimed, SendResult, StripeSends

# As many events as one call of a stream may hold.
STREAM_MAX: Final = 100
STREAMED: Final = frozenset({IntentKind.DELTA, IntentKind.NEGATIVE})


class SendObserver(Protocol):
    """What a sender tells of itself."""

    def answered(self, destination: str, outcome: str, count: int) -> None:
        """So many sends had this outcome."""

    def waited(self, destination: str, seconds: float) -> None:
        """A send waited so long for its turn."""

    def held(self, destination: str, reason: str) -> None:
        """Nothing goes out for now, for this reason; empty when all is well."""

    def stale_notes(self, destination: str, count: int) -> None:
        """So many notes came after another relay had taken over."""


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How much is sent at once. `streamed` are the meters whose events go by stream.

    No send begins when the lease has less left than one may take.
    """

    lanes_max: int = 1_000
    per_lane: int = 20
    concurrency_max: int = 64
    lease_ms: int = 120_000
    send_timeout_ms: int = 20_000
    notes_max: int = 200
    streamed: frozenset[MeterName] = frozenset()
    chance: Callable[[], float] = field(default=random.random)


@dataclass(frozen=True, slots=True)
class SendParts:
    """What a sender works with."""

    sends: StripeSends
    api: StripeApi
    gate: Gate
    clock: Clock
    observer: SendObserver


@dataclass(slots=True)
class SendCounts:
    """What one round did, by state."""

    claimed: int = 0
    delivered: int = 0
    left: int = 0
    open: int = 0
    stale: int = 0

    @property
    def more(self) -> bool:
        """Whether there is likely more to do at once: not while nothing gets through."""
        return self.delivered > 0


@dataclass(slots=True)
class _Round:
    """One claim while it is worked off."""

    claim: Claim
    ends_s: float
    counts: SendCounts
    results: list[SendResult] = field(default_factory=list)
    replacements: list[Intent] = field(default_factory=list)
    quiet: dict[tuple[str, MeterName], int] = field(default_factory=dict)
    stopped: bool = False


class StripeSender:
    """Tells one account what it is to be told."""

    def __init__(
        self, destination: str, parts: SendParts, options: SendOptions | None = None
    ) -> None:
        self._destination = destination
        self._parts = parts
        self._options = options or SendOptions()
        self._settler = Settler(parts.sends, parts.api, parts.clock)
        self._judge = Judge(parts.gate, parts.clock, self._options.chance)

    async def run_once(self) -> SendCounts:
        """Send what is due, and return what became of it.

        Raises the store's error when it fails; what was sent then and not noted is in doubt.
        """
        parts, options = self._parts, self._options
        counts = SendCounts()
        parts.observer.held(self._destination, parts.gate.reason)
        if parts.gate.shut:
            return counts
        careful = parts.gate.careful
        ends_s = parts.clock.monotonic() + (options.lease_ms - options.send_timeout_ms) / 1000
        claim = await parts.sends.claim(
            self._destination,
            parts.clock.now_us(),
            lanes=1 if careful else options.lanes_max,
            per_lane=1 if careful else options.per_lane,
            lease_ms=options.lease_ms,
        )
        counts.claimed = sum(len(lane) for lane in claim.lanes)
        round_ = _Round(claim, ends_s, counts)
        try:
            await self._work(round_)
            await self._note(round_)
        finally:
            await parts.sends.release(claim.token, round_.quiet)
        return counts

    async def _work(self, round_: _Round) -> None:
        plain, streamed = self._divided(round_.claim)
        waiting: Iterator[tuple[Claimed, ...]] = iter([*streamed, *plain])
        batches = len(streamed)
        failures: list[TallygateError] = []
        started = 0

        async def work() -> None:
            nonlocal started
            while not failures and (some := next(waiting, None)) is not None:
                started += 1
                try:
                    if started <= batches:
                        await self._stream(some, round_)
                    else:
                        await self._lane(some, round_)
                    if len(round_.results) >= self._options.notes_max:
                        await self._note(round_)
                except TallygateError as error:
                    failures.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._options.concurrency_max, batches + len(plain))):
                group.create_task(work())
        if failures:
            raise failures[0]

    def _divided(self, claim: Claim) -> tuple[list[tuple[Claimed, ...]], list[tuple[Claimed, ...]]]:
        """Divide a claim into lanes that go one by one, and batches of a stream."""
        plain: list[tuple[Claimed, ...]] = []
        flowing: list[Claimed] = []
        for lane in claim.lanes:
            if all(self._flows(each) for each in lane):
                flowing += lane
            else:
                plain.append(lane)
        batches = [
            tuple(flowing[at : at + STREAM_MAX]) for at in range(0, len(flowing), STREAM_MAX)
        ]
        return plain, batches

    def _flows(self, claimed: Claimed) -> bool:
        intent = claimed.intent
        return (
            intent.place.meter in self._options.streamed
            and intent.kind in STREAMED
            and not claimed.doubtful
            and not claimed.alone
            and self._move(claimed) is Move.SEND
        )

    async def _lane(self, lane: Sequence[Claimed], round_: _Round) -> None:
        """Send the sends of one customer's meter in turn, until one is left open."""
        now_us = self._parts.clock.now_us()
        if any(each.doubtful for each in lane):
            doubtful = [each for each in lane if self._move(each) is Move.SETTLE]
            lane = [each for each in lane if self._move(each) is not Move.SETTLE]
        else:
            # Only what is in doubt is ever settled.
            doubtful = []
        if doubtful and not await self._settle(doubtful, round_):
            round_.results += [self._judge.unsent(each, now_us) for each in lane]
            return
        for place, claimed in enumerate(lane):
            if self._over(round_):
                rest = lane[place:]
            else:
                result = await self._one(claimed, round_)
                round_.results.append(result)
                if result.state not in (SendState.PENDING, SendState.AMBIGUOUS):
                    continue
                rest = lane[place + 1 :]
            round_.results += [self._judge.unsent(each, now_us) for each in rest]
            return

    async def _settle(self, doubtful: Sequence[Claimed], round_: _Round) -> bool:
        """Settle sends in doubt; say whether their lane may go on meanwhile."""
        now_us = self._parts.clock.now_us()
        try:
            found = await self._settler.settle(doubtful)
        except StripeSilent as silent:
            self._stop_for_silence(round_)
            round_.results += [self._judge.asked_later(each, silent.message) for each in doubtful]
            return False
        except StripeRefused as refused:
            round_.results += [
                self._judge.undecided(each, f"no sum to be had: {refused.message}")
                for each in doubtful
            ]
            return True
        round_.results += found.results
        round_.replacements += found.replacements
        waits = [
            each.due_us
            for each in found.results
            if each.state is SendState.AMBIGUOUS and each.code != UNDECIDED and each.due_us > now_us
        ]
        if waits:
            place = doubtful[0].intent.place
            round_.quiet[place.customer, place.meter] = max(waits)
        return not waits

    async def _one(self, claimed: Claimed, round_: _Round) -> SendResult:
        if claimed.outdone:
            return self._judge.outdone(claimed)
        match self._move(claimed):
            case Move.LEAVE:
                return self._judge.too_old(claimed)
            case Move.LOOK_UP:
                try:
                    return await self._settler.look_up(claimed)
                except (StripeSilent, StripeRefused) as error:
                    return self._judge.asked_later(claimed, error.message)
            case _:
                pass
        refused = self._judge.unsendable(claimed)
        if refused is not None:
            return refused
        checked = claimed.intent.place.meter in self._options.streamed
        answer = await self._asked(lambda: self._parts.api.tell(claimed, checked=checked))
        self._told(answer, 1, round_)
        result = self._judge.result(claimed, answer)
        if result.state is SendState.REJECTED and claimed.intent.kind is IntentKind.CANCEL:
            # Too late, or not found: the usage is taken back as negative usage instead.
            round_.replacements.append(self._judge.taken_back(claimed))
            return self._judge.replaced(claimed, answer)
        return result

    async def _stream(self, batch: Sequence[Claimed], round_: _Round) -> None:
        now_us = self._parts.clock.now_us()
        if self._over(round_):
            round_.results += [self._judge.unsent(each, now_us) for each in batch]
            return
        key = self._judge.batch_key(batch)
        answer = await self._asked(lambda: self._parts.api.stream(key, batch))
        self._told(answer, len(batch), round_)
        round_.results += [self._judge.streamed(each, answer, key) for each in batch]

    async def _asked(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        waited_s = await self._parts.gate.turn()
        self._parts.observer.waited(self._destination, waited_s)
        try:
            async with asyncio.timeout(self._options.send_timeout_ms / 1000):
                return await call()
        except TimeoutError:
            return Answer(Outcome.AMBIGUOUS, reason="timed out")
        # A fault of ours over one intent must not keep others from being sent; whether it went out
        # is not known. Its text is left out: it could quote a key.
        except Exception as error:  # noqa: BLE001
            return Answer(Outcome.AMBIGUOUS, reason=f"sender fault: {type(error).__name__}")

    def _told(self, answer: Answer, count: int, round_: _Round) -> None:
        gate = self._parts.gate
        self._parts.observer.answered(self._destination, answer.outcome.value, count)
        match answer.outcome:
            case Outcome.TAKEN | Outcome.REPEATED | Outcome.REFUSED:
                gate.answered()
            case Outcome.THROTTLED:
                gate.throttled(answer.retry_after_ms)
                round_.stopped = True
            case Outcome.KEY_REFUSED:
                gate.key_refused()
                round_.stopped = True
            case Outcome.AMBIGUOUS | Outcome.NOT_SENT:
                self._stop_for_silence(round_)
            case Outcome.BUSY:
                pass
        self._parts.observer.held(self._destination, gate.reason)

    def _over(self, round_: _Round) -> bool:
        """Say whether nothing more may begin in this round."""
        return (
            round_.stopped
            or self._parts.gate.closed
            or self._parts.clock.monotonic() >= round_.ends_s
        )

    def _stop_for_silence(self, round_: _Round) -> None:
        round_.stopped = self._parts.gate.silent() or round_.stopped

    async def _note(self, round_: _Round) -> None:
        results, round_.results = round_.results, []
        replacements, round_.replacements = round_.replacements, []
        if not results:
            return
        ours = await self._parts.sends.finish(round_.claim.token, results, replacements)
        counts = round_.counts
        for each in results:
            counts.delivered += each.state in (SendState.DELIVERED, SendState.SETTLED)
            counts.left += each.state in (SendState.REJECTED, SendState.TOO_OLD)
            counts.open += each.state in (SendState.PENDING, SendState.AMBIGUOUS)
        stale = len(results) - ours
        if stale:
            counts.stale += stale
            self._parts.observer.stale_notes(self._destination, stale)

    def _move(self, claimed: Claimed) -> Move:
        return move_of(
            claimed.intent,
            doubtful=claimed.doubtful,
            first_us=claimed.first_us,
            now_us=self._parts.clock.now_us(),
            code=claimed.code,
        )
