"""The rules of an outage: who is granted what while the counters cannot be reached."""

import pytest

from tallygate.domain.catalog import UNLIMITED, Limit, OnExceed, OnOutage, Plan
from tallygate.domain.decision import Decided, Mode, Operation
from tallygate.domain.ids import PlanName, TenantId
from tallygate.domain.outage import (
    RETRY_AFTER_US,
    LocalGrants,
    OutageRule,
    Ungranted,
    rules_of,
)
from tests.builders import catalog, charges, consume, tenant, window

NOW_US = 1_800_000_000_000_000


def open_limit(name: str = "monthly", limit: int = 100) -> Limit:
    """Return a limit that lets everything pass in an outage."""
    return window(name, limit, on_outage=OnOutage.ALLOW)


def budget(units: int, name: str = "monthly", **fields: object) -> Limit:
    """Return a limit with a local budget."""
    return window(name, 100, on_outage=OnOutage.LOCAL_BUDGET, local_budget=units, **fields)


def judge(
    limits: list[Limit],
    amount: int = 1,
    grants: LocalGrants | None = None,
    mode: Mode = Mode.CONSUME,
) -> Decided | Ungranted:
    """Judge one call, and debit it when it is granted."""
    held = grants or LocalGrants()
    operation = consume(limits, amount, "op", mode=mode)
    rules = [OutageRule(limit.on_outage, limit.local_budget) for limit in limits]
    ruling = held.judge(operation, rules, NOW_US)
    if isinstance(ruling, Decided) and ruling.allowed:
        held.debit(operation)
    return ruling


def allowed(ruling: Decided | Ungranted) -> bool:
    """Say whether the call passes; it has to be decided, and marked as degraded."""
    assert isinstance(ruling, Decided)
    assert ruling.degraded
    return ruling.allowed


@pytest.mark.parametrize(
    ("limits", "passes"),
    [
        ([], True),
        ([window()], None),
        ([open_limit()], True),
        ([open_limit(), window("two")], None),
        ([open_limit(), budget(1, "two")], True),
        ([open_limit(), budget(0, "two")], False),
        # A limit that refuses to decide goes before one that refuses.
        ([budget(0), window("two")], None),
        ([window(on_exceed=OnExceed.ALLOW)], True),
        ([window(on_exceed=OnExceed.SHADOW)], True),
        ([budget(0, on_exceed=OnExceed.ALLOW)], True),
        ([window(limit=UNLIMITED)], True),
    ],
)
def test_every_limit_has_to_agree(limits: list[Limit], passes: bool | None) -> None:
    """A call is granted when no hard limit says otherwise; None stands for undecided."""
    ruling = judge(limits)
    if passes is None:
        assert isinstance(ruling, Ungranted)
    else:
        assert allowed(ruling) is passes


def test_a_budget_is_spent_to_its_last_unit_and_not_beyond() -> None:
    """Grants add up to the budget at most; what does not fit is refused, what fits still passes."""
    grants, limits = LocalGrants(), [budget(10)]
    assert allowed(judge(limits, 7, grants))
    assert not allowed(judge(limits, 4, grants))
    assert allowed(judge(limits, 3, grants))
    refused = judge(limits, 1, grants)
    assert isinstance(refused, Decided)
    assert (refused.refused_by, refused.retry_after_us) == ("monthly", RETRY_AFTER_US)


def test_budgets_are_debited_for_all_limits_or_for_none() -> None:
    """A call that one budget refuses leaves the other budget as it was."""
    grants = LocalGrants()
    small, large = budget(1, "small"), budget(10, "large")
    assert not allowed(judge([large, small], 5, grants))
    assert not grants.granted
    assert allowed(judge([large], 10, grants))


def test_accounts_have_budgets_of_their_own() -> None:
    """What one tenant has used up another still has."""
    grants, limit = LocalGrants(), budget(1)
    rules = [OutageRule(OnOutage.LOCAL_BUDGET, 1)]
    for name in ("one", "two"):
        operation = consume([limit], 1, "op", tenant_id=TenantId(name))
        ruling = grants.judge(operation, rules, NOW_US)
        assert isinstance(ruling, Decided)
        assert ruling.allowed
        grants.debit(operation)


def test_a_degraded_reading_tells_what_this_process_has_granted() -> None:
    """Used is what was granted here, this call included; remaining is what is left here."""
    grants = LocalGrants()
    limits = [budget(10), open_limit("other", 50)]
    judge(limits, 3, grants)
    ruling = judge(limits, 4, grants)
    assert isinstance(ruling, Decided)
    assert [(each.used, each.limit, each.remaining) for each in ruling.readings] == [
        (7, 100, 3),
        (7, 50, 43),
    ]
    assert ruling.at_us == NOW_US


def test_recorded_usage_is_never_refused_and_counts() -> None:
    """A fact passes whatever the limits say, and leaves less of a budget."""
    grants, limits = LocalGrants(), [budget(5), window("two")]
    assert allowed(judge(limits, 9, grants, Mode.RECORD))
    assert not allowed(judge([budget(5)], 1, grants))


def test_rules_are_those_of_each_tenants_own_plan() -> None:
    """A limit of the same name may have one rule for a tenant and another for its parent."""
    free, strict = PlanName("free"), PlanName("strict")
    plans = {free: Plan(free, (open_limit(),)), strict: Plan(strict, (window(),))}
    known = catalog(plans=plans)
    lineage = (tenant(parent=TenantId("org")), tenant("org", plan=strict))
    both = charges([window()], 1) + charges([window()], 1, TenantId("org"))
    rules = rules_of(known, lineage, both, NOW_US)
    assert [rule.on_outage for rule in rules] == [OnOutage.ALLOW, OnOutage.REFUSE]


def test_a_limit_that_has_gone_grants_nothing() -> None:
    """A charge whose limit the catalog does not know any more is left to the store."""
    operation: Operation = consume([window("gone")], 1, "op")
    rules = rules_of(catalog(), (tenant(),), operation.charges, NOW_US)
    assert isinstance(LocalGrants().judge(operation, rules, NOW_US), Ungranted)
