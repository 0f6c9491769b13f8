"""Balances: the order of burning, the overdraft, what nothing funds, refunds, and low marks."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.balance import (
    GRANTS_MAX,
    OVERDRAFT,
    UNFUNDED,
    Balance,
    BalanceVerdict,
    add_grants,
    evaluate_balance,
    give_back,
    refund,
)
from tallygate.domain.catalog import OnExceed
from tallygate.domain.decision import (
    BalanceRule,
    Charge,
    LimitState,
    Mode,
)
from tallygate.domain.detail import (
    Credit,
    Grant,
)
from tallygate.domain.ids import AMOUNT_MAX, LimitId, account_of
from tallygate.domain.verdict import Moment
from tallygate.domain.window import DAY_US, HOUR_US
from tests.builders import ACME, REQUESTS

NOW = 1_000 * DAY_US


def grant(seq: int, units: int = 10, **fields: int) -> Grant:
    """Return a grant that is live and full."""
    values = {"priority": 0, "starts_us": NOW - DAY_US, "expires_us": AMOUNT_MAX} | fields
    return Grant(seq=seq, granted=units, remaining=values.pop("remaining", units), **values)


def balance(*grants: Grant, rule: BalanceRule | None = None) -> Balance:
    """Return a balance that was given these grants."""
    added = add_grants(Balance(), Credit(grants), rule or BalanceRule(0), NOW)
    assert added is not None
    return added[1]


def burn(
    stored: Balance,
    amount: int,
    rule: BalanceRule | None = None,
    mode: Mode = Mode.CONSUME,
    on_exceed: OnExceed = OnExceed.REFUSE,
) -> BalanceVerdict:
    """Return what a charge does to the balance now."""
    used = rule or BalanceRule(0)
    asked = Charge(
        account=account_of(ACME),
        field="prepaid/balance",
        limit_id=LimitId("prepaid"),
        meter=REQUESTS,
        amount=amount,
        limit=0,
        on_exceed=on_exceed,
        rule=used,
    )
    return evaluate_balance(asked, used, stored, Moment(NOW, mode, NOW))


def burned(verdict: BalanceVerdict) -> Balance:
    """Return the balance once the charge is applied."""
    assert verdict.balance is not None
    return verdict.balance


@pytest.mark.parametrize(
    ("grants", "first"),
    [
        ([grant(1, priority=1), grant(2, priority=0)], 2),
        ([grant(1, priority=0), grant(2, priority=-1)], 2),
        ([grant(1), grant(2, expires_us=NOW + DAY_US)], 2),
        ([grant(1, expires_us=NOW + DAY_US), grant(2, priority=-1)], 2),
        ([grant(1, expires_us=NOW + DAY_US), grant(2, expires_us=NOW + DAY_US)], 1),
        ([grant(1, starts_us=NOW + 1), grant(2, priority=9)], 2),
        ([grant(1, expires_us=NOW), grant(2, priority=9)], 2),
    ],
)
def test_units_leave_by_priority_then_end_then_age(grants: Sequence[Grant], first: int) -> None:
    """The lowest priority burns first, then what ends first, then the oldest; only live ones."""
    assert burn(balance(*grants), 3).slots == ((first, 3),)


@pytest.mark.parametrize(
    ("starts_us", "expires_us", "live"),
    [
        (NOW, NOW + 1, True),
        (NOW + 1, NOW + 2, False),
        (NOW - 1, NOW, False),
    ],
)
def test_a_grant_lives_from_its_start_to_before_its_end(
    starts_us: int, expires_us: int, live: bool
) -> None:
    """A grant counts at the instant that it starts at, and not at the one that it ends at."""
    stored = Balance(seq=1, grants=(grant(1, starts_us=starts_us, expires_us=expires_us),))
    assert burn(stored, 1).refuses is not live


def test_the_overdraft_comes_last_and_is_never_passed() -> None:
    """Grants are used up first; then units are owed, up to the overdraft, and no further."""
    rule = BalanceRule(overdraft=5)
    stored = balance(grant(1, 10), rule=rule)
    verdict = burn(stored, 13, rule)
    assert not verdict.refuses
    assert verdict.slots == ((1, 10), (OVERDRAFT, 3))
    after = burned(verdict)
    assert after.owed == 3
    assert burn(after, 3, rule).refuses
    assert not burn(after, 2, rule).refuses


@pytest.mark.parametrize(
    ("mode", "on_exceed"), [(Mode.RECORD, OnExceed.REFUSE), (Mode.CONSUME, OnExceed.ALLOW)]
)
def test_what_nothing_funds_is_counted_and_not_owed(mode: Mode, on_exceed: OnExceed) -> None:
    """Usage that is not refused burns what there is; the rest is told of as not funded."""
    rule = BalanceRule(overdraft=5)
    verdict = burn(balance(grant(1, 10), rule=rule), 20, rule, mode, on_exceed)
    assert not verdict.refuses
    assert verdict.slots == ((1, 10), (OVERDRAFT, 5), (UNFUNDED, 5))
    assert burned(verdict).owed == 5
    assert verdict.after.state is LimitState.EXCEEDED


def test_a_grant_repays_the_overdraft_first() -> None:
    """What is owed leaves a new grant at once, and is told as a pair that adds up to nothing."""
    added = add_grants(Balance(seq=1, owed=4), Credit((grant(2, 10),)), BalanceRule(5), NOW)
    assert added is not None
    slots, after = added
    assert slots == ((2, 4), (OVERDRAFT, -4))
    assert (after.owed, after.grants[0].remaining) == (0, 6)


def test_a_grant_is_added_once() -> None:
    """A number that the balance has had is passed over."""
    stored = balance(grant(1), grant(2))
    assert add_grants(stored, Credit((grant(2), grant(1))), BalanceRule(0), NOW) == ((), stored)


def test_room_is_made_of_what_is_over_then_of_the_oldest_used_up() -> None:
    """With as many grants as are kept, one that has ended or is used up makes room, else none."""
    full = balance(*(grant(seq) for seq in range(1, GRANTS_MAX + 1)))
    fresh = Credit((grant(GRANTS_MAX + 1),))
    assert add_grants(full, fresh, BalanceRule(0), NOW) is None
    used_up = tuple(
        replace(each, remaining=0) if each.seq in (7, 9) else each for each in full.grants
    )
    added = add_grants(replace(full, grants=used_up), fresh, BalanceRule(0), NOW)
    assert added is not None
    kept = {each.seq for each in added[1].grants}
    assert kept == set(range(1, GRANTS_MAX + 2)) - {7}


def test_a_refund_goes_back_in_the_reverse_order() -> None:
    """The overdraft is repaid first, then the grant that was burned last."""
    rule = BalanceRule(overdraft=5)
    after = burned(burn(balance(grant(1, 10), grant(2, 10), rule=rule), 23, rule))
    slots, restored = refund(after, 15, NOW)
    assert slots == ((OVERDRAFT, -3), (2, -10), (1, -2))
    assert [each.remaining for each in restored.grants] == [2, 10]


def test_units_of_a_grant_that_is_gone_are_lost() -> None:
    """What comes back goes where it came from, or nowhere: no grant gains by another's end."""
    stored = balance(grant(2, 10, remaining=5))
    assert give_back(stored, 1, 3) == stored
    assert give_back(stored, 2, 9).grants[0].remaining == 10


@given(
    units=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    overdraft=st.integers(0, 9),
    amounts=st.lists(st.integers(1, 30), max_size=12),
)
def test_it_never_grants_more_than_it_was_given(
    units: list[int], overdraft: int, amounts: list[int]
) -> None:
    """All that is granted is in the grants and the overdraft, and it comes back whole."""
    rule = BalanceRule(overdraft)
    first = stored = balance(*(grant(seq, each) for seq, each in enumerate(units, 1)), rule=rule)
    slots: list[tuple[int, int]] = []
    for amount in amounts:
        verdict = burn(stored, amount, rule)
        if not verdict.refuses:
            assert sum(taken for _, taken in verdict.slots) == amount
            slots += verdict.slots
            stored = burned(verdict)
    spent = sum(taken for _, taken in slots)
    assert spent <= sum(units) + overdraft
    assert stored.owed <= overdraft
    assert spent == sum(units) - sum(each.remaining for each in stored.grants) + stored.owed
    assert refund(stored, spent, NOW)[1] == first
    for place, taken in slots:
        stored = give_back(stored, place, taken)
    assert stored == first


def crossed(verdict: BalanceVerdict) -> list[int]:
    """Return the low marks that the charge has crossed."""
    return [each.threshold for each in verdict.crossings]


def test_each_low_mark_is_told_once() -> None:
    """Marks are told in order as the balance falls to them, and not told again."""
    rule = BalanceRule(0, low_at=(8, 5, 0))
    stored, told = balance(grant(1, 10), rule=rule), []
    for _ in range(10):
        verdict = burn(stored, 1, rule)
        told.append(crossed(verdict))
        stored = burned(verdict)
    assert told == [[], [8], [], [], [5], [], [], [], [], [0]]


def test_one_charge_may_cross_several_marks() -> None:
    """A charge that falls past several marks tells each of them."""
    rule = BalanceRule(0, low_at=(8, 5, 0))
    assert crossed(burn(balance(grant(1, 10), rule=rule), 6, rule)) == [8, 5]


def test_a_grant_arms_the_marks_that_it_lifts_the_balance_over() -> None:
    """After a grant those marks are told again, and those below which it stays are not."""
    rule = BalanceRule(0, low_at=(8, 5))
    low = burned(burn(balance(grant(1, 10), rule=rule), 7, rule))
    added = add_grants(low, Credit((grant(2, 4),)), rule, NOW)
    assert added is not None
    assert crossed(burn(added[1], 2, rule)) == [5]
    again = add_grants(low, Credit((grant(2, 20),)), rule, NOW)
    assert again is not None
    assert crossed(burn(again[1], 18, rule)) == [8, 5]


def test_units_that_come_back_arm_no_mark() -> None:
    """A reservation that is released does not make its crossing be told twice."""
    rule = BalanceRule(0, low_at=(5,))
    first = burn(balance(grant(1, 10), rule=rule), 6, rule)
    assert crossed(first) == [5]
    assert crossed(burn(give_back(burned(first), 1, 6), 6, rule)) == []


def test_a_reading_shows_what_lives() -> None:
    """Used, limit and the next end are those of live grants; only a grant can help a refusal."""
    ends = balance(grant(1, 10), grant(2, 5, expires_us=NOW + HOUR_US), grant(3, starts_us=NOW + 1))
    verdict = burn(ends, 16)
    assert verdict.refuses
    assert verdict.retry_after_us is None
    reading = burn(ends, 7).after
    assert (reading.used, reading.limit, reading.remaining) == (7, 15, 8)
    assert reading.resets_at_us == NOW + HOUR_US


def test_a_reading_past_what_is_exact_is_the_most_that_is() -> None:
    """An overdraft that was raised above full grants is shown as 2^53 - 1, and overflows."""
    stored = balance(grant(1, AMOUNT_MAX))
    verdict = burn(stored, 1, BalanceRule(overdraft=9))
    assert verdict.overflow
    assert verdict.before.limit == AMOUNT_MAX
