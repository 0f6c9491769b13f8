"""Binding: which items count against which counters, with what weight, and until when."""

from dataclasses import replace

import pytest

from tallygate.adapters.catalog.document import parse
from tallygate.domain.catalog import (
    UNLIMITED,
    Aggregation,
    Catalog,
    Limit,
    Meter,
    Override,
    Tenant,
    Weight,
)
from tallygate.domain.decision import (
    BalanceRule,
    Charge,
    ConcurrencyRule,
    RateRule,
    SlidingRule,
    WindowRule,
)
from tallygate.domain.errors import CounterOverflow, TooManyLimits, UnknownMeter
from tallygate.domain.event import NO_CONTEXT, EventContext
from tallygate.domain.ids import AMOUNT_MAX, LimitId, MeterName, PlanName
from tallygate.domain.request import Item
from tallygate.domain.window import Calendar, Period
from tallygate.flow.bind import Binder, quota_items, suspended_in
from tests.builders import BYTES, REQUESTS, catalog, rate, tenant, window
from tests.catalog.documents import KINDS

NOW_US = 1_790_000_000_000_000
CREDITS = MeterName("credits")
SEARCH = MeterName("search")
IMAGE = MeterName("image")
CALLS = MeterName("calls")

CARD = Weight(IMAGE, 10, "sku", (("hd", 20), ("free", 0)))
METERS = {
    meter.name: meter
    for meter in (
        Meter(REQUESTS),
        Meter(BYTES),
        Meter(CALLS, Aggregation.COUNT),
        Meter(SEARCH),
        Meter(IMAGE),
        Meter(CREDITS, weights=(Weight(SEARCH, 5), CARD, Weight(CALLS, 3))),
    )
}


def item(meter: MeterName, amount: int = 1, **dimensions: str) -> Item:
    """Return an item."""
    return Item(meter, amount, dimensions)


def priced(*limits: Limit) -> Catalog:
    """Return a catalog with these limits and a rate card."""
    return catalog(*limits, meters=METERS)


def bound(
    found: Catalog,
    *items: Item,
    lineage: tuple[Tenant, ...] = (),
    context: EventContext = NO_CONTEXT,
    now_us: int = NOW_US,
) -> list[tuple[str, str, int]]:
    """Return account, limit and amount of each charge."""
    charges = Binder().charges(found, lineage or (tenant(),), items, context, now_us)
    return [(charge.account, charge.limit_id, charge.amount) for charge in charges]


def test_items_of_one_meter_are_one_charge() -> None:
    """A limit is met once however many items it covers, and limits of other meters are not."""
    limits = priced(window("a"), rate("b"), window("c", meter=BYTES))
    found = bound(limits, item(REQUESTS, 2), item(REQUESTS, 3))
    assert found == [("acme", "a", 5), ("acme", "b", 5)]


def test_a_counting_meter_counts_items() -> None:
    """An item weighs 1 whatever its amount, and nothing where nothing was used."""
    limits = priced(window("a", meter=CALLS))
    assert bound(limits, item(CALLS, 7), item(CALLS, 9)) == [("acme", "a", 2)]
    assert bound(limits, item(CALLS, 0)) == [("acme", "a", 0)]


def test_charges_follow_the_lineage_and_its_plans() -> None:
    """The tenant's own limits come first, then its parent's, each in the parent's account."""
    lineage = (tenant("acme"), tenant("org"))
    found = bound(priced(window("a"), window("b")), item(REQUESTS), lineage=lineage)
    assert found == [("acme", "a", 1), ("acme", "b", 1), ("org", "a", 1), ("org", "b", 1)]


def test_each_value_of_a_dimension_has_its_account() -> None:
    """With `per`, items are charged to the account of their value, in the items' order."""
    found = bound(
        priced(window("a", per="user_id")),
        item(REQUESTS, 1, user_id="u2"),
        item(REQUESTS, 2, user_id="u1"),
        item(REQUESTS, 4, user_id="u2"),
        item(REQUESTS, 8),
    )
    assert found == [
        ("acme user_id=u2", "a", 5),
        ("acme user_id=u1", "a", 2),
        ("acme user_id=", "a", 8),
    ]


def test_a_field_of_the_context_stands_in_for_a_dimension() -> None:
    """`per` looks at the item's dimensions first, then at the call's context."""
    limits = priced(window("a", per="subject_id"))
    context = EventContext(subject_id="ann")
    items = (item(REQUESTS), item(REQUESTS, subject_id="bob"))
    assert bound(limits, *items, context=context) == [
        ("acme subject_id=ann", "a", 1),
        ("acme subject_id=bob", "a", 1),
    ]


def test_no_attribute_but_a_field_of_the_context_is_a_value() -> None:
    """A key that Python knows and the context does not has no value."""
    assert bound(priced(window("a", per="__class__")), item(REQUESTS)) == [
        ("acme __class__=", "a", 1)
    ]


def test_where_keeps_a_limit_to_its_items() -> None:
    """Every key must have one of its values; other items are not counted."""
    limit = window("a", where=(("model", ("large", "xl")), ("region", ("eu",))))
    context = EventContext(region="eu")
    items = (
        item(REQUESTS, 1, model="large"),
        item(REQUESTS, 2, model="xl", region="eu"),
        item(REQUESTS, 4, model="small"),
        item(REQUESTS, 8, model="large", region="us"),
        item(REQUESTS, 16),
    )
    assert bound(priced(limit), *items, context=context) == [("acme", "a", 3)]
    assert bound(priced(limit), items[-1], context=context) == []


def test_a_rate_card_turns_usage_into_credits() -> None:
    """Units times amount, by the sku where the card has it, beside the meter's own usage."""
    limits = priced(window("a", meter=CREDITS), window("own", meter=IMAGE))
    items = (
        item(SEARCH, 2),
        item(IMAGE, 1, sku="hd"),
        item(IMAGE, 3, sku="sketch"),
        item(CALLS, 99),
        item(CREDITS, 7),
    )
    assert bound(limits, *items) == [("acme", "a", 10 + 20 + 30 + 3 + 7), ("acme", "own", 4)]
    assert bound(limits, item(IMAGE), context=EventContext(sku="hd"))[0] == ("acme", "a", 20)
    assert bound(limits, item(IMAGE, 5, sku="free"))[0] == ("acme", "a", 0)
    assert bound(limits, item(REQUESTS)) == []


def test_weights_where_and_per_work_together() -> None:
    """What matches is weighed, then counted by value."""
    limit = window("a", meter=CREDITS, per="user", where=(("tier", ("paid",)),))
    found = bound(
        priced(limit),
        item(SEARCH, 2, user="u", tier="paid"),
        item(IMAGE, 1, user="v", tier="paid"),
        item(IMAGE, 1, user="u", tier="free"),
    )
    assert found == [("acme user=u", "a", 10), ("acme user=v", "a", 10)]


@pytest.mark.parametrize(
    "items",
    [
        (item(SEARCH, AMOUNT_MAX // 5 + 1),),
        (item(SEARCH, AMOUNT_MAX // 5), item(CREDITS, 3)),
        (item(CREDITS, AMOUNT_MAX), item(CREDITS, 1)),
    ],
)
def test_more_than_a_counter_holds_is_refused(items: tuple[Item, ...]) -> None:
    """A product or a sum beyond 2^53 - 1 is an error, never rounded."""
    with pytest.raises(CounterOverflow, match="credits"):
        bound(priced(window("a", meter=CREDITS)), *items)


def test_the_largest_amount_is_exact() -> None:
    """2^53 - 1 is charged to the unit."""
    limits = priced(window("a", meter=CREDITS))
    exact = item(SEARCH, AMOUNT_MAX // 5), item(CREDITS, AMOUNT_MAX % 5)
    assert bound(limits, *exact) == [("acme", "a", AMOUNT_MAX)]


def test_an_unknown_meter_is_named_by_its_item() -> None:
    """The error says which item."""
    with pytest.raises(UnknownMeter) as caught:
        bound(priced(window()), item(REQUESTS), item(MeterName("nope")))
    assert caught.value.field == "items[1].meter"


def test_at_most_32_counters_are_met_at_once() -> None:
    """Limits times values: 32 pass, 33 do not."""
    limits = priced(window("a", per="user"))
    users = [item(REQUESTS, user=f"u{n}") for n in range(33)]
    assert len(bound(limits, *users[:32])) == 32
    with pytest.raises(TooManyLimits):
        bound(limits, *users)


def limit_at(binder: Binder, overrides: tuple[Override, ...], now_us: int) -> int:
    """Return the limit that a tenant with the overrides has at an instant."""
    [charge] = binder.charges(
        catalog(window("a", 100)),
        (tenant(overrides=overrides),),
        (item(REQUESTS),),
        NO_CONTEXT,
        now_us,
    )
    return charge.limit


def test_an_override_counts_until_the_instant_it_expires() -> None:
    """One binder, whatever it has kept: before the instant the override, from it on the plan."""
    overrides = (Override(LimitId("a"), 7, expires_at_us=NOW_US),)
    binder = Binder()
    # Also when the clock is set back.
    times = (NOW_US - 1, NOW_US, NOW_US + 1, NOW_US - 1, NOW_US)
    found = [limit_at(binder, overrides, now_us) for now_us in times]
    assert found == [7, 100, 100, 7, 100]


def test_overrides_expire_one_by_one() -> None:
    """The plan's number comes back for each at its own time; one without an end stays."""
    limits = catalog(window("a", 100), window("b", 100), window("c", 100))
    overrides = (
        Override(LimitId("a"), 1, expires_at_us=NOW_US + 10),
        Override(LimitId("b"), 2, expires_at_us=NOW_US + 20),
        Override(LimitId("c"), UNLIMITED),
    )
    binder = Binder()

    def at(now_us: int) -> list[int]:
        lineage = (tenant(overrides=overrides),)
        charges = binder.charges(limits, lineage, (item(REQUESTS),), NO_CONTEXT, now_us)
        return [charge.limit for charge in charges]

    assert at(NOW_US) == [1, 2, UNLIMITED]
    assert at(NOW_US + 10) == [100, 2, UNLIMITED]
    assert at(NOW_US + 20) == [100, 100, UNLIMITED]


def test_tenants_of_one_shape_keep_their_own_accounts() -> None:
    """What is kept of a plan is shared; who is charged is not."""
    binder = Binder()
    limits = priced(window("a"), window("b", per="user"))
    for name in ("one", "two"):
        charges = binder.charges(
            limits, (tenant(name),), (item(REQUESTS, user="u"),), NO_CONTEXT, NOW_US
        )
        assert [charge.account for charge in charges] == [name, f"{name} user=u"]


def window_of(charge: Charge) -> WindowRule:
    """Return the charge's windows."""
    assert isinstance(charge.rule, WindowRule)
    return charge.rule


def test_windows_are_made_anew_when_they_have_passed() -> None:
    """The first of the two windows holds our time, also after it was set back."""
    binder = Binder()
    limits = priced(window("a", period=Period.MINUTE), window("b", period=Period.DAY, per="user"))
    minutes = (0, 1, 5, 5_000, 0)
    for now_us in (NOW_US + minute * 60_000_000 for minute in minutes):
        for charge in binder.charges(limits, (tenant(),), (item(REQUESTS),), NO_CONTEXT, now_us):
            rule = window_of(charge)
            assert rule.starts_us <= now_us < rule.turns_us < rule.ends_us


def test_calendars_are_kept_apart() -> None:
    """Tenants of one plan in two zones have days of their own."""
    binder = Binder()
    limits = priced(window("a", period=Period.DAY))
    starts = {
        window_of(
            binder.charges(
                limits,
                (tenant(calendar=Calendar(zone)),),
                (item(REQUESTS),),
                NO_CONTEXT,
                NOW_US,
            )[0]
        ).starts_us
        for zone in ("UTC", "Asia/Tokyo")
    }
    assert len(starts) == 2


def test_a_new_catalog_is_taken_over_at_once() -> None:
    """Limits and weights of a later version replace what was kept."""
    binder = Binder()

    def charged(found: Catalog) -> list[tuple[int, int]]:
        charges = binder.charges(found, (tenant(),), (item(SEARCH),), NO_CONTEXT, NOW_US)
        return [(charge.limit, charge.amount) for charge in charges]

    old = priced(window("a", 100, meter=CREDITS))
    assert charged(old) == [(100, 5)]
    dearer = {**METERS, CREDITS: Meter(CREDITS, weights=(Weight(SEARCH, 6),))}
    assert charged(replace(old, version=2, meters=dearer)) == [(100, 6)]
    lower = priced(window("a", 50, meter=CREDITS))
    assert charged(replace(lower, version=3)) == [(50, 5)]


# Per limit of the document of all kinds: its counter's name, and the kind of its rule.
KINDS_BOUND = [
    ("trailing", "trailing/s1440000000", SlidingRule),
    ("at-once", "at-once/held", ConcurrencyRule),
    ("prepaid", "prepaid/balance", BalanceRule),
    ("boundless", "boundless/quarter", WindowRule),
    ("rated", "rated/rate", RateRule),
    ("per-user", "per-user/year", WindowRule),
]


def test_every_kind_of_limit_is_bound() -> None:
    """One call of a catalog with every kind; a limit that its items do not match is not met."""
    found = parse(KINDS).catalog
    lineage = (tenant(plan=PlanName("all")),)
    charges = Binder().charges(found, lineage, quota_items(found, ()), NO_CONTEXT, NOW_US)
    assert [(charge.limit_id, charge.field, type(charge.rule)) for charge in charges] == KINDS_BOUND


def test_quota_items_meet_the_limits_of_all_meters() -> None:
    """Items of nothing: each limit is met with an amount of 0, whatever its meter counts."""
    limits = priced(window("a"), window("b", meter=CALLS), window("c", meter=CREDITS))
    found = bound(limits, *quota_items(limits, ()))
    assert found == [("acme", "a", 0), ("acme", "b", 0), ("acme", "c", 0)]


def test_quota_items_are_of_the_meters_and_dimensions_asked_for() -> None:
    """Dimensions choose the counters; limits of other dimensions are left out."""
    limits = priced(
        window("a", per="user"),
        window("b", where=(("model", ("large",)),)),
        window("c", where=(("model", ("small",)),)),
        window("d", meter=BYTES),
    )
    items = quota_items(limits, (REQUESTS, REQUESTS), {"user": "u", "model": "large"})
    assert bound(limits, *items) == [("acme user=u", "a", 0), ("acme", "b", 0)]


def test_quota_items_of_an_unknown_meter_are_refused() -> None:
    """The error names the list."""
    with pytest.raises(UnknownMeter) as caught:
        quota_items(priced(), (MeterName("nope"),))
    assert caught.value.field == "meters"


def test_the_lowest_suspended_tenant_is_named() -> None:
    """A tenant is suspended itself, or by one above it."""
    plain, asleep = tenant("a"), tenant("b", suspended=True)
    assert suspended_in((plain,)) is None
    assert suspended_in((plain, asleep, tenant("c", suspended=True))) == "b"
    assert suspended_in((asleep,)) == "b"
