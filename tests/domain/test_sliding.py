"""Sliding limits beside an exact log: never more than the limit, and a bounded time too long."""

from hypothesis import assume, given
from hypothesis import strategies as st

from tallygate.domain.catalog import OnExceed
from tallygate.domain.decision import Charge, Mode, SlidingRule
from tallygate.domain.ids import LimitId, account_of
from tallygate.domain.sliding import BUCKETS, Buckets, add, evaluate_sliding, sliding_rule
from tallygate.domain.verdict import Moment
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from tests.builders import ACME, REQUESTS

DURATIONS = st.sampled_from(
    [SECOND_US, SECOND_US + 7, MINUTE_US, HOUR_US, 24 * HOUR_US, 7 * DAY_US]
)
STARTS = st.integers(1, 10**15)


def charge(rule: SlidingRule, amount: int, limit: int) -> Charge:
    """Return a charge against a sliding limit that refuses."""
    name = LimitId("sliding")
    return Charge(
        account=account_of(ACME),
        field="sliding",
        limit_id=name,
        meter=REQUESTS,
        amount=amount,
        limit=limit,
        on_exceed=OnExceed.REFUSE,
        rule=rule,
    )


def at(now_us: int, used_at_us: int | None = None, mode: Mode = Mode.CONSUME) -> Moment:
    """Return a moment whose use is now, unless told."""
    return Moment(now_us, mode, now_us if used_at_us is None else used_at_us)


def longest_us(duration_us: int) -> int:
    """Return for how long a unit may count: a bucket more, each rounded up."""
    return duration_us + duration_us // BUCKETS + BUCKETS + 1


@given(
    duration_us=DURATIONS,
    start_us=STARTS,
    limit=st.integers(1, 12),
    calls=st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 5)), max_size=60),
)
def test_it_never_passes_what_an_exact_log_would_not(
    duration_us: int, start_us: int, limit: int, calls: list[tuple[int, int]]
) -> None:
    """No trailing time holds more than the limit; a refusal was due to a log a bucket longer."""
    rule, buckets, log, now_us = sliding_rule(duration_us), Buckets(), [(0, 0)], start_us
    for gap_ppm, amount in calls:
        now_us += duration_us * gap_ppm // 1_000_000
        asked = charge(rule, amount, limit)
        verdict = evaluate_sliding(asked, rule, buckets, at(now_us))
        if verdict.refuses:
            counted = [units for then, units in log if now_us - then < longest_us(duration_us)]
            assert sum(counted) + amount > limit
            continue
        assert verdict.buckets is not None
        buckets = verdict.buckets
        log.append((now_us, amount))
        # The fullest of all trailing times end with a unit that was granted.
        assert sum(units for then, units in log if now_us - then <= duration_us) <= limit
        assert len(buckets.units) <= BUCKETS + 1


@given(duration_us=DURATIONS, start_us=STARTS)
def test_a_unit_counts_for_the_duration_and_a_bucket_longer_at_most(
    duration_us: int, start_us: int
) -> None:
    """A unit counts until its duration has passed, and no longer than a sixtieth after that."""
    rule = sliding_rule(duration_us)
    one = charge(rule, 1, 1)
    stored = evaluate_sliding(one, rule, Buckets(), at(start_us)).buckets
    assert stored is not None
    assert evaluate_sliding(one, rule, stored, at(start_us + duration_us)).refuses
    over_us = start_us + longest_us(duration_us)
    assert not evaluate_sliding(one, rule, stored, at(over_us)).refuses


@given(
    duration_us=DURATIONS,
    start_us=STARTS,
    limit=st.integers(1, 9),
    used=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 4)), max_size=12),
    amount=st.integers(1, 9),
)
def test_retry_after_is_the_first_instant_that_passes(
    duration_us: int, start_us: int, limit: int, used: list[tuple[int, int]], amount: int
) -> None:
    """A caller who waits as told is granted, and one who comes a microsecond earlier is not."""
    assume(amount <= limit)
    rule = sliding_rule(duration_us)
    now_us = start_us + 61 * rule.width_us
    buckets = Buckets()
    for age, units in used:
        buckets = add(buckets, now_us // rule.width_us - age, units)
    asked = charge(rule, amount, limit)
    verdict = evaluate_sliding(asked, rule, buckets, at(now_us))
    assume(verdict.refuses)
    wait_us = verdict.retry_after_us
    assert wait_us is not None
    assert evaluate_sliding(asked, rule, buckets, at(now_us + wait_us - 1)).refuses
    assert not evaluate_sliding(asked, rule, buckets, at(now_us + wait_us)).refuses


def test_more_than_the_limit_can_never_pass() -> None:
    """Waiting does not help who asks for more than the limit."""
    rule = sliding_rule(HOUR_US)
    verdict = evaluate_sliding(charge(rule, 6, 5), rule, Buckets(), at(DAY_US))
    assert verdict.refuses
    assert verdict.retry_after_us is None


def test_what_has_happened_counts_in_its_own_bucket() -> None:
    """Usage told of late leaves as if told of in time; what has left already is not counted."""
    rule = sliding_rule(HOUR_US)
    asked = charge(rule, 9, 5)
    late = evaluate_sliding(asked, rule, Buckets(), at(DAY_US, DAY_US - MINUTE_US, Mode.RECORD))
    assert not late.refuses
    assert late.buckets == Buckets(((DAY_US // MINUTE_US - 1, 9),))
    long_ago = DAY_US - HOUR_US - MINUTE_US
    gone = evaluate_sliding(asked, rule, Buckets(), at(DAY_US, long_ago, Mode.RECORD))
    assert gone.buckets is None
    assert gone.after.used == 0


def test_what_is_asked_for_nothing_is_a_reading() -> None:
    """A charge of nothing is never refused, even over the limit, and stores nothing."""
    rule = sliding_rule(HOUR_US)
    full = Buckets(((DAY_US // MINUTE_US, 9),))
    verdict = evaluate_sliding(charge(rule, 0, 5), rule, full, at(DAY_US))
    assert not verdict.refuses
    assert verdict.buckets is None
    assert (verdict.before.used, verdict.before.remaining) == (9, 0)
    assert verdict.before.resets_at_us == DAY_US + HOUR_US + MINUTE_US
