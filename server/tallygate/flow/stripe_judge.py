"""answers ─▶ [ stripe judge ] ─▶ results: what an answer of Stripe's makes of a send.

If we die here, nothing is noted yet, and the send is in doubt.

Guarantees: only what was surely not taken loses its doubt; what was in doubt and is refused then is
not taken for refused, as an attempt before may have been taken.
Refuses to know: Stripe's interface, and where results are kept.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, assert_never

from tallygate.domain.stripe_intent import Intent, IntentKind, SendState, made_again
from tallygate.domain.stripe_retry import RETRY_WITHIN_US, UNDECIDED
from tallygate.domain.stripe_sync import value_faults
from tallygate.domain.window import SECOND_US
from tallygate.flow.loop import LoopOptions, backoff_ms
from tallygate.flow.stripe_gate import Gate
from tallygate.flow.stripe_settle import ASK_AGAIN_US
from tallygate.ports import Clock
from tallygate.ports.stripe import Answer, Outcome
from tallygate.ports.stripe_store import Claimed, SendResult

RETRY_MIN_MS: Final = 1_000
# Often enough that an attempt falls into every hour of the day in which it may be repeated.
RETRY_MAX_MS: Final = 900_000
REASON_LENGTH_MAX: Final = 500
_MS_US: Final = SECOND_US // 1000


class Judge:
    """Makes results of answers, for one account."""

    def __init__(self, gate: Gate, clock: Clock, chance: Callable[[], float]) -> None:
        self._gate = gate
        self._clock = clock
        self._backoff = LoopOptions(
            backoff_min_ms=RETRY_MIN_MS, backoff_max_ms=RETRY_MAX_MS, chance=chance
        )

    def result(self, claimed: Claimed, answer: Answer) -> SendResult:
        """Return what an answer makes of a send that went by a call of its own."""
        now_us = self._clock.now_us()
        reason = answer.reason[:REASON_LENGTH_MAX]
        match answer.outcome:
            case Outcome.TAKEN:
                return SendResult(claimed.intent_id, SendState.DELIVERED, now_us)
            case Outcome.REPEATED:
                return SendResult(
                    claimed.intent_id, SendState.DELIVERED, now_us, code=Outcome.REPEATED.value
                )
            case Outcome.AMBIGUOUS:
                return self._open(claimed, answer, now_us, doubtful=True)
            case Outcome.REFUSED if claimed.doubtful:
                # A sum will tell, once Stripe has it; the same call would be refused again.
                due_us = max(now_us, claimed.first_us + RETRY_WITHIN_US)
                return SendResult(
                    claimed.intent_id,
                    SendState.AMBIGUOUS,
                    due_us,
                    doubtful=True,
                    code=answer.code,
                    reason=reason,
                )
            case Outcome.REFUSED:
                return SendResult(
                    claimed.intent_id, SendState.REJECTED, now_us, code=answer.code, reason=reason
                )
            case Outcome.NOT_SENT | Outcome.BUSY:
                return self._open(claimed, answer, now_us, doubtful=claimed.doubtful)
            case Outcome.THROTTLED | Outcome.KEY_REFUSED:
                # The gate is shut; it is no fault of this send, and no attempt of it.
                return self.unsent(claimed, now_us, reason)
            case _:
                assert_never(answer.outcome)

    def streamed(self, claimed: Claimed, answer: Answer, batch_key: str) -> SendResult:
        """Return what the answer to a stream's call makes of one of its events."""
        now_us = self._clock.now_us()
        if answer.outcome in (Outcome.AMBIGUOUS, Outcome.REFUSED):
            # One bad event may have had all refused: each goes alone, and is judged by itself.
            doubtful = answer.outcome is Outcome.AMBIGUOUS
            return SendResult(
                claimed.intent_id,
                SendState.AMBIGUOUS if doubtful else SendState.PENDING,
                now_us + RETRY_MIN_MS * _MS_US,
                doubtful=doubtful,
                alone=True,
                batch_key=batch_key,
                code=answer.code,
                reason=answer.reason[:REASON_LENGTH_MAX],
            )
        result = self.result(claimed, answer)
        if result.state is not SendState.DELIVERED:
            return result
        return SendResult(claimed.intent_id, result.state, now_us, batch_key=batch_key)

    def unsent(self, claimed: Claimed, now_us: int, reason: str = "") -> SendResult:
        """Return the result of a send that was claimed and not tried."""
        state = SendState.AMBIGUOUS if claimed.doubtful else SendState.PENDING
        return SendResult(
            claimed.intent_id,
            state,
            now_us,
            doubtful=claimed.doubtful,
            unsent=True,
            reason=reason,
        )

    def asked_later(self, claimed: Claimed, reason: str) -> SendResult:
        """Return the result of a send that Stripe could not be asked about."""
        answer = Answer(Outcome.AMBIGUOUS, reason=reason)
        return self._open(claimed, answer, self._clock.now_us(), doubtful=True)

    def undecided(self, claimed: Claimed, reason: str) -> SendResult:
        """Return the result of a send that only people can judge."""
        return SendResult(
            claimed.intent_id,
            SendState.AMBIGUOUS,
            self._clock.now_us() + ASK_AGAIN_US,
            doubtful=True,
            code=UNDECIDED,
            reason=reason[:REASON_LENGTH_MAX],
        )

    def too_old(self, claimed: Claimed) -> SendResult:
        """Return the result of a send that Stripe would refuse for its age."""
        reason = "older than what Stripe takes: adjust the invoice by hand"
        return SendResult(
            claimed.intent_id,
            SendState.TOO_OLD,
            self._clock.now_us(),
            unsent=not claimed.doubtful,
            reason=reason,
        )

    def outdone(self, claimed: Claimed) -> SendResult:
        """Return the result of a total that a later one has taken the place of."""
        # Sent now, it would take the later one's place, as Stripe keeps what it receives last.
        return SendResult(
            claimed.intent_id,
            SendState.SETTLED,
            self._clock.now_us(),
            unsent=True,
            reason="a later total stands",
        )

    def unsendable(self, claimed: Claimed) -> SendResult | None:
        """Return the result of a send that cannot be exact, None for all others."""
        fault = value_faults(claimed.intent.value)
        if not fault or claimed.intent.kind in (IntentKind.ITEM, IntentKind.CANCEL):
            return None
        return SendResult(
            claimed.intent_id,
            SendState.REJECTED,
            self._clock.now_us(),
            unsent=True,
            code="value_too_many_digits",
            reason=f"the value {fault}",
        )

    def taken_back(self, claimed: Claimed) -> Intent:
        """Return what takes usage back where it cannot be cancelled."""
        customer = claimed.intent.place.customer
        return made_again(claimed.intent, claimed.intent_id, customer=customer, negative=True)

    def replaced(self, claimed: Claimed, answer: Answer) -> SendResult:
        """Return the result of a send that another one stands for since."""
        reason = f"taken back by negative usage instead: {answer.reason}"
        return SendResult(
            claimed.intent_id,
            SendState.SETTLED,
            self._clock.now_us(),
            code=answer.code,
            reason=reason[:REASON_LENGTH_MAX],
        )

    def batch_key(self, batch: Sequence[Claimed]) -> str:
        """Return the idempotency key of a call with these events."""
        joined = "\n".join(each.intent.identifier for each in batch)
        return f"tallygate-batch-{hashlib.sha256(joined.encode()).hexdigest()[:40]}"

    def _open(self, claimed: Claimed, answer: Answer, now_us: int, *, doubtful: bool) -> SendResult:
        delay_ms = max(answer.retry_after_ms, backoff_ms(claimed.attempt, self._backoff))
        return SendResult(
            claimed.intent_id,
            SendState.AMBIGUOUS if doubtful else SendState.PENDING,
            now_us + delay_ms * _MS_US,
            doubtful=doubtful,
            code=answer.code,
            reason=answer.reason[:REASON_LENGTH_MAX],
        )
