"""What is sent is exact, what may be done is bounded by age, sums are read to the last digit."""

from decimal import Decimal
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.stripe_intent import (
    ADDING,
    IDENTIFIER_LENGTH_MAX,
    Intent,
    IntentId,
    IntentKind,
    IntentPlace,
    WindowGap,
    identity,
    intent_for,
    made_again,
)
from tallygate.domain.stripe_meters import AccountMeter, Step, steps
from tallygate.domain.stripe_retry import RETRY_WITHIN_US, SENDABLE_US, Move, move_of
from tallygate.domain.stripe_settle import OPEN_MAX, settle
from tallygate.domain.stripe_sync import (
    StripeSync,
    Way,
    is_scale,
    sent_value,
    units_max,
    value_faults,
)
from tallygate.domain.window import DAY_US, HOUR_US

NOW_US = 100 * DAY_US
PLACE = IntentPlace(
    TenantId("acme"), "cus_1", MeterName("m"), "{}", NOW_US, NOW_US + HOUR_US, NOW_US, NOW_US * 2
)
SCALES = st.one_of(
    st.sampled_from(["1", "0.001", "0.000000000001", "1000", "2.5", "999999999999999"]),
    st.builds(
        lambda whole, fraction: f"{whole}.{fraction:06d}",
        st.integers(0, 9_999),
        st.integers(1, 999_999),
    ),
)


@given(SCALES, st.integers(-(2**60), 2**60))
def test_a_value_is_exact(scale: str, units: int) -> None:
    """Whatever the scale, a value is the exact product, with no exponent and no idle zeros."""
    assert is_scale(scale)
    value = sent_value(units, scale)
    # Fractions, as decimals are rounded to the digits of their context.
    assert Fraction(value) == units * Fraction(scale)
    assert "E" not in value.upper()
    assert not (("." in value) and value.endswith(("0", ".")))


@given(SCALES, st.integers(-(2**60), 2**60), st.integers(0, 2**60))
def test_the_parts_of_a_gap_fit_and_add_up(scale: str, total: int, intended: int) -> None:
    """Each part has at most 15 digits, and leads to the total without passing it."""
    sync = StripeSync(Way.METER_EVENTS, event_name="e", scale=scale)
    if total == intended:
        return
    intent = intent_for("s", sync, WindowGap(PLACE, total, intended, 0), IntentKind.DELTA)
    assert value_faults(intent.value) == ""
    assert abs(intent.quantity) <= units_max(scale)
    assert abs(total - intended - intent.quantity) < abs(total - intended)
    assert (intent.quantity > 0) == (total > intended)
    assert len(intent.identifier) <= IDENTIFIER_LENGTH_MAX


@pytest.mark.parametrize(
    "text", ["", "0", "0.0", "-1", "1e3", ".5", "5.", "1.1234567890123", "1" * 16, "¹", "a", "1,5"]
)
def test_what_is_no_scale(text: str) -> None:
    """A scale is plain digits above nothing, within the bounds."""
    assert not is_scale(text)


@given(st.lists(st.text(max_size=5), max_size=5), st.lists(st.text(max_size=5), max_size=5))
def test_identities_tell_apart(one: list[str], other: list[str]) -> None:
    """Two lists of parts have one identity only if they are the same list."""
    assert (identity(one) == identity(other)) == (one == other)


def intent(kind: IntentKind = IntentKind.DELTA, timestamp_us: int = NOW_US) -> Intent:
    """Return an intent of that kind and time."""
    return Intent("s", PLACE, 1, kind, 5, "5", "e", timestamp_us, "i", "k")


CASES = [
    (IntentKind.DELTA, False, 0, 0, Move.SEND),
    (IntentKind.DELTA, True, RETRY_WITHIN_US - 1, 0, Move.SEND),
    (IntentKind.DELTA, True, RETRY_WITHIN_US, 0, Move.SETTLE),
    (IntentKind.NEGATIVE, True, RETRY_WITHIN_US, 0, Move.SETTLE),
    (IntentKind.CANCEL, True, RETRY_WITHIN_US, 0, Move.SETTLE),
    (IntentKind.DELTA, False, RETRY_WITHIN_US, 0, Move.SEND),
    (IntentKind.DELTA, False, 0, SENDABLE_US - 1, Move.SEND),
    (IntentKind.DELTA, False, 0, SENDABLE_US, Move.LEAVE),
    (IntentKind.DELTA, True, 0, SENDABLE_US, Move.SETTLE),
    (IntentKind.TOTAL, True, RETRY_WITHIN_US, 0, Move.SEND),
    (IntentKind.TOTAL, True, RETRY_WITHIN_US, SENDABLE_US, Move.LEAVE),
    (IntentKind.ITEM, True, RETRY_WITHIN_US, SENDABLE_US, Move.LOOK_UP),
    (IntentKind.ITEM, False, RETRY_WITHIN_US, SENDABLE_US, Move.SEND),
    (IntentKind.QUANTITY, True, RETRY_WITHIN_US, SENDABLE_US, Move.SEND),
]


@pytest.mark.parametrize(("kind", "doubtful", "tried_us", "age_us", "move"), CASES)
def test_moves_by_age(
    kind: IntentKind, doubtful: bool, tried_us: int, age_us: int, move: Move
) -> None:
    """What adds up is never repeated past the day, and nothing is sent past what Stripe takes."""
    found = move_of(
        intent(kind, NOW_US - age_us), doubtful=doubtful, first_us=NOW_US - tried_us, now_us=NOW_US
    )
    assert found is move


@given(st.sampled_from(sorted(ADDING)), st.booleans(), st.integers(0, 40 * DAY_US))
def test_nothing_in_doubt_is_repeated_past_a_day(
    kind: IntentKind, doubtful: bool, age_us: int
) -> None:
    """Whatever else is known: 23 h after a first attempt in doubt, the same never goes out."""
    found = move_of(
        intent(kind, NOW_US - age_us), doubtful=doubtful, first_us=NOW_US - age_us, now_us=NOW_US
    )
    if doubtful and age_us >= RETRY_WITHIN_US:
        assert found is Move.SETTLE


@given(
    st.decimals(0, 10**9, places=3),
    st.lists(st.decimals(-1_000, 1_000, places=3).filter(bool), max_size=6),
    st.data(),
)
def test_a_sum_is_explained_to_the_last_digit(
    known: Decimal, values: list[Decimal], data: st.DataObject
) -> None:
    """Whichever sends were taken, what is found taken is worth the same."""
    open_ = [(IntentId(number), value) for number, value in enumerate(values)]
    taken = data.draw(st.sets(st.sampled_from(range(len(values)))) if values else st.just(set()))
    summed = known + sum((values[each] for each in taken), Decimal(0))
    verdict = settle(known, open_, Decimal(repr(float(summed))))
    assert not verdict.fault
    found = sum((value for number, value in open_ if number in verdict.taken), Decimal(0))
    assert known + found == summed


@given(st.lists(st.integers(1, 50), max_size=5), st.integers(0, 300))
def test_what_nothing_explains_is_not_decided(values: list[int], summed: int) -> None:
    """A sum that no choice makes decides nothing."""
    open_ = [(IntentId(number), Decimal(value)) for number, value in enumerate(values)]
    possible = {
        100 + sum(chosen)
        for count in range(len(values) + 1)
        for chosen in combinations(values, count)
    }
    verdict = settle(Decimal(100), open_, Decimal(summed))
    assert bool(verdict.fault) == (summed not in possible)
    assert verdict.behind == (summed < 100)


def test_a_large_sum_tells_of_no_small_send() -> None:
    """What is less than the last digit of a sum is decided by all its digits, or not at all."""
    known, open_ = Decimal(2 * 10**15), [(IntentId(1), Decimal(1))]
    assert settle(known, open_, known).taken == frozenset()
    assert settle(known, open_, known + 1).taken == {1}
    large = Decimal(3 * 10**17)
    assert "several choices" in settle(large + 1, open_, large + 3).fault
    many = [(IntentId(number), Decimal(1)) for number in range(OPEN_MAX + 1)]
    assert settle(known, many, known).taken == frozenset()
    assert settle(large + 1, many, large + 3).fault


@given(values=st.lists(st.integers(-3, 6).filter(bool), min_size=2, max_size=6), data=st.data())
def test_some_are_decided_only_in_one_way(values: list[int], data: st.DataObject) -> None:
    """Of sends of which others may go out again, what is decided is what became of them."""
    open_ = [(IntentId(number), Decimal(value)) for number, value in enumerate(values)]
    numbers = st.sets(st.sampled_from(range(len(values))))
    asked, taken = data.draw(numbers), data.draw(numbers)
    summed = Decimal(100 + sum(values[each] for each in taken))
    verdict = settle(Decimal(100), open_, summed, [IntentId(each) for each in asked])
    if len(asked) < len(values) and not verdict.fault:
        assert verdict.taken & asked == taken & asked


def test_many_open_sends_are_all_or_none() -> None:
    """More than can be tried are decided only where all, or none, were taken."""
    open_ = [(IntentId(number), Decimal(1)) for number in range(OPEN_MAX + 1)]
    assert settle(Decimal(0), open_, Decimal(0)).taken == frozenset()
    assert len(settle(Decimal(0), open_, Decimal(OPEN_MAX + 1)).taken) == OPEN_MAX + 1
    assert settle(Decimal(0), open_, Decimal(3)).fault


def test_said_again_it_is_another() -> None:
    """A replacement says the same under another identity, and that is always the same one."""
    first = intent()
    again = made_again(first, IntentId(7), customer="cus_2")
    assert (again.quantity, again.value, again.timestamp_us) == (5, "5", NOW_US)
    assert again.identifier != first.identifier
    assert again.replaces == 7
    assert again.place.customer == "cus_2"
    assert again == made_again(first, IntentId(7), customer="cus_2")


WANTED = AccountMeter("", "calls", "Calls", "sum", "", "stripe_customer_id", "value", True)


def has(**fields: object) -> AccountMeter:
    """Return a meter of the account."""
    values = {
        "meter_id": "mtr_1",
        "event_name": "calls",
        "display_name": "Calls",
        "formula": "sum",
        "window": "",
        "customer_key": "stripe_customer_id",
        "value_key": "value",
        "active": True,
    }
    return AccountMeter(**{**values, **fields})  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], [Step.CREATE]),
        ([has()], [Step.KEEP]),
        ([has(display_name="x")], [Step.RENAME]),
        ([has(active=False)], [Step.REACTIVATE]),
        ([has(active=False, display_name="x")], [Step.REACTIVATE, Step.RENAME]),
        ([has(formula="last")], [Step.CONFLICT]),
        ([has(window="hour")], [Step.CONFLICT]),
        ([has(value_key="amount")], [Step.CONFLICT]),
        ([has(active=False, formula="count"), has()], [Step.KEEP]),
        ([has(event_name="other")], [Step.CREATE]),
    ],
)
def test_meters_are_brought_in_line(found: list[AccountMeter], expected: list[Step]) -> None:
    """What can be done is planned, what cannot is a conflict with its reason."""
    planned = list(steps([WANTED], found))
    assert [each.step for each in planned] == expected
    assert all(bool(each.reason) == (each.step is Step.CONFLICT) for each in planned)
