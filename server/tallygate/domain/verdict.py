"""What every kind of limit has in common: the moment, the counter, the verdict, the reading.

Guarantees: a reading is made in one way for all kinds.
Refuses to know: how a kind measures.
"""

from dataclasses import dataclass

from tallygate.domain.catalog import OnExceed
from tallygate.domain.decision import (
    Charge,
    LimitReading,
    LimitState,
    Mode,
)


@dataclass(frozen=True, slots=True)
class Counter:
    """What is stored of one limit.

    Of a window: its start, the units used, the highest threshold emitted (ppm, 0 for none). Of a
    bucket: when it was updated, its debt, the weight of a unit then. Of concurrency: 0, the units
    held, 0.
    """

    at_us: int = 0
    amount: int = 0
    mark: int = 0


EMPTY = Counter()


@dataclass(frozen=True, slots=True)
class Crossing:
    """A warning threshold that a charge has reached, in units and as a ratio of the limit.

    Of a balance: the ratio is 0, `used` is what is left, and there is no window.
    """

    ratio_ppm: int
    threshold: int
    used: int
    starts_us: int
    ends_us: int


@dataclass(frozen=True, slots=True)
class Moment:
    """The store's time, what is done, and when the use took place, never after now.

    `next_hold_us` is when the first hold of the account may expire, 0 for none.
    """

    now_us: int
    mode: Mode
    used_at_us: int
    next_hold_us: int = 0

    @property
    def asks(self) -> bool:
        """Whether limits may refuse: what has happened already is never refused."""
        return self.mode is not Mode.RECORD


def gates(charge: Charge, moment: Moment) -> bool:
    """Say whether the limit would refuse the charge if it were over."""
    return charge.on_exceed is OnExceed.REFUSE and moment.asks


def state_of(charge: Charge, over: bool, otherwise: LimitState = LimitState.OK) -> LimitState:
    """Return the state of a limit that is, or is not, passed."""
    if not over:
        return otherwise
    if charge.on_exceed is OnExceed.SHADOW:
        return LimitState.SHADOW_EXCEEDED
    return LimitState.EXCEEDED


def reading_of(
    charge: Charge, state: LimitState, used: int, resets_at_us: int, limit: int | None = None
) -> LimitReading:
    """Return the charge's limit as it stands; `limit` where it is not the charge's own."""
    limit = charge.limit if limit is None else limit
    return LimitReading(
        account=charge.account,
        limit_id=charge.limit_id,
        meter=charge.meter,
        state=state,
        used=used,
        limit=limit,
        remaining=max(0, limit - used),
        resets_at_us=resets_at_us,
    )
