"""Differences between catalogs: each told once, by its path, in people's words."""

from dataclasses import replace

from tallygate.domain.catalog import UNLIMITED, Limit, Meter, OnOutage, Override, Tenant, Weight
from tallygate.domain.catalog_diff import ChangeKind, diff, diff_tenants
from tallygate.domain.ids import LimitId, MeterName
from tests.builders import BYTES, REQUESTS, catalog, tenant, window

CREDITS = MeterName("credits")


def limits_told(old: Limit, new: Limit) -> list[tuple[str, str, str]]:
    """Return what is told when one limit becomes another."""
    return [(each.path, each.before, each.after) for each in diff(catalog(old), catalog(new))]


def tenants_told(old: Tenant, new: Tenant) -> list[tuple[ChangeKind, str, str, str]]:
    """Return what is told when one tenant becomes another."""
    found = diff_tenants({old.tenant_id: old}, [new])
    return [(each.kind, each.path, each.before, each.after) for each in found]


def test_each_field_of_a_limit_is_told_by_itself() -> None:
    """Whatever narrows a limit, or decides in an outage, is a change of its own."""
    old = window("a", 100)
    new = replace(
        old,
        per="user_id",
        where=(("model", ("large", "xl")),),
        on_outage=OnOutage.LOCAL_BUDGET,
        local_budget=500,
        exact=True,
    )
    assert limits_told(old, new) == [
        ("plans.free.limits.a.per", "", "user_id"),
        ("plans.free.limits.a.where", "[]", "[[model, [large, xl]]]"),
        ("plans.free.limits.a.on_outage", "refuse", "local_budget"),
        ("plans.free.limits.a.local_budget", "0", "500"),
        ("plans.free.limits.a.exact", "False", "True"),
    ]


def test_no_bound_is_told_as_such() -> None:
    """Nobody reads 2^53 - 1 as what it means."""
    told = limits_told(window("a", 100), window("a", UNLIMITED))
    assert told == [("plans.free.limits.a.limit", "100", "unlimited")]


def test_overrides_are_told_one_by_one() -> None:
    """One override that comes, goes or changes leaves the others untold."""
    kept, gone = Override(LimitId("kept"), 1), Override(LimitId("gone"), 2)
    was, new = Override(LimitId("a"), 3), Override(LimitId("new"), UNLIMITED, reason="launch")
    told = tenants_told(
        tenant(overrides=(kept, gone, was)),
        tenant(overrides=(replace(was, limit=4), kept, new)),
    )
    unlimited = "{limit_id: new, limit: unlimited, burst: 0, expires_at_us: 0, reason: launch}"
    assert told == [
        (ChangeKind.CHANGED, "tenants.acme.overrides.a.limit", "3", "4"),
        (
            ChangeKind.REMOVED,
            "tenants.acme.overrides.gone",
            "{limit_id: gone, limit: 2, burst: 0, expires_at_us: 0, reason: }",
            "",
        ),
        (ChangeKind.ADDED, "tenants.acme.overrides.new", "", unlimited),
    ]


def test_a_suspension_is_told() -> None:
    """Suspending a tenant is a change of the tenant."""
    told = tenants_told(tenant(), tenant(suspended=True))
    assert told == [(ChangeKind.CHANGED, "tenants.acme.suspended", "False", "True")]


def test_weights_are_told_one_by_one() -> None:
    """A new price of one meter leaves the rest of the card untold; order means nothing."""
    old, new = (
        catalog(meters={CREDITS: Meter(CREDITS, weights=weights)})
        for weights in (
            (Weight(REQUESTS, 5), Weight(BYTES, 1)),
            (Weight(BYTES, 1), Weight(REQUESTS, 6)),
        )
    )
    assert [(each.path, each.before, each.after) for each in diff(old, new)] == [
        (f"meters.credits.weights.{REQUESTS}.units", "5", "6")
    ]
    assert [*diff(old, old)] == []
