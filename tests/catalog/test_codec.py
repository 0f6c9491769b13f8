"""The compiled catalog: what is written reads back equal, also across versions of the format."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.adapters.catalog_codec import (
    catalog_from_json,
    catalog_to_json,
    tenant_from_json,
    tenant_to_json,
)
from tallygate.domain.catalog import (
    Aggregation,
    Catalog,
    Destination,
    LatePolicy,
    Limit,
    LimitKind,
    Meter,
    OnExceed,
    OnOutage,
    Override,
    Plan,
    Tenant,
    Weight,
)
from tallygate.domain.ids import AMOUNT_MAX, LimitId, MeterName, PlanName, TenantId
from tallygate.domain.price import (
    CreditTerms,
    DiscountStep,
    ExchangeAt,
    Pay,
    Price,
    PriceModel,
    Rounding,
    RoundPer,
    Terms,
    Tier,
)
from tallygate.domain.window import Calendar, Period

names = st.from_regex(r"[a-z0-9][a-z0-9_.\-]{0,8}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)
numbers = st.integers(0, AMOUNT_MAX)
pairs = st.lists(st.tuples(texts, numbers), max_size=2).map(tuple)
weights = st.builds(Weight, names, numbers, texts, pairs)
meters = st.builds(
    Meter,
    names,
    st.sampled_from(Aggregation),
    texts,
    texts,
    numbers,
    st.lists(weights, max_size=2).map(tuple),
    texts,
    st.integers(0, 1_000_000),
    st.lists(texts, max_size=3).map(tuple),
    st.sampled_from(LatePolicy),
)
limits = st.builds(
    Limit,
    names,
    names,
    st.sampled_from(LimitKind),
    st.none() | st.sampled_from(Period),
    numbers,
    numbers,
    st.sampled_from(OnExceed),
    st.lists(st.integers(1, 1_000_000), max_size=3).map(tuple),
    numbers,
    numbers,
    st.lists(numbers, max_size=3).map(tuple),
    texts,
    st.lists(st.tuples(names, st.lists(texts, max_size=2).map(tuple)), max_size=2).map(tuple),
    st.sampled_from(OnOutage),
    numbers,
    st.booleans(),
)
amounts = st.decimals(0, 10**15, allow_nan=False, places=12)
steps = st.lists(st.builds(DiscountStep, amounts, amounts), max_size=2).map(tuple)
prices = st.builds(
    Price,
    names,
    st.sampled_from(PriceModel),
    names,
    amounts,
    st.booleans(),
    numbers,
    amounts,
    st.lists(st.builds(Tier, st.none() | numbers, amounts, amounts), max_size=2).map(tuple),
    numbers,
    names,
    amounts,
    steps,
    st.lists(st.tuples(names, st.lists(texts, max_size=2).map(tuple)), max_size=2).map(tuple),
    texts,
    st.sampled_from(["", "EUR"]),
    st.none() | st.sampled_from(Rounding),
    st.sampled_from(RoundPer),
    st.sampled_from(Pay),
    st.booleans(),
    texts,
)
terms = st.builds(
    Terms,
    st.sampled_from(["USD", "JPY"]),
    amounts,
    steps,
    st.none() | st.builds(CreditTerms, amounts, names),
    st.sampled_from(ExchangeAt),
    st.sampled_from(Rounding),
)
plans = st.builds(
    Plan,
    names,
    st.lists(limits, max_size=3).map(tuple),
    texts,
    st.lists(prices, max_size=3).map(tuple),
    terms,
)
tenants = st.builds(
    Tenant,
    texts.filter(bool),
    names,
    st.builds(
        Calendar,
        st.sampled_from(["UTC", "Europe/Berlin"]),
        st.integers(-(10**14), 10**16),
        st.integers(1, 12),
    ),
    st.sampled_from(["USD", "EUR"]),
    texts,
    st.none() | texts.filter(bool),
    st.lists(st.builds(Override, names, numbers, numbers, numbers, texts), max_size=3).map(tuple),
    st.booleans(),
)
destinations = st.builds(
    Destination, names, names, texts, st.lists(names, max_size=2).map(tuple), texts, texts
)
catalogs = st.builds(
    Catalog,
    st.integers(0, 2**31),
    st.lists(meters, max_size=3).map(lambda found: {each.name: each for each in found}),
    st.lists(plans, max_size=3).map(lambda found: {each.name: each for each in found}),
    st.none() | names,
    st.lists(destinations, max_size=2).map(tuple),
)


@given(catalogs)
def test_a_catalog_reads_back_equal(catalog: Catalog) -> None:
    """Nothing is lost or rounded, and the same catalog gives the same bytes."""
    written = catalog_to_json(catalog)
    assert catalog_from_json(written) == catalog
    assert catalog_to_json(catalog_from_json(written)) == written


@given(tenants)
def test_a_tenant_reads_back_equal(tenant: Tenant) -> None:
    """Nothing is lost or rounded, and the same tenant gives the same bytes."""
    written = tenant_to_json(tenant)
    assert tenant_from_json(written) == tenant
    assert tenant_to_json(tenant_from_json(written)) == written


def with_more(value: object) -> object:
    """Return JSON with a field more in every object."""
    if isinstance(value, dict):
        return {**{key: with_more(each) for key, each in value.items()}, "later": [1]}
    return [with_more(each) for each in value] if isinstance(value, list) else value


@given(catalogs, tenants)
def test_fields_of_a_later_version_are_ignored(catalog: Catalog, tenant: Tenant) -> None:
    """An old sidecar reads what a newer control process writes."""
    later = json.dumps(with_more(json.loads(catalog_to_json(catalog))))
    # Meters and plans are lists there, so that names cannot be taken for fields.
    assert catalog_from_json(later) == catalog
    assert tenant_from_json(json.dumps(with_more(json.loads(tenant_to_json(tenant))))) == tenant


RUBBISH = [
    *("", "{", "[]", "{}", "null", '{"version": "x"}', '"a"', "1"),
    '{"tenant_id": "a", "plan": "b", "calendar": [], "version": 1, "meters": [[]], "plans": []}',
    '{"tenant_id": "a", "plan": "b", "overrides": [1], "version": 1, "meters": {"a": 1}}',
]


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_rubbish_is_refused(rubbish: str) -> None:
    """What is no catalog or tenant raises what callers catch."""
    for read in (catalog_from_json, tenant_from_json):
        with pytest.raises((ValueError, KeyError, TypeError)):
            read(rubbish)


def test_a_plain_tenant_is_small() -> None:
    """What is as usual is not written: a million tenants lie in Redis."""
    tenant = Tenant(TenantId("acme"), PlanName("free"))
    assert tenant_to_json(tenant) == b'{"tenant_id":"acme","plan":"free"}'


def test_a_plan_without_prices_is_written_as_before() -> None:
    """A sidecar's snapshot does not grow by what it never asks for."""
    plan = Plan(PlanName("free"))
    written = catalog_to_json(Catalog(plans={plan.name: plan}))
    assert b'"plans":[{"name":"free","limits":[],"description":""}]' in written


def test_an_override_is_small() -> None:
    """Of an override, only what it says is written."""
    tenant = Tenant(TenantId("acme"), PlanName("free"), overrides=(Override(LimitId("a"), 0),))
    assert b'"overrides":[{"limit_id":"a","limit":0}]' in tenant_to_json(tenant)


# As written before there were other kinds than windows and rates.
EARLIER_CATALOG = """{"format":1,"version":7,"meters":[{"name":"requests","aggregation":"count",
"unit":"request","description":"","late_horizon_us":3024000000000}],"plans":[{"name":"free",
"limits":[{"limit_id":"a","meter":"requests","kind":"window","period":"month","limit":100,"burst":0,
"on_exceed":"refuse","warn_at_ppm":[800000]},{"limit_id":"b","meter":"requests","kind":"rate",
"period":"second","limit":5,"burst":40,"on_exceed":"allow","warn_at_ppm":[]}],"description":""}],
"default_plan":"free","destinations":[]}"""
EARLIER_TENANT = """{"tenant_id":"acme","plan":"free","calendar":{"time_zone":"Europe/Berlin",
"anchor_us":1706655600000000},"overrides":[{"limit_id":"a","limit":7,"burst":0}]}"""


def test_an_earlier_catalog_still_loads() -> None:
    """A snapshot without the newer fields means what it meant."""
    monthly = Limit(
        LimitId("a"),
        MeterName("requests"),
        LimitKind.WINDOW,
        Period.MONTH,
        100,
        warn_at_ppm=(800_000,),
    )
    rate = Limit(
        LimitId("b"), MeterName("requests"), LimitKind.RATE, Period.SECOND, 5, 40, OnExceed.ALLOW
    )
    found = catalog_from_json(EARLIER_CATALOG)
    assert found.version == 7
    assert found.meters[MeterName("requests")].weights == ()
    assert found.plans[PlanName("free")].limits == (monthly, rate)


def test_an_earlier_tenant_still_loads() -> None:
    """A tenant without the newer fields is not suspended, and its year begins in January."""
    assert tenant_from_json(EARLIER_TENANT) == Tenant(
        TenantId("acme"),
        PlanName("free"),
        Calendar("Europe/Berlin", 1_706_655_600_000_000),
        overrides=(Override(LimitId("a"), 7),),
    )
