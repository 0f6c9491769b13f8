"""Waits until a limit's reset: no two operations are told the same moment, nobody a sooner one."""

from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.decision import Decided, LimitReading, LimitState
from tallygate.domain.ids import AccountId, LimitId, MeterName, OperationId
from tallygate.domain.spread import SPREAD_MAX_US, spread

AT_US = 1_000_000_000


def refused(wait_us: int | None, resets_us: int) -> Decided:
    """Return a refusal by a limit that resets after so long."""
    reading = LimitReading(
        AccountId("acme"),
        LimitId("minute"),
        MeterName("requests"),
        LimitState.EXCEEDED,
        10,
        10,
        0,
        AT_US + resets_us,
    )
    return Decided(
        allowed=False,
        at_us=AT_US,
        readings=(reading,),
        refused_by=LimitId("minute"),
        retry_after_us=wait_us,
    )


@given(st.integers(1, 10**13), st.text())
def test_a_wait_for_a_reset_grows_within_its_bounds(wait_us: int, name: str) -> None:
    """By a tenth and a second at most, alike whenever it is asked."""
    told = spread(refused(wait_us, wait_us), OperationId(name))
    assert told.retry_after_us is not None
    assert 0 <= told.retry_after_us - wait_us <= min(wait_us // 10, SPREAD_MAX_US)
    assert told == spread(refused(wait_us, wait_us), OperationId(name))


def test_a_herd_comes_back_over_all_of_the_second() -> None:
    """A thousand operations fill every tenth of it, about alike."""
    tenths = [0] * 10
    for number in range(1_000):
        told = spread(refused(60_000_000, 60_000_000), OperationId(f"op-{number}"))
        assert told.retry_after_us is not None
        tenths[min(9, (told.retry_after_us - 60_000_000) * 10 // SPREAD_MAX_US)] += 1
    assert min(tenths) > 60


def test_other_waits_stay_as_they_are() -> None:
    """What drains from a bucket is the operation's own; what never passes has no wait."""
    for wait_us in (None, 5_000_000):
        decided = refused(wait_us, 60_000_000)
        assert spread(decided, OperationId("op")) == decided
