"""How one limit measures: tables of what a charge does to windows and buckets."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.catalog import Limit, LimitKind, OnExceed
from tallygate.domain.decision import (
    Charge,
    LimitState,
    Mode,
    RateRule,
    WindowRule,
)
from tallygate.domain.ids import AMOUNT_MAX, LimitId, account_of
from tallygate.domain.limit import (
    BRIM_MAX,
    Verdict,
    charge,
    evaluate,
    field_of,
    in_reach,
    rate_rule,
)
from tallygate.domain.verdict import EMPTY, Counter, Moment
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Calendar, Period
from tests.builders import ACME, REQUESTS, rate, window

# A window of ten seconds from 100 s on, and the one after it.
START, TURN, END = 100 * SECOND_US, 110 * SECOND_US, 120 * SECOND_US
NOW = 105 * SECOND_US
OWN = account_of(ACME)


def window_charge(amount: int, limit: int = 10, **fields: object) -> Charge:
    """Return a charge against the window, with a warning at 8 of 10."""
    values: dict[str, object] = {
        "account": ACME,
        "field": "window",
        "limit_id": LimitId("window"),
        "meter": REQUESTS,
        "on_exceed": OnExceed.REFUSE,
        "rule": WindowRule(START, TURN, END, ((800_000, 8), (1_000_000, 10))),
    }
    return Charge(amount=amount, limit=limit, **{**values, **fields})  # type: ignore[arg-type]


def rate_charge(amount: int, **fields: object) -> Charge:
    """Return a charge against 4 a second with a burst of 10: 250,000 µs a unit."""
    rule = {"rule": RateRule(250_000, 1, SECOND_US)}
    return window_charge(amount, 10, **{**rule, **fields})


def moment(now_us: int = NOW, mode: Mode = Mode.CONSUME, used_at_us: int | None = None) -> Moment:
    """Return a moment whose use is now."""
    return Moment(now_us, mode, now_us if used_at_us is None else used_at_us)


@dataclass(frozen=True)
class Case:
    """One charge and what it must do: `after` is the counter's amount when it is applied."""

    about: str
    amount: int
    stored: Counter = EMPTY
    on_exceed: OnExceed = OnExceed.REFUSE
    mode: Mode = Mode.CONSUME
    now_us: int = NOW
    used_at_us: int | None = None
    limit: int = 10
    refuses: bool = False
    after: int = 0
    before_state: LimitState = LimitState.OK
    after_state: LimitState = LimitState.OK
    retry_us: int | None = 5 * SECOND_US
    crossed: tuple[int, ...] = ()


HELD = Counter(START, 7, 0)
WARNED = Counter(START, 8, 800_000)
OK, WARNING = LimitState.OK, LimitState.WARNING
EXCEEDED, SHADOWED = LimitState.EXCEEDED, LimitState.SHADOW_EXCEEDED

WINDOW_CASES = [
    Case("the first charge", 1, after=1),
    Case("below the warning", 7, after=7),
    Case("at the warning", 1, HELD, after=8, after_state=WARNING, crossed=(800_000,)),
    Case("a warning given is not given again", 1, WARNED, after=9, before_state=WARNING,
         after_state=WARNING),
    Case("to the limit", 3, HELD, after=10, after_state=WARNING, crossed=(800_000, 1_000_000)),
    Case("past the limit", 4, HELD, refuses=True, after=11, before_state=EXCEEDED,
         after_state=EXCEEDED, crossed=(800_000, 1_000_000)),
    Case("more than the limit holds can never pass", 11, refuses=True, after=11, retry_us=None,
         before_state=EXCEEDED, after_state=EXCEEDED, crossed=(800_000, 1_000_000)),
    Case("a soft limit lets it pass", 4, HELD, OnExceed.ALLOW, after=11, before_state=EXCEEDED,
         after_state=EXCEEDED, crossed=(800_000, 1_000_000)),
    Case("a shadow lets it pass and says so", 4, HELD, OnExceed.SHADOW, after=11,
         before_state=SHADOWED, after_state=SHADOWED, crossed=(800_000, 1_000_000)),
    Case("a record is not gated", 4, HELD, mode=Mode.RECORD, after=11, before_state=EXCEEDED,
         after_state=EXCEEDED, crossed=(800_000, 1_000_000)),
    Case("a check is gated", 4, HELD, mode=Mode.CHECK, refuses=True, after=11,
         before_state=EXCEEDED, after_state=EXCEEDED, crossed=(800_000, 1_000_000)),
    Case("a check of nothing reads", 0, HELD, mode=Mode.CHECK, after=7),
    Case("a check of nothing on a full limit passes", 0, Counter(START, 10, 1_000_000),
         mode=Mode.CHECK, after=10, before_state=WARNING, after_state=WARNING),
    Case("a limit that was lowered below what is used", 0, Counter(START, 12, 1_000_000),
         after=12, before_state=EXCEEDED, after_state=EXCEEDED),
    Case("the window's first instant", 1, HELD, now_us=START, after=8, retry_us=10 * SECOND_US,
         after_state=WARNING, crossed=(800_000,)),
    Case("the window's last instant", 1, HELD, now_us=TURN - 1, after=8, retry_us=1,
         after_state=WARNING, crossed=(800_000,)),
    Case("the next window begins empty", 1, WARNED, now_us=TURN, after=1, retry_us=10 * SECOND_US),
    Case("a counter of an earlier window is forgotten", 2, Counter(START - 1, 9, 800_000), after=2),
    Case("a counter that is ahead is kept", 1, Counter(TURN, 4, 0), after=5,
         retry_us=15 * SECOND_US),
    Case("what was used before the window charges nothing", 5, HELD, mode=Mode.RECORD,
         used_at_us=START - 1, after=7),
    Case("what was used at the window's start charges", 1, HELD, mode=Mode.RECORD,
         used_at_us=START, after=8, after_state=WARNING, crossed=(800_000,)),
    Case("a limit of nothing refuses everything", 1, limit=0, refuses=True, after=1, retry_us=None,
         before_state=EXCEEDED, after_state=EXCEEDED),
]  # fmt: skip

# The bucket drains 1 weight a µs; a unit weighs 250,000 and the brim is 2,500,000.
RATE_CASES = [
    Case("an empty bucket takes its burst", 10, after=2_500_000, retry_us=1),
    Case("more than the burst can never pass", 11, refuses=True, after=0, retry_us=None,
         before_state=EXCEEDED, after_state=EXCEEDED),
    Case("a full bucket waits for one unit", 1, Counter(NOW, 2_500_000, 250_000), refuses=True,
         after=2_500_000, retry_us=250_000, before_state=EXCEEDED, after_state=EXCEEDED),
    Case("a full bucket waits longer for more", 4, Counter(NOW, 2_500_000, 250_000), refuses=True,
         after=2_500_000, retry_us=1_000_000, before_state=EXCEEDED, after_state=EXCEEDED),
    Case("a microsecond too early", 1, Counter(NOW - 249_999, 2_500_000, 250_000), refuses=True,
         after=2_250_001, retry_us=1, before_state=EXCEEDED, after_state=EXCEEDED),
    Case("to the microsecond in time", 1, Counter(NOW - 250_000, 2_500_000, 250_000),
         after=2_500_000, retry_us=1),
    Case("time does not fill it above full", 1, Counter(START, 1, 250_000), after=250_000,
         retry_us=1),
    Case("a counter that is ahead does not drain", 1, Counter(NOW + 9, 500_000, 250_000),
         after=750_000, retry_us=1),
    Case("a record fills it to the brim", 11, Counter(NOW, 250_000, 250_000), mode=Mode.RECORD,
         after=2_500_000, retry_us=None, before_state=EXCEEDED, after_state=EXCEEDED),
    Case("a soft limit leaves the debt", 1, Counter(NOW, 2_500_000, 250_000), OnExceed.ALLOW,
         after=2_500_000, retry_us=250_000, before_state=EXCEEDED, after_state=EXCEEDED),
    Case("a shadow leaves the debt and says so", 1, Counter(NOW, 2_500_000, 250_000),
         OnExceed.SHADOW, after=2_500_000, retry_us=250_000, before_state=SHADOWED,
         after_state=SHADOWED),
    Case("a rate that has changed keeps whole units", 1, Counter(NOW, 1_000, 100), after=2_500_000,
         limit=10, refuses=True, retry_us=250_000, before_state=EXCEEDED, after_state=EXCEEDED),
    Case("what was used a period ago counts", 1, mode=Mode.RECORD, used_at_us=NOW - SECOND_US,
         after=250_000, retry_us=1),
    Case("what was used before that does not", 1, mode=Mode.RECORD, used_at_us=NOW - SECOND_US - 1,
         after=0, retry_us=1),
]  # fmt: skip


def judged(case: Case, made: Charge) -> Verdict:
    """Evaluate a case and check what every kind of limit has in common."""
    verdict = evaluate(made, case.stored, moment(case.now_us, case.mode, case.used_at_us))
    assert verdict.refuses is case.refuses
    assert verdict.before.state is case.before_state
    assert verdict.after.state is case.after_state
    assert verdict.retry_after_us == case.retry_us
    for reading in (verdict.before, verdict.after):
        assert reading.remaining == max(0, reading.limit - reading.used)
        assert reading.resets_at_us >= case.now_us
    return verdict


def stored(verdict: Verdict) -> Counter:
    """Return the counter that the verdict would store."""
    assert isinstance(verdict.counter, Counter)
    return verdict.counter


@pytest.mark.parametrize("case", [pytest.param(each, id=each.about) for each in WINDOW_CASES])
def test_a_window_does_what_the_table_says(case: Case) -> None:
    """Refusal, states, counter, crossings and the wait, for one charge against one window."""
    made = window_charge(case.amount, case.limit, on_exceed=case.on_exceed)
    if case.limit == 0:
        made = window_charge(case.amount, 0, rule=WindowRule(START, TURN, END))
    verdict = judged(case, made)
    assert verdict.after.used == case.after
    charged = case.amount and (case.used_at_us is None or case.used_at_us >= START)
    assert (stored(verdict).amount if charged else verdict.counter) == (
        case.after if charged else None
    )
    assert tuple(crossing.ratio_ppm for crossing in verdict.crossings) == case.crossed


@pytest.mark.parametrize("case", [pytest.param(each, id=each.about) for each in RATE_CASES])
def test_a_bucket_does_what_the_table_says(case: Case) -> None:
    """Refusal, states, debt and the wait, for one charge against one bucket."""
    verdict = judged(case, rate_charge(case.amount, on_exceed=case.on_exceed))
    kept = verdict.counter or case.stored
    assert isinstance(kept, Counter)
    assert kept.amount == case.after
    assert verdict.crossings == ()


# Per case: limit, period, and the bucket's weight, drain and period in µs.
RATES = [
    (10, Period.SECOND, RateRule(100_000, 1, SECOND_US)),
    (3, Period.SECOND, RateRule(1_000_000, 3, SECOND_US)),
    (7, Period.MINUTE, RateRule(60_000_000, 7, MINUTE_US)),
    (1_000_000, Period.SECOND, RateRule(1, 1, SECOND_US)),
    (4_000_000, Period.SECOND, RateRule(1, 4, SECOND_US)),
    (1, Period.HOUR, RateRule(HOUR_US, 1, HOUR_US)),
    (1, Period.DAY, RateRule(DAY_US, 1, DAY_US)),
    (0, Period.SECOND, RateRule(1, 1, SECOND_US)),
]


@pytest.mark.parametrize(("limit", "period", "expected"), RATES)
def test_a_rate_is_exact_integers_in_lowest_terms(
    limit: int, period: Period, expected: RateRule
) -> None:
    """`weight / drain` is the emission interval, without any rounding."""
    assert rate_rule(rate(limit=limit, period=period)) == expected


def test_a_rate_of_nothing_passes_nothing() -> None:
    """A limit of 0 has no burst, whatever the plan says of it."""
    made = charge(rate(limit=0, burst=5), OWN, Calendar(), 1, NOW)
    verdict = evaluate(made, EMPTY, moment())
    assert (made.limit, verdict.refuses, verdict.retry_after_us) == (0, True, None)


def test_a_burst_that_is_not_exact_is_cut_to_what_is() -> None:
    """Debt and a charge add up exactly also for an override with a burst beyond its plan."""
    made = charge(rate(limit=1, period=Period.DAY, burst=AMOUNT_MAX), OWN, Calendar(), 1, NOW)
    assert isinstance(made.rule, RateRule)
    assert made.limit * made.rule.weight <= BRIM_MAX < (made.limit + 1) * made.rule.weight


@pytest.mark.parametrize(
    ("now_us", "expected"),
    [(START - 1, False), (START, True), (TURN, True), (END - 1, True), (END, False)],
)
def test_windows_reach_from_start_to_end(now_us: int, expected: bool) -> None:
    """The two windows hold their first instant and not their last; a bucket holds any."""
    assert in_reach(WindowRule(START, TURN, END), now_us) is expected
    assert in_reach(RateRule(1, 1, SECOND_US), now_us)


def test_a_charge_offers_two_windows_in_a_row() -> None:
    """The second window begins where the first ends, also where days differ in length."""
    daily = window(period=Period.DAY)
    # 2026-03-28 12:00 UTC: the day that follows has 23 hours in Berlin.
    made = charge(daily, OWN, Calendar("Europe/Berlin"), 1, 1_774_699_200_000_000)
    assert isinstance(made.rule, WindowRule)
    assert made.rule.turns_us - made.rule.starts_us == 24 * HOUR_US
    assert made.rule.ends_us - made.rule.turns_us == 23 * HOUR_US


def test_a_counter_is_named_for_what_it_measures() -> None:
    """A limit that changes its kind or period gets another counter; a new number keeps it."""
    fields = [
        field_of(limit)
        for limit in (
            window(),
            window(period=Period.DAY),
            rate("monthly"),
            rate("monthly", period=Period.DAY),
            window(limit=5),
        )
    ]
    assert fields == ["monthly/month", "monthly/day", "monthly/rate", "monthly/rate", fields[0]]


def test_a_counter_that_would_not_be_exact_overflows() -> None:
    """2^53 - 1 is the last value a counter may reach."""
    soft = OnExceed.ALLOW
    reached = evaluate(
        window_charge(1, on_exceed=soft), Counter(START, AMOUNT_MAX - 1, 0), moment()
    )
    passed = evaluate(window_charge(2, on_exceed=soft), Counter(START, AMOUNT_MAX - 1, 0), moment())
    assert (reached.overflow, passed.overflow) == (False, True)


@given(
    limit=st.integers(1, 10**9),
    burst=st.integers(1, 1_000),
    period=st.sampled_from([Period.SECOND, Period.MINUTE, Period.HOUR, Period.DAY]),
    steps=st.lists(st.tuples(st.integers(0, 2 * SECOND_US), st.integers(1, 5)), max_size=30),
)
def test_a_bucket_never_gives_more_than_its_burst_and_rate(
    limit: int, burst: int, period: Period, steps: list[tuple[int, int]]
) -> None:
    """Over any time t from the first charge on, at most burst + rate x t units pass."""
    bucket = Limit(LimitId("r"), REQUESTS, LimitKind.RATE, period, limit, burst)
    rule = rate_rule(bucket)
    counter, now, granted = EMPTY, NOW, 0
    for step_us, amount in steps:
        now += step_us
        verdict = evaluate(charge(bucket, OWN, Calendar(), amount, now), counter, moment(now))
        assert stored(verdict).amount <= AMOUNT_MAX
        if not verdict.refuses:
            granted += amount
            counter = stored(verdict)
            assert (granted - burst) * rule.weight <= (now - NOW) * rule.drain
        elif verdict.retry_after_us is not None:
            at = now + verdict.retry_after_us
            retried = charge(bucket, OWN, Calendar(), amount, at)
            assert not evaluate(retried, counter, moment(at)).refuses
            early = evaluate(retried, counter, moment(at - 1))
            assert early.refuses
