"""sends in doubt ─▶ [ stripe settle ] ─▶ settled or said again: told from what Stripe summed up.

If we die here before the note, the sends stay in doubt and are looked at again. The note that ends
one, and what says it again, are written together.

Guarantees: a sum is read only when nothing has been sent to its period for a while, as Stripe sums
up with a delay; a send that nothing explains is left to people, and never sent again.
Refuses to know: Postgres, and how Stripe is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from tallygate.domain.stripe_intent import Intent, IntentKind, SendState, made_again
from tallygate.domain.stripe_retry import KEY_BURNT, is_too_old
from tallygate.domain.stripe_settle import settle
from tallygate.domain.window import HOUR_US, MINUTE_US, Window
from tallygate.ports import Clock
from tallygate.ports.stripe import StripeApi
from tallygate.ports.stripe_store import Claimed, PeriodSend, SendResult, StripeSends

# Stripe says that its sums are behind, not by how much: test suites of others wait for minutes.
SUMMED_AFTER_US: Final = 15 * MINUTE_US
# A sum that lacks what is known to be in it is asked for again; for this long after the doubt.
BEHIND_UNTIL_US: Final = 48 * HOUR_US
UNDECIDED: Final = "undecided"
# What waits for people is not due; a sender that finds it must not ask each second.
ASK_AGAIN_US: Final = 6 * HOUR_US


@dataclass(slots=True)
class Settlement:
    """What was found: results, and what says some of it again."""

    results: list[SendResult] = field(default_factory=list)
    replacements: list[Intent] = field(default_factory=list)


class Settler:
    """Finds out what became of sends that may have been taken, once they must not be repeated."""

    def __init__(self, sends: StripeSends, api: StripeApi, clock: Clock) -> None:
        self._sends = sends
        self._api = api
        self._clock = clock

    async def settle(self, claimed: Sequence[Claimed]) -> Settlement:
        """Judge sends of one lane. Raises `StripeSilent` or the store's error; nothing is lost."""
        found = Settlement()
        for period_us in sorted({each.intent.place.period_start_us for each in claimed}):
            of_period = [each for each in claimed if each.intent.place.period_start_us == period_us]
            await self._period(of_period, found)
        return found

    async def look_up(self, claimed: Claimed) -> SendResult:
        """Judge an invoice item, which bears its identifier. Raises `StripeSilent`."""
        now_us = self._clock.now_us()
        if await self._api.item_known(claimed):
            return SendResult(
                claimed.intent_id,
                SendState.SETTLED,
                now_us,
                doubtful=True,
                reason="found at Stripe",
            )
        # It is not there, and Stripe has forgotten the key: the same may go out once more.
        return SendResult(
            claimed.intent_id, SendState.PENDING, now_us, code=KEY_BURNT, reason="not at Stripe"
        )

    async def _period(self, claimed: Sequence[Claimed], found: Settlement) -> None:
        intent = claimed[0].intent
        place, now_us = intent.place, self._clock.now_us()
        # A calendar that changed may have moved the period's end between two of its intents. What
        # Stripe sums up goes by times alone, and so does what it is held against.
        end_us = max(each.intent.place.period_end_us for each in claimed)
        window = Window(place.period_start_us, min(end_us, now_us - now_us % MINUTE_US + MINUTE_US))
        sends = await self._sends.period(intent.destination, place.customer, place.meter, window)
        ours = {each.intent_id for each in claimed}
        # Those that may still be repeated are in doubt as well, so all are told apart together.
        known = [send for send in sends if not send.open and send.intent_id not in ours]
        open_ = [send for send in sends if send.open or send.intent_id in ours]
        quiet_us = max((send.last_us for send in known), default=0) + SUMMED_AFTER_US
        pending = [send for send in open_ if send.intent_id not in ours]
        quiet_us = max([quiet_us, *(send.last_us + SUMMED_AFTER_US for send in pending)])
        if now_us < quiet_us:
            found.results += _wait(claimed, quiet_us, "waits until Stripe has summed up")
            return
        summed = await self._api.summed(
            intent.event_name, place.customer, window.start_us, window.end_us
        )
        self._judge(claimed, known, open_, summed, found)

    def _judge(
        self,
        claimed: Sequence[Claimed],
        known: Sequence[PeriodSend],
        open_: Sequence[PeriodSend],
        summed: Decimal,
        found: Settlement,
    ) -> None:
        now_us = self._clock.now_us()
        verdict = settle(
            sum((send.value for send in known), Decimal(0)),
            [(send.intent_id, send.value) for send in open_],
            summed,
        )
        first_us = min(each.first_us for each in claimed)
        if verdict.behind and now_us - first_us < BEHIND_UNTIL_US:
            found.results += _wait(claimed, now_us + HOUR_US, "Stripe's sum is behind")
            return
        if verdict.fault:
            waiting = _wait(claimed, now_us + ASK_AGAIN_US, verdict.fault)
            found.results += [replace(each, code=UNDECIDED) for each in waiting]
            return
        for each in claimed:
            self._close(each, taken=each.intent_id in verdict.taken, found=found)

    def _close(self, each: Claimed, *, taken: bool, found: Settlement) -> None:
        now_us = self._clock.now_us()
        done = SendResult(each.intent_id, SendState.SETTLED, now_us, doubtful=True)
        if taken:
            found.results.append(replace(done, reason="found in Stripe's sum"))
        elif is_too_old(each.intent, now_us):
            reason = "not in Stripe's sum, and too old to be sent"
            # It is known not to be there: in doubt no more, and so in no later sum.
            left = SendResult(each.intent_id, SendState.TOO_OLD, now_us, reason=reason)
            found.results.append(left)
        else:
            reason = "not in Stripe's sum: sent again under another identifier"
            found.results.append(replace(done, reason=reason))
            customer = each.intent.place.customer
            # What was to be cancelled is past cancelling, a day later.
            negative = each.intent.kind is IntentKind.CANCEL
            found.replacements.append(
                made_again(each.intent, each.intent_id, customer=customer, negative=negative)
            )


def _wait(claimed: Sequence[Claimed], due_us: int, reason: str) -> list[SendResult]:
    return [
        SendResult(
            each.intent_id,
            SendState.AMBIGUOUS,
            due_us,
            doubtful=True,
            unsent=True,
            reason=reason,
        )
        for each in claimed
    ]
