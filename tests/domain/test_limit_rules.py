"""The rules of limits and overrides that no document can show by itself."""

import pytest

from tallygate.domain.catalog import UNLIMITED, Limit, LimitKind, Override
from tallygate.domain.ids import LimitId
from tallygate.domain.limit_rules import limit_faults, override_faults
from tests.builders import catalog, rate, window

METERS = catalog().meters
# Prime, so that the weight of a unit is a whole second's microseconds.
PRIME = 10_000_000_019


def faults(limit: Limit, number: int, burst: int = 0) -> list[str]:
    """Return the paths of an override's faults."""
    override = Override(LimitId("r"), number, burst)
    return [fault.path for fault in override_faults(limit, override, "o")]


def test_a_burst_that_follows_is_judged_as_it_will_be() -> None:
    """Where the plan's burst follows its rate, the override's follows the override's."""
    assert faults(rate("r", 10, burst=10), PRIME) == ["o"]
    assert faults(rate("r", 10, burst=20), PRIME) == []
    assert faults(rate("r", UNLIMITED, burst=UNLIMITED), 10) == []


def test_a_burst_of_its_own_is_judged_with_the_new_rate() -> None:
    """A burst that is exact at the plan's rate need not be at another."""
    assert faults(rate("r", 10, burst=10), PRIME, 400) == []
    assert faults(rate("r", 10, burst=10), 10, PRIME) == []
    assert faults(rate("r", 10, burst=10), PRIME, PRIME) == ["o"]


def test_an_override_of_nothing_is_a_limit() -> None:
    """0 refuses all, for every kind that has a number."""
    assert faults(rate("r", 10, burst=10), 0) == []
    assert faults(window("r"), 0) == []


@pytest.mark.parametrize("kind", [*LimitKind])
def test_a_limit_of_no_length_is_refused(kind: LimitKind) -> None:
    """Without period and duration, only concurrency and balances can be counted."""
    limit = window("a", 0 if kind is LimitKind.BALANCE else 5, kind=kind, period=None)
    lengthless = kind in (LimitKind.CONCURRENCY, LimitKind.BALANCE)
    assert (not [*limit_faults(limit, METERS, "l")]) == lengthless
