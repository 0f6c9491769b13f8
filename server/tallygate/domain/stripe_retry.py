"""What may still be done about an intent, by its age and by what is known of its attempts.

Guarantees: nothing that may have been taken goes out again once Stripe might have forgotten its
identifier; nothing goes out that Stripe would refuse for its age.
Refuses to know: clocks, stores, and Stripe's interface.
"""

from enum import StrEnum
from typing import Final

from tallygate.domain.stripe_intent import ADDING, Intent, IntentKind
from tallygate.domain.window import DAY_US, HOUR_US

# Identifiers are unique for at least 24 h: an hour is left for clocks and calls that take long.
RETRY_WITHIN_US: Final = 23 * HOUR_US
# Stripe takes events of the last 35 days; the same hour is left.
SENDABLE_US: Final = 35 * DAY_US - HOUR_US
# What waits since then is about to be too old: somebody should look.
LATE_US: Final = 30 * DAY_US
# An event can be cancelled for 24 h.
CANCEL_WITHIN_US: Final = 23 * HOUR_US
# The code of a send whose idempotency key has an error for an answer, and so for a day.
KEY_BURNT: Final = "idempotency_key_burnt"
# The code of a send that no sum has told of.
UNDECIDED: Final = "undecided"


class Move(StrEnum):
    """What to do with a claimed intent: send it, find out what became of it, or leave it."""

    SEND = "send"
    SETTLE = "settle"
    LOOK_UP = "look_up"
    LEAVE = "leave"


def move_of(intent: Intent, *, doubtful: bool, first_us: int, now_us: int, code: str = "") -> Move:
    """Return what may be done now: `first_us` is when it was first tried, `code` how it ended."""
    forgotten = doubtful and now_us - first_us >= RETRY_WITHIN_US
    old = is_too_old(intent, now_us)
    if intent.kind in ADDING:
        # Also what is too old now may have been taken in time.
        if forgotten or (old and doubtful):
            return Move.SETTLE
        return Move.LEAVE if old else Move.SEND
    if intent.kind is IntentKind.ITEM:
        # A key under which an error is remembered says no more; an item has nothing else.
        burnt = doubtful and code == KEY_BURNT
        return Move.LOOK_UP if forgotten or burnt else Move.SEND
    # A total or a quantity replaces itself: it may go out again however late, while it is taken.
    return Move.LEAVE if old else Move.SEND


def is_too_old(intent: Intent, now_us: int) -> bool:
    """Say whether Stripe would refuse an intent for the age of its usage."""
    if intent.kind in (IntentKind.ITEM, IntentKind.QUANTITY):
        return False
    return now_us - intent.timestamp_us >= SENDABLE_US
