"""The store's time is known from its answers, and never thought to be further on than it is."""

from hypothesis import given
from hypothesis import strategies as st

from tallygate.flow.store_time import S_US, StoreTime

DELAYS = st.tuples(st.integers(0, 400_000), st.integers(0, 400_000))


def exchange(it: StoreTime, lead_us: int, began_us: int, delays: tuple[int, int]) -> None:
    """Have it learn from one answer, with a delay on the way there and on the way back."""
    there, back = delays
    it.learn(began_us + there + lead_us, began_us / S_US, (began_us + there + back) / S_US)


@given(st.integers(-(10**15), 10**15), st.lists(DELAYS, min_size=1))
def test_it_is_never_ahead_and_as_good_as_the_best_answer(
    lead_us: int, answers: list[tuple[int, int]]
) -> None:
    """The error is never above 0, and no greater than the shortest way back of all answers."""
    it = StoreTime()
    for number, delays in enumerate(answers):
        exchange(it, lead_us, number * S_US, delays)
    behind_us = lead_us - it.at(0.0)
    # Two microseconds are for seconds as floats.
    assert -2 <= behind_us <= min(back for _, back in answers) + 2


def test_it_follows_a_clock_that_is_set_back() -> None:
    """After a step back the next answer corrects it, to within that answer's way there."""
    it = StoreTime()
    exchange(it, 10 * S_US, 0, (100, 100))
    exchange(it, 0, S_US, (100, 100))
    assert it.at(0.0) <= 100 + 2


def test_it_says_nothing_before_the_first_answer() -> None:
    """Unknown is 0, which is no time at all."""
    assert StoreTime().at(1.0) == 0
