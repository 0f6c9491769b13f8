"""How one limit measures: windows and token buckets, in exact integers.

Guarantees: every result is an integer below 2^53 where the inputs are, so that Lua's doubles give
the same. A counter never goes back in time: it keeps the later of its own and the clock's window.
Refuses to know: other limits, and whether the operation passes as a whole.

The bucket is the generic cell rate algorithm (ITU-T I.371, annex A) in its leaky-bucket form:
`debt` drains at a constant rate, and a charge conforms when it fits under the burst.
"""

from dataclasses import dataclass
from math import gcd
from typing import Final

from tallygate.domain.catalog import Limit, LimitKind, OnExceed, thresholds
from tallygate.domain.decision import (
    Charge,
    LimitReading,
    LimitState,
    Mode,
    RateRule,
    WindowRule,
)
from tallygate.domain.ids import AMOUNT_MAX, TenantId
from tallygate.domain.window import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    Calendar,
    Period,
    window_at,
)


@dataclass(frozen=True, slots=True)
class Counter:
    """What is stored of one limit.

    Of a window: its start, the units used, the highest threshold emitted (ppm, 0 for none). Of a
    bucket: when it was updated, its debt, the weight of a unit then.
    """

    at_us: int = 0
    amount: int = 0
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Crossing:
    """A warning threshold, as a ratio of the limit and in units, that a charge has reached."""

    ratio_ppm: int
    threshold: int
    used: int
    starts_us: int
    ends_us: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a charge does to one limit, before it is known whether the operation passes.

    `before` is the reading if nothing is charged, `after` if it is; `retry_after_us` is None when
    the charge can never pass. `overflow`: the counter could not hold the charge exactly.
    """

    refuses: bool
    before: LimitReading
    after: LimitReading
    counter: Counter
    retry_after_us: int | None = 0
    crossings: tuple[Crossing, ...] = ()
    overflow: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """The store's time, what is done, and when the use took place, never after now."""

    now_us: int
    mode: Mode
    used_at_us: int


EMPTY: Final = Counter()
RATE_PERIODS_US: Final = {
    Period.SECOND: SECOND_US,
    Period.MINUTE: MINUTE_US,
    Period.HOUR: HOUR_US,
    Period.DAY: DAY_US,
}


def rate_rule(limit: Limit) -> RateRule:
    """Return the exact integers of a token bucket: `limit` units per period.

    The catalog refuses periods that are not in `RATE_PERIODS_US`. A rate of 0 never passes
    anything: its burst is 0 too.
    """
    period_us = RATE_PERIODS_US[limit.period]
    if limit.limit == 0:
        return RateRule(1, 1, period_us)
    divisor = gcd(period_us, limit.limit)
    return RateRule(period_us // divisor, limit.limit // divisor, period_us)


def field_of(limit: Limit) -> str:
    """Return the name of the limit's counter within an account."""
    suffix = "rate" if limit.kind is LimitKind.RATE else limit.period.value
    return f"{limit.limit_id}/{suffix}"


def charge(limit: Limit, account: TenantId, of: Calendar, amount: int, now_us: int) -> Charge:
    """Bind a limit to an account and an amount, with the windows around `now_us`."""
    rule: WindowRule | RateRule
    if limit.kind is LimitKind.RATE:
        rule = rate_rule(limit)
        # The catalog refuses a burst that is not exact, but a later plan may meet an old override.
        ceiling = min(limit.burst, AMOUNT_MAX // rule.weight) if limit.limit else 0
    else:
        current = window_at(limit.period, of, now_us)
        following = window_at(limit.period, of, current.end_us)
        rule = WindowRule(current.start_us, current.end_us, following.end_us, thresholds(limit))
        ceiling = limit.limit
    return Charge(
        account=account,
        field=field_of(limit),
        limit_id=limit.limit_id,
        meter=limit.meter,
        amount=amount,
        limit=ceiling,
        on_exceed=limit.on_exceed,
        rule=rule,
    )


def in_reach(rule: WindowRule | RateRule, now_us: int) -> bool:
    """Say whether the rule's windows hold the store's time."""
    return isinstance(rule, RateRule) or rule.starts_us <= now_us < rule.ends_us


def evaluate(charge: Charge, counter: Counter, moment: Moment) -> Verdict:
    """Say what the charge does to the limit whose counter is `counter`."""
    if isinstance(charge.rule, WindowRule):
        return _evaluate_window(charge, charge.rule, counter, moment)
    return _evaluate_rate(charge, charge.rule, counter, moment)


def _evaluate_window(charge: Charge, rule: WindowRule, counter: Counter, moment: Moment) -> Verdict:
    start, used, mark = rule.starts_us, 0, 0
    if moment.now_us >= rule.turns_us:
        start = rule.turns_us
    # What was used before the window is another window's usage, which gates nothing any more. By
    # the clock's window, as a counter may be ahead of a clock that was set back.
    amount = charge.amount if moment.used_at_us >= start else 0
    if counter.at_us >= start:
        start, used, mark = counter.at_us, counter.amount, counter.mark
    end = rule.ends_us if start >= rule.turns_us else rule.turns_us
    would = used + amount
    over = would > charge.limit
    crossings = tuple(
        Crossing(ratio_ppm, units, would, start, end)
        for ratio_ppm, units in rule.thresholds
        if amount > 0 and would >= units and ratio_ppm > mark
    )
    if crossings:
        mark = crossings[-1].ratio_ppm
    return Verdict(
        refuses=over and amount > 0 and _gates(charge, moment),
        before=_reading(charge, _window_state(charge, rule, over, used), used, end),
        after=_reading(charge, _window_state(charge, rule, over, would), would, end),
        counter=Counter(start, would, mark) if amount > 0 else counter,
        retry_after_us=max(1, end - moment.now_us) if amount <= charge.limit else None,
        crossings=crossings,
        overflow=would > AMOUNT_MAX,
    )


def _window_state(charge: Charge, rule: WindowRule, over: bool, used: int) -> LimitState:
    warned = bool(rule.thresholds) and used >= rule.thresholds[0][1]
    return _state(charge, over, LimitState.WARNING if warned else LimitState.OK)


def _evaluate_rate(charge: Charge, rule: RateRule, counter: Counter, moment: Moment) -> Verdict:
    now = max(moment.now_us, counter.at_us)
    debt = counter.amount
    if counter.mark not in (0, rule.weight):
        # The rate has changed: whole units are kept, in the new weight.
        debt = min(debt // counter.mark, charge.limit) * rule.weight
    brim = charge.limit * rule.weight
    debt = max(0, debt - (now - counter.at_us) * rule.drain)
    counts = moment.used_at_us >= moment.now_us - rule.period_us
    amount = charge.amount if counts else 0
    over = amount > charge.limit or debt + amount * rule.weight > brim
    if not over:
        after = debt + amount * rule.weight
    elif amount == 0:
        after = debt
    elif moment.mode is Mode.RECORD:
        # It has happened: the bucket is empty now, but nobody goes into debt beyond it.
        after = max(debt, brim)
    else:
        # As a refusing limit would have left it, so that a shadow tells the truth.
        after = debt
    state = _state(charge, over and amount > 0, LimitState.OK)
    wait = None
    if amount <= charge.limit:
        wait = max(1, _ceil(debt + amount * rule.weight - brim, rule.drain))
    return Verdict(
        refuses=over and amount > 0 and _gates(charge, moment),
        before=_rate_reading(charge, rule, state, debt, now),
        after=_rate_reading(charge, rule, state, after, now),
        counter=Counter(now, after, rule.weight) if amount > 0 else counter,
        retry_after_us=wait,
    )


def _rate_reading(
    charge: Charge, rule: RateRule, state: LimitState, debt: int, now_us: int
) -> LimitReading:
    used = _ceil(debt, rule.weight)
    return _reading(charge, state, used, now_us + _ceil(debt, rule.drain))


def _gates(charge: Charge, moment: Moment) -> bool:
    return charge.on_exceed is OnExceed.REFUSE and moment.mode is not Mode.RECORD


def _state(charge: Charge, over: bool, otherwise: LimitState) -> LimitState:
    if not over:
        return otherwise
    if charge.on_exceed is OnExceed.SHADOW:
        return LimitState.SHADOW_EXCEEDED
    return LimitState.EXCEEDED


def _reading(charge: Charge, state: LimitState, used: int, resets_at_us: int) -> LimitReading:
    return LimitReading(
        limit_id=charge.limit_id,
        meter=charge.meter,
        state=state,
        used=used,
        limit=charge.limit,
        remaining=max(0, charge.limit - used),
        resets_at_us=resets_at_us,
    )


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
