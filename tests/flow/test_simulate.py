"""Simulation: recorded usage decided anew, by the same rules and at the same instants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tallygate.domain.catalog import (
    UNLIMITED,
    Catalog,
    Limit,
    LimitKind,
    OnExceed,
    Override,
    Plan,
    Tenant,
)
from tallygate.domain.credit import GrantAsked, GrantId
from tallygate.domain.event import EventContext, UsageEvent
from tallygate.domain.ids import EventId, LimitId, MeterName, OperationId, PlanName, TenantId
from tallygate.domain.simulation import Findings, Standing, Unjudged
from tallygate.domain.window import HOUR_US, MINUTE_US, SECOND_US, Period
from tallygate.flow import simulate
from tallygate.flow.simulate import Simulate, SimulateOptions, SimulateParts, UnknownPlan
from tallygate.ports import ParsedCatalog
from tallygate.ports.replay import ReplayQuery
from tallygate.testing.credit import FakeCreditLedger
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.replay import FakeUsageReplay
from tests.builders import catalog, rate, tenant, window
from tests.usage_events import NOON_US, event

HOURLY = {"period": Period.HOUR}


@dataclass(slots=True)
class Declared:
    """Tenants that no document names."""

    tenants: Mapping[TenantId, Tenant] = field(default_factory=dict)

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those that are declared."""
        return {each: self.tenants[each] for each in ids if each in self.tenants}


def used(number: int, amount: int = 1, at_us: int = 0, **fields: object) -> UsageEvent:
    """Return an event of a call of its own, accepted so long after noon."""
    values: dict[str, object] = {"received_at_us": NOON_US + at_us, "amount": amount}
    return event(number, **{"event_time_us": NOON_US + at_us, **values, **fields})


async def simulated(
    declared: Catalog | ParsedCatalog,
    *events: UsageEvent,
    tenants: Mapping[TenantId, Tenant] | None = None,
    granted: FakeCreditLedger | None = None,
    **options: object,
) -> Findings:
    """Simulate these events under a catalog."""
    parsed = declared if isinstance(declared, ParsedCatalog) else ParsedCatalog(declared)
    replay = FakeUsageReplay([*events], page=3)
    history = granted or FakeCreditLedger(FakeLedger())
    parts = SimulateParts(parsed, Declared(tenants or {}), replay, history, lambda _: None)
    return await Simulate(parts, SimulateOptions(**options)).run()  # type: ignore[arg-type]


def only(findings: Findings) -> Standing:
    """Return the one limit that was met."""
    [found] = findings.standings()
    return found


async def test_a_window_refuses_what_goes_beyond_it_and_begins_anew() -> None:
    """Each call is decided at the instant it was accepted; a refusal uses nothing up."""
    calls = [used(1, 6), used(2, 5, 1), used(3, 4, 2), used(4, 1, 3), used(5, 10, HOUR_US)]
    findings = await simulated(catalog(window("hourly", 10, **HOURLY)), *calls)
    assert (findings.calls, findings.refused_calls, findings.refused_tenants) == (5, 2, 1)
    assert only(findings) == Standing(
        tenant_id=TenantId("acme"),
        owner=TenantId("acme"),
        limit_id=LimitId("hourly"),
        meter=MeterName("requests"),
        limit=10,
        events=5,
        refused=2,
        refused_events=2,
        refused_units=6,
        first_refused_us=NOON_US + 1,
        over=0,
        highest=10,
    )
    assert only(findings).share_ppm == 1_000_000


async def test_a_bucket_fills_between_calls() -> None:
    """A rate of one a second with a burst of two refuses the third call at once, not later."""
    calls = [used(1), used(2), used(3), used(4, at_us=SECOND_US), used(5, at_us=SECOND_US)]
    findings = await simulated(catalog(rate("rate", 1, burst=2)), *calls)
    assert (only(findings).refused, only(findings).highest) == (2, 2)


async def test_a_sliding_limit_forgets_what_has_left_it() -> None:
    """What was used longer ago than the trailing time counts no more."""
    sliding = window("trail", 2, kind=LimitKind.SLIDING, period=None, duration_us=60 * SECOND_US)
    calls = [used(1), used(2), used(3, at_us=30 * SECOND_US), used(4, at_us=62 * SECOND_US)]
    findings = await simulated(catalog(sliding), *calls)
    assert only(findings).refused == 1


async def test_soft_limits_count_what_they_let_pass() -> None:
    """A limit that refuses nothing tells how often it was over."""
    soft = window("soft", 2, on_exceed=OnExceed.ALLOW)
    shadow = window("shadow", 3, on_exceed=OnExceed.SHADOW)
    findings = await simulated(catalog(soft, shadow), *[used(each) for each in range(1, 6)])
    assert findings.refused_calls == 0
    assert {each.limit_id: each.over for each in findings.standings()} == {"soft": 3, "shadow": 2}
    assert {each.highest for each in findings.standings()} == {5}


async def test_the_events_of_a_call_pass_or_fail_together() -> None:
    """An operation is one call: one limit refuses all of it, and counts its own units."""
    requests = window("few", 1)
    egress = window("bytes", 100, meter=MeterName("egress_bytes"))
    same: dict[str, Any] = {"operation_id": OperationId("op")}
    pair = [used(1, 1, **same), used(2, 101, meter=MeterName("egress_bytes"), **same)]
    findings = await simulated(catalog(requests, egress), *pair, used(3))
    assert (findings.calls, findings.events) == (2, 3)
    assert (findings.refused_calls, findings.refused_events) == (1, 2)
    found = {each.limit_id: each for each in findings.standings()}
    assert (found[LimitId("bytes")].refused_events, found[LimitId("bytes")].refused_units) == (
        2,
        101,
    )
    assert (found[LimitId("few")].refused, found[LimitId("few")].highest) == (0, 1)


async def test_one_operation_at_two_instants_is_two_calls() -> None:
    """A name that comes again later is another call."""
    same: dict[str, Any] = {"operation_id": OperationId("op")}
    findings = await simulated(catalog(window()), used(1, **same), used(2, 1, 9, **same))
    assert findings.calls == 2


async def test_parents_limits_count_the_usage_of_all_below() -> None:
    """Whose limit refused is told, as well as whose call it was."""
    plans = {
        PlanName("free"): Plan(PlanName("free"), (window("own", 2),)),
        PlanName("org"): Plan(PlanName("org"), (window("own", 3),)),
    }
    family = (
        tenant("org", plan=PlanName("org")),
        tenant("one", parent=TenantId("org")),
        tenant("two", parent=TenantId("org")),
    )
    calls = [used(number, tenant_id=TenantId(name)) for number, name in
             enumerate(["one", "one", "two", "two", "one"], 1)]  # fmt: skip
    findings = await simulated(ParsedCatalog(catalog(plans=plans), family), *calls)
    refused = {(each.tenant_id, each.owner): each.refused for each in findings.standings()}
    assert refused == {("one", "one"): 1, ("one", "org"): 0, ("two", "two"): 0, ("two", "org"): 1}


async def test_tenants_that_the_document_leaves_out_are_as_declared() -> None:
    """Applying would leave them as they are, their overrides with them."""
    override = Override(LimitId("monthly"), 1)
    declared = {TenantId("acme"): tenant("acme", overrides=(override,))}
    calls = [used(1), used(2), used(3, tenant_id=TenantId("else")), used(4, tenant_id="else")]
    findings = await simulated(catalog(window()), *calls, tenants=declared)
    assert {each.tenant_id: each.refused for each in findings.standings()} == {"acme": 1, "else": 0}


async def test_tenants_can_be_put_on_another_plan() -> None:
    """All of them, or the one asked for, whose overrides are of its own plan and go."""
    plans = {
        PlanName("free"): Plan(PlanName("free"), (window("m", 9),)),
        PlanName("tiny"): Plan(PlanName("tiny"), (window("m", 1),)),
    }
    declared = {TenantId("acme"): tenant("acme", overrides=(Override(LimitId("m"), 5),))}
    calls = [used(1), used(2), used(3, tenant_id="else"), used(4, tenant_id="else")]
    for asked, refused in ((None, 2), (TenantId("acme"), 1)):
        findings = await simulated(
            catalog(plans=plans),
            *calls,
            tenants=declared,
            plan=PlanName("tiny"),
            query=ReplayQuery(asked),
        )
        assert findings.refused_calls == refused
    with pytest.raises(UnknownPlan):
        await simulated(catalog(), plan=PlanName("huge"))


async def test_a_refund_gives_back_what_was_granted() -> None:
    """Room comes back; but a refund of what the simulation refused gives nothing."""
    back = {"event_id": EventId("r1"), "refund_of": EventId("event-1")}
    calls = [used(1, 8), used(2, -8, 1, **back), used(3, 10, 2)]
    findings = await simulated(catalog(window("m", 10)), *calls)
    assert (findings.refused_calls, findings.refunds) == (0, 1)
    never = {"event_id": EventId("r2"), "refund_of": EventId("event-2")}
    calls = [used(1, 8), used(2, 8, 1), used(3, -8, 2, **never), used(4, 8, 3)]
    findings = await simulated(catalog(window("m", 10)), *calls)
    assert findings.refused_calls == 2
    assert findings.unjudged == {Unjudged.REFUND_OF_REFUSED: 1}


async def test_what_cannot_be_judged_is_counted_by_its_reason() -> None:
    """A meter or a tenant that the catalog lacks, or one that is suspended."""
    named = (tenant("shut", suspended=True), tenant("acme"))
    calls = [
        used(1, meter=MeterName("gone")),
        used(2, tenant_id=TenantId("shut")),
        used(3, tenant_id=TenantId("stranger")),
        used(4, tenant_id=TenantId("stranger")),
        used(5),
    ]
    parsed = ParsedCatalog(catalog(window(), default_plan=None), named)
    findings = await simulated(parsed, *calls)
    assert findings.unjudged == {
        Unjudged.UNKNOWN_METER: 1,
        Unjudged.SUSPENDED: 1,
        Unjudged.UNKNOWN_TENANT: 2,
    }
    assert (findings.calls, only(findings).events) == (5, 1)


async def test_holds_are_left_out() -> None:
    """The ledger has none, so that a limit of what is held at once is not judged."""
    held = window("held", 1, kind=LimitKind.CONCURRENCY, period=None)
    findings = await simulated(catalog(held), used(1), used(2))
    assert (findings.refused_calls, findings.unlimited_calls, findings.standings()) == (0, 2, [])


async def test_balances_burn_the_credits_that_were_granted() -> None:
    """Each grant counts whole from when it was made; without one there is only the overdraft."""
    paid = window("paid", 0, kind=LimitKind.BALANCE, period=None, overdraft=2)
    ledger = FakeCreditLedger(FakeLedger())
    for name, amount, at_us in (("first", 10, 0), ("second", 5, 20)):
        asked = GrantAsked(TenantId("acme"), paid.limit_id, GrantId(name), amount)
        await ledger.grant(asked, 2, NOON_US + at_us)
    calls = [used(1, 10, 1), used(2, 3, 2), used(3, 2, 3), used(4, 5, 10), used(5, 5, 30)]
    calls.append(used(6, 3, 40, tenant_id=TenantId("poor")))
    findings = await simulated(catalog(paid), *calls, granted=ledger)
    found = {each.tenant_id: each for each in findings.standings()}
    acme = found[TenantId("acme")]
    assert (acme.refused, acme.refused_units, acme.first_refused_us) == (2, 8, NOON_US + 2)
    assert found[TenantId("poor")].refused == 1


async def test_an_unlimited_limit_has_no_share() -> None:
    """It is met, refuses nothing, and is never part full."""
    findings = await simulated(catalog(window("all", UNLIMITED)), used(1, 5))
    assert (only(findings).highest, only(findings).share_ppm) == (5, None)


async def test_values_of_a_dimension_have_counters_of_their_own() -> None:
    """The highest use is that of the fullest one."""
    per_user = window("user", 2, per="subject_id")
    calls = [
        used(number, context=EventContext(subject_id=who)) for number, who in enumerate("aaabb", 1)
    ]
    findings = await simulated(catalog(per_user), *calls)
    assert (only(findings).refused, only(findings).highest, only(findings).events) == (1, 2, 5)


def passing_by(number: int) -> TenantId:
    """Return, in turn, a tenant that comes again and again, and one that comes five times."""
    return TenantId(f"regular-{number % 10}" if number % 2 else f"guest-{number // 10}")


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param(window("w", 3, period=Period.MINUTE), id="window"),
        pytest.param(rate("r", 1, burst=2, period=Period.MINUTE), id="rate"),
        pytest.param(
            window("s", 3, kind=LimitKind.SLIDING, period=None, duration_us=MINUTE_US),
            id="sliding",
        ),
    ],
)
async def test_memory_is_that_of_the_counters_that_still_count(
    limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters that are over are forgotten, and no decision is another one for it."""
    calls = [
        used(number, 1, number * SECOND_US, tenant_id=passing_by(number))
        for number in range(1, 2_000)
    ]

    async def run(sweep_min: int) -> tuple[list[Standing], int]:
        monkeypatch.setattr(simulate, "SWEEP_MIN", sweep_min)
        sizes: list[int] = []

        def note(_: int) -> None:
            sizes.append(len(running._counters._accounts.accounts))

        replay = FakeUsageReplay(calls)
        parts = SimulateParts(
            ParsedCatalog(catalog(limit)), Declared(), replay, FakeCreditLedger(FakeLedger()), note
        )
        running = Simulate(parts, SimulateOptions())
        return (await running.run()).standings(), max(sizes)

    kept, all_accounts = await run(1_000_000)
    swept, few_accounts = await run(8)
    assert swept == kept
    assert sum(each.refused for each in kept) > 100
    assert few_accounts < all_accounts // 3
