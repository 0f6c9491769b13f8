"""The limits that bind a tenant: plans, overrides, thresholds."""

import pytest

from tallygate.domain.catalog import Limit, Override, default_tenant, limits_of, thresholds
from tallygate.domain.ids import LimitId, PlanName, TenantId
from tallygate.domain.window import Period
from tests.builders import catalog, rate, tenant, window


def overridden(limit: Limit, override: Override) -> Limit:
    """Return the limit as a tenant with the override has it."""
    [found] = limits_of(catalog(limit), tenant(overrides=(override,)))
    return found


def test_a_tenant_has_its_plan_s_limits_in_order() -> None:
    """The order of the plan is the order of the reply."""
    limits = (window("b"), rate("a"), window("c"))
    assert limits_of(catalog(*limits), tenant()) == limits


def test_a_plan_that_has_gone_limits_nothing() -> None:
    """Validation keeps plans in use; should one vanish, nobody is locked out."""
    assert limits_of(catalog(window()), tenant(plan=PlanName("gone"))) == ()


def test_an_override_replaces_its_own_limit_only() -> None:
    """Other limits of the plan stay, and an override of nothing does nothing."""
    overrides = (Override(LimitId("a"), 7), Override(LimitId("gone"), 1))
    found = limits_of(catalog(window("a", 100), window("b", 100)), tenant(overrides=overrides))
    assert [(limit.limit_id, limit.limit) for limit in found] == [("a", 7), ("b", 100)]


# Per case: what it is about, the plan's rate and burst, the override's, what comes of it.
BURSTS = [
    ("a burst of its own is kept", (10, 50), (20, 0), (20, 50)),
    ("a burst that followed the rate follows it", (10, 10), (20, 0), (20, 20)),
    ("a burst may be replaced with the rate", (10, 50), (20, 80), (20, 80)),
    ("a burst that followed may be set", (10, 10), (20, 5), (20, 5)),
    ("a rate of nothing", (10, 10), (0, 0), (0, 0)),
]


@pytest.mark.parametrize(
    ("plan", "override", "expected"), [pytest.param(*case[1:], id=case[0]) for case in BURSTS]
)
def test_an_override_of_a_rate(
    plan: tuple[int, int], override: tuple[int, int], expected: tuple[int, int]
) -> None:
    """An override's burst of 0 keeps the plan's, or follows the new rate where the plan's did."""
    found = overridden(rate("r", plan[0], burst=plan[1]), Override(LimitId("r"), *override))
    assert (found.limit, found.burst) == expected


def test_an_override_keeps_what_it_does_not_name() -> None:
    """Period, thresholds and what happens on exceeding are the plan's."""
    found = overridden(
        window("w", 100, period=Period.DAY, warn_at_ppm=(800_000,)), Override(LimitId("w"), 10)
    )
    assert found == window("w", 10, period=Period.DAY, warn_at_ppm=(800_000,))


@pytest.mark.parametrize(
    ("limit", "warn_at_ppm", "expected"),
    [
        (100, (), ()),
        (100, (500_000, 1_000_000), (50, 100)),
        (10, (333_333,), (4,)),
        (3, (500_000,), (2,)),
        (1, (1,), (1,)),
        (0, (500_000,), (1,)),
        (2**53 - 1, (999_999,), (9_007_190_247_541_737,)),
    ],
)
def test_a_threshold_is_in_whole_units_rounded_up(
    limit: int, warn_at_ppm: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """A ratio is reached when the units are: never earlier, and never at nothing used."""
    found = thresholds(window(limit=limit, warn_at_ppm=warn_at_ppm))
    assert found == tuple(zip(warn_at_ppm, expected, strict=True))


def test_an_undeclared_tenant_is_on_the_default_plan_or_unknown() -> None:
    """Without a default plan nobody is served undeclared."""
    stranger = TenantId("203.0.113.7")
    found = default_tenant(catalog(), stranger)
    assert found is not None
    assert (found.tenant_id, found.plan, found.parent) == (stranger, "free", None)
    assert default_tenant(catalog(default_plan=None), stranger) is None
