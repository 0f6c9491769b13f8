"""How one limit measures: the binding of every kind, and windows, token buckets and concurrency.

Guarantees: every result is an integer below 2^53 where the inputs are, so that Lua's doubles give
the same. A counter never goes back in time: it keeps the later of its own and the clock's window.
Refuses to know: other limits, and whether the operation passes as a whole.

The bucket is the generic cell rate algorithm (ITU-T I.371, annex A) in its leaky-bucket form:
`debt` drains at a constant rate, and a charge conforms when it fits under the burst.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Final, assert_never

from tallygate.domain import balance as balances
from tallygate.domain import sliding
from tallygate.domain.balance import Balance, evaluate_balance
from tallygate.domain.catalog import UNLIMITED, Limit, LimitKind, thresholds
from tallygate.domain.decision import (
    BalanceRule,
    Charge,
    ConcurrencyRule,
    LimitReading,
    LimitState,
    Mode,
    RateRule,
    Rule,
    SlidingRule,
    WindowRule,
)
from tallygate.domain.ids import AMOUNT_MAX, AccountId
from tallygate.domain.sliding import Buckets, evaluate_sliding, sliding_rule
from tallygate.domain.verdict import (
    EMPTY,
    Counter,
    Crossing,
    Moment,
    gates,
    reading_of,
    state_of,
)
from tallygate.domain.window import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    Calendar,
    Period,
    window_at,
)

State = Counter | Buckets | Balance
"""What is stored of one limit, by its kind."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a charge does to one limit, before it is known whether the operation passes.

    `before` is the reading if nothing is charged, `after` if it is; `retry_after_us` is None when
    the charge can never pass. `counter` is None when nothing is to be stored. `overflow`: it could
    not hold the charge exactly. `slots` says where the units are, for a reservation to hold; those
    of a rate are never given back.
    """

    refuses: bool
    before: LimitReading
    after: LimitReading
    counter: State | None
    retry_after_us: int | None = 0
    crossings: tuple[Crossing, ...] = ()
    overflow: bool = False
    slots: tuple[tuple[int, int], ...] = ()


HELD: Final = "/held"
"""How the field of a concurrency limit ends."""

BRIM_MAX: Final = 2**52 - 1
"""The most that a bucket may hold, in weight: it and one more charge have to add up exactly."""

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
    assert limit.period is not None
    period_us = RATE_PERIODS_US[limit.period]
    if limit.limit == 0:
        return RateRule(1, 1, period_us)
    divisor = gcd(period_us, limit.limit)
    return RateRule(period_us // divisor, limit.limit // divisor, period_us)


def field_of(limit: Limit) -> str:
    """Return the name of the limit's counter within an account."""
    match limit.kind:
        case LimitKind.WINDOW:
            assert limit.period is not None
            measure: str = limit.period.value
        case LimitKind.RATE if limit.limit == UNLIMITED:
            assert limit.period is not None
            measure = limit.period.value
        case LimitKind.SLIDING:
            measure = f"s{sliding_rule(limit.duration_us).width_us}"
        case LimitKind.RATE:
            measure = "rate"
        case LimitKind.CONCURRENCY:
            return f"{limit.limit_id}{HELD}"
        case LimitKind.BALANCE:
            measure = "balance"
        case _:
            assert_never(limit.kind)
    return f"{limit.limit_id}/{measure}"


def charge(limit: Limit, account: AccountId, of: Calendar, amount: int, now_us: int) -> Charge:
    """Bind a limit to an account and an amount, with the windows around `now_us`."""
    ceiling = limit.limit
    rule: Rule
    match limit.kind:
        case LimitKind.WINDOW:
            rule = _window_rule(limit, of, now_us)
        case LimitKind.RATE if limit.limit == UNLIMITED:
            # What no bucket could hold exactly is counted by the calendar.
            rule = _window_rule(limit, of, now_us)
        case LimitKind.SLIDING:
            rule = sliding_rule(limit.duration_us)
        case LimitKind.RATE:
            rule = rate_rule(limit)
            ceiling = _burst(limit, rule)
        case LimitKind.CONCURRENCY:
            rule = ConcurrencyRule()
        case LimitKind.BALANCE:
            rule = BalanceRule(limit.overdraft, limit.low_at)
            ceiling = 0
        case _:
            assert_never(limit.kind)
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


def _window_rule(limit: Limit, of: Calendar, now_us: int) -> WindowRule:
    assert limit.period is not None
    current = window_at(limit.period, of, now_us)
    following = window_at(limit.period, of, current.end_us)
    return WindowRule(current.start_us, current.end_us, following.end_us, thresholds(limit))


def _burst(limit: Limit, rule: RateRule) -> int:
    if limit.limit == 0:
        return 0
    # The catalog refuses a burst that is not exact, but a later plan may meet an old override.
    return min(limit.burst, BRIM_MAX // rule.weight)


def in_reach(rule: Rule, now_us: int) -> bool:
    """Say whether the rule's windows hold the store's time."""
    return not isinstance(rule, WindowRule) or rule.starts_us <= now_us < rule.ends_us


def evaluate(charge: Charge, stored: State | None, moment: Moment) -> Verdict:
    """Say what the charge does to the limit of which `stored` is kept, None for nothing yet."""
    match charge.rule:
        case WindowRule() as rule:
            return _evaluate_window(charge, rule, _counter(stored), moment)
        case RateRule() as rule:
            return _evaluate_rate(charge, rule, _counter(stored), moment)
        case ConcurrencyRule():
            return _evaluate_concurrency(charge, _counter(stored), moment)
        case SlidingRule() as rule:
            slid = evaluate_sliding(charge, rule, _buckets(stored), moment)
            return Verdict(
                refuses=slid.refuses,
                before=slid.before,
                after=slid.after,
                counter=slid.buckets,
                retry_after_us=slid.retry_after_us,
                overflow=slid.overflow,
                slots=((slid.place, slid.amount),) if slid.amount else (),
            )
        case BalanceRule() as rule:
            paid = evaluate_balance(charge, rule, _balance(stored), moment)
            return Verdict(
                refuses=paid.refuses,
                before=paid.before,
                after=paid.after,
                counter=paid.balance,
                retry_after_us=paid.retry_after_us,
                crossings=paid.crossings,
                overflow=paid.overflow,
                slots=paid.slots,
            )
        case _:
            assert_never(charge.rule)


def give_back(stored: State | None, place: int, units: int) -> State | None:
    """Return what is stored once a held unit has come back to its place, if that is still there."""
    match stored:
        case Counter(at_us, amount, mark):
            return Counter(at_us, max(0, amount - units), mark) if at_us == place else stored
        case Buckets():
            return sliding.add(stored, place, -units)
        case Balance():
            return balances.give_back(stored, place, units)
        case None:
            return None
        case _:
            assert_never(stored)


def refund(
    charge: Charge, stored: State | None, moment: Moment
) -> tuple[tuple[tuple[int, int], ...], State | None]:
    """Take the charge's units back from where they were used, if that still counts.

    Returns the balance's slots they went to, as negatives, and what is stored then. A rate's units
    drain by themselves, and concurrency holds none.
    """
    match stored:
        case Counter(at_us, amount, mark) if isinstance(charge.rule, WindowRule):
            if moment.used_at_us < at_us:
                return (), stored
            return (), Counter(at_us, max(0, amount - charge.amount), mark)
        case Buckets() if isinstance(charge.rule, SlidingRule):
            place = moment.used_at_us // charge.rule.width_us
            return (), sliding.add(stored, place, -charge.amount)
        case Balance():
            return balances.refund(stored, charge.amount, moment.now_us)
        case _:
            return (), stored


def reset(
    charge: Charge, stored: State | None, held: Sequence[tuple[int, int]], now_us: int
) -> State | None:
    """Return what is stored once all that no reservation holds is forgotten. `held` is by place."""
    match stored:
        case Counter(at_us, _, mark) if isinstance(charge.rule, RateRule):
            return Counter(max(now_us, at_us), 0, mark)
        case Counter(at_us):
            return Counter(at_us, sum(units for place, units in held if place == at_us), 0)
        case Buckets():
            kept = Buckets()
            for place, units in held:
                kept = sliding.add(kept, place, units)
            return kept
        case _:
            # A balance is the ledger's: it changes by grants only.
            return stored


def _counter(stored: State | None) -> Counter:
    return stored if isinstance(stored, Counter) else EMPTY


def _buckets(stored: State | None) -> Buckets:
    return stored if isinstance(stored, Buckets) else Buckets()


def _balance(stored: State | None) -> Balance:
    return stored if isinstance(stored, Balance) else Balance()


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
        refuses=over and amount > 0 and gates(charge, moment),
        before=reading_of(charge, _window_state(charge, rule, over, used), used, end),
        after=reading_of(charge, _window_state(charge, rule, over, would), would, end),
        counter=Counter(start, would, mark) if amount > 0 else None,
        retry_after_us=max(1, end - moment.now_us) if amount <= charge.limit else None,
        crossings=crossings,
        overflow=would > AMOUNT_MAX,
        slots=((start, amount),) if amount > 0 else (),
    )


def _window_state(charge: Charge, rule: WindowRule, over: bool, used: int) -> LimitState:
    warned = bool(rule.thresholds) and used >= rule.thresholds[0][1]
    return state_of(charge, over, LimitState.WARNING if warned else LimitState.OK)


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
    state = state_of(charge, over and amount > 0)
    wait = None
    if amount <= charge.limit:
        wait = max(1, _ceil(debt + amount * rule.weight - brim, rule.drain))
    return Verdict(
        refuses=over and amount > 0 and gates(charge, moment),
        before=_rate_reading(charge, rule, state, debt, now),
        after=_rate_reading(charge, rule, state, after, now),
        counter=Counter(now, after, rule.weight) if amount > 0 else None,
        retry_after_us=wait,
    )


def _rate_reading(
    charge: Charge, rule: RateRule, state: LimitState, debt: int, now_us: int
) -> LimitReading:
    used = _ceil(debt, rule.weight)
    return reading_of(charge, state, used, now_us + _ceil(debt, rule.drain))


def _evaluate_concurrency(charge: Charge, counter: Counter, moment: Moment) -> Verdict:
    """Ask for room, and take it for a reservation: a call that holds nothing has ended already."""
    used, would = counter.amount, counter.amount + charge.amount
    over = would > charge.limit
    holds = moment.mode is Mode.RESERVE and charge.amount > 0
    wait = None
    if charge.amount <= charge.limit:
        # By then the first hold has ended, if not sooner.
        wait = max(1, moment.next_hold_us - moment.now_us)
    return Verdict(
        refuses=over and charge.amount > 0 and gates(charge, moment),
        before=reading_of(charge, state_of(charge, over), used, moment.next_hold_us),
        after=reading_of(
            charge, state_of(charge, over), would if holds else used, moment.next_hold_us
        ),
        counter=Counter(0, would, 0) if holds else None,
        retry_after_us=wait,
        overflow=would > AMOUNT_MAX,
        slots=((0, charge.amount),) if holds else (),
    )


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
