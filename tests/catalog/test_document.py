"""Good documents: what they mean."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate import demo
from tallygate.adapters.catalog.document import YamlCatalogDocuments, parse
from tallygate.domain.catalog import (
    UNLIMITED,
    Aggregation,
    Limit,
    LimitKind,
    OnExceed,
    OnOutage,
    Override,
    Tenant,
    Weight,
    limits_of,
)
from tallygate.domain.errors import CatalogInvalid
from tallygate.domain.ids import LimitId, MeterName, PlanName, TenantId
from tallygate.domain.window import HOUR_US, Calendar, Period, from_datetime
from tests.catalog.documents import GOOD, KINDS, changed, faults

ACME = TenantId("acme")
PRO = PlanName("pro")


def tenants(text: str) -> dict[TenantId, Tenant]:
    """Return the document's tenants by id."""
    return {tenant.tenant_id: tenant for tenant in parse(text).tenants}


def test_meters_are_read() -> None:
    """Meters have their aggregation, unit and horizon."""
    meters = parse(GOOD).catalog.meters
    assert meters[MeterName("requests")].aggregation is Aggregation.COUNT
    egress = meters[MeterName("egress_bytes")]
    assert (egress.unit, egress.late_horizon_us) == ("byte", 12 * HOUR_US)


def test_shapes_are_read() -> None:
    """What is grouped, counted as different, or taken of a distribution."""
    text = changed(
        "unit: request}",
        "group_by: [region, sku], late_policy: correct}\n"
        "  users: {aggregation: unique, unique_by: user_id}\n"
        "  latency: {aggregation: percentile, percentile: 99.9}\n"
        "  stored: {aggregation: time_weighted}\n"
        "  seats: {aggregation: latest}",
    )
    meters = parse(text).catalog.meters
    requests = meters[MeterName("requests")]
    assert (requests.group_by, requests.late_policy) == (("region", "sku"), "correct")
    assert meters[MeterName("users")].unique_by == "user_id"
    assert meters[MeterName("latency")].percentile_ppm == 999_000
    assert meters[MeterName("stored")].aggregation is Aggregation.TIME_WEIGHTED
    assert meters[MeterName("seats")].late_policy == "next_period"


def test_limits_are_read() -> None:
    """Limits have their kind, numbers, ratios and what happens when they are passed."""
    plans = parse(GOOD).catalog.plans
    rate, window = plans[PlanName("free")].limits
    assert (rate.kind, rate.limit, rate.burst) == (LimitKind.RATE, 60, 20)
    assert (window.kind, window.limit, window.burst) == (LimitKind.WINDOW, 5_000, 0)
    (soft,) = plans[PRO].limits
    assert soft.limit == 2**53 - 1
    assert soft.on_exceed is OnExceed.ALLOW
    assert soft.warn_at_ppm == (800_000, 950_000, 1_000_000)
    assert plans[PRO].description == "For those who pay."


def test_burst_follows_the_limit() -> None:
    """A rate without a burst allows its whole limit at once."""
    limit = parse(changed(", burst: 20", "")).catalog.plans[PlanName("free")].limits[0]
    assert limit.burst == 60


def test_tenants_are_read() -> None:
    """A tenant has its plan, calendar, money, parent and overrides."""
    acme = tenants(GOOD)[ACME]
    midnight = datetime(2024, 1, 31, tzinfo=ZoneInfo("Europe/Berlin"))
    assert acme == Tenant(
        ACME,
        PRO,
        Calendar("Europe/Berlin", from_datetime(midnight)),
        "EUR",
        "cus_x",
        TenantId("org"),
        (Override(LimitId("egress"), 0),),
    )


ALL = {limit.limit_id: limit for limit in parse(KINDS).catalog.plans[PlanName("all")].limits}

# Per limit of the document of all kinds: what it says.
READ = [
    Limit(
        LimitId("trailing"),
        MeterName("search"),
        LimitKind.SLIDING,
        None,
        500,
        duration_us=24 * HOUR_US,
    ),
    Limit(
        LimitId("at-once"),
        MeterName("jobs"),
        LimitKind.CONCURRENCY,
        None,
        4,
        on_outage=OnOutage.ALLOW,
    ),
    Limit(
        LimitId("prepaid"),
        MeterName("credits"),
        LimitKind.BALANCE,
        None,
        0,
        overdraft=50,
        low_at=(100, 10, 0),
    ),
    Limit(LimitId("boundless"), MeterName("search"), LimitKind.WINDOW, Period.QUARTER, UNLIMITED),
    Limit(LimitId("rated"), MeterName("search"), LimitKind.RATE, Period.SECOND, 5, 9),
    Limit(
        LimitId("per-user"),
        MeterName("search"),
        LimitKind.WINDOW,
        Period.YEAR,
        10,
        per="user_id",
    ),
    Limit(
        LimitId("large"),
        MeterName("image"),
        LimitKind.WINDOW,
        Period.DAY,
        3,
        where=(("model", ("large", "xl")), ("region", ("eu",))),
        on_outage=OnOutage.LOCAL_BUDGET,
        local_budget=1_500,
        exact=True,
    ),
]


@pytest.mark.parametrize("limit", READ, ids=[limit.limit_id for limit in READ])
def test_every_kind_of_limit_is_read(limit: Limit) -> None:
    """A limit has what its kind needs, and nothing else; `where` is in the order of its names."""
    assert ALL[limit.limit_id] == limit


def test_no_kind_of_limit_is_untested() -> None:
    """The document of all kinds has them all."""
    assert [*ALL.values()] == READ
    assert {limit.kind for limit in READ} == {*LimitKind}


def test_an_unlimited_rate_has_an_unlimited_burst() -> None:
    """A burst that is left out follows the rate."""
    text = changed("limit: 5, burst: 9", "limit: unlimited", KINDS)
    found = parse(text).catalog.plans[PlanName("all")].limits[4]
    assert (found.limit, found.burst) == (UNLIMITED, UNLIMITED)


def test_a_rate_card_is_read() -> None:
    """A weight is a number, or one per value, the values in their own order."""
    found = parse(KINDS).catalog.meters[MeterName("credits")].weights
    assert found == (
        Weight(MeterName("search"), 5),
        Weight(MeterName("image"), 10, "sku", (("4K ultra", 40), ("hd", 20))),
    )


def test_overrides_expire_in_their_tenants_zone() -> None:
    """An expiry is read as an anchor is: in the zone, unless it names an offset."""
    found = tenants(KINDS)[ACME].overrides
    assert found == (
        Override(
            LimitId("trailing"),
            900,
            expires_at_us=from_datetime(datetime.fromisoformat("2026-12-31T23:00:00+00:00")),
            reason="launch week",
        ),
        Override(LimitId("at-once"), UNLIMITED),
        Override(
            LimitId("rated"),
            UNLIMITED,
            expires_at_us=from_datetime(datetime.fromisoformat("2027-01-01T12:00:00+00:00")),
        ),
    )


def test_a_tenant_may_be_suspended_and_have_a_fiscal_year() -> None:
    """Unless it says so, a tenant is served, and its year begins in January."""
    found = tenants(KINDS)
    org, acme = found[TenantId("org")], found[ACME]
    assert (org.suspended, org.calendar.fiscal_month) == (True, 4)
    assert (acme.suspended, acme.calendar.fiscal_month) == (False, 1)


def test_destinations_name_their_secret() -> None:
    """A destination says where its secret is, and holds none."""
    (hooks,) = parse(GOOD).catalog.destinations
    assert (hooks.secret_env, hooks.secret_file, hooks.types) == (
        "HOOKS_SECRET",
        "",
        ("usage.batch",),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-31T05:30:00", "2024-01-31T05:30:00+01:00"),
        ("2024-07-31T05:30:00", "2024-07-31T05:30:00+02:00"),
        ("2024-01-31T05:30:00Z", "2024-01-31T05:30:00+00:00"),
        ('"2024-01-31"', "2024-01-31T00:00:00+01:00"),
        ("2024-01-31 05:30:00+09:00", "2024-01-31T05:30:00+09:00"),
    ],
)
def test_anchors(text: str, expected: str) -> None:
    """An anchor without an offset is in its tenant's zone."""
    acme = tenants(changed("2024-01-31", text))[ACME]
    assert acme.calendar.anchor_us == from_datetime(datetime.fromisoformat(expected))


def test_no_anchor_means_calendar_months() -> None:
    """Without an anchor, billing periods begin at local midnight of the first."""
    acme = tenants(changed("    anchor: 2024-01-31\n", ""))[ACME]
    midnight = datetime(1970, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    assert acme.calendar.anchor_us == from_datetime(midnight)


@pytest.mark.parametrize("name", ["no", "null_", "010", "1e3", "10.0.0.1", "a:b", "0x1F", "ünï"])
def test_names_are_as_written(name: str) -> None:
    """YAML's own ideas of booleans and numbers do not touch a tenant's id."""
    assert TenantId(name) in tenants(changed('"10.0.0.1"', f'"{name}"'))
    assert TenantId(name) in tenants(changed('"10.0.0.1"', name))


def test_a_stored_parent_is_not_judged_by_the_document() -> None:
    """A document that is applied may lean on tenants applied before; a file may not."""
    text = changed("  org: {plan: pro}\n", "")
    parsed = YamlCatalogDocuments().parse(text)
    assert {tenant.parent for tenant in parsed.tenants} == {TenantId("org"), None}
    assert parsed.line_of("tenants.acme.parent") == text.splitlines().index("    parent: org") + 1
    with pytest.raises(CatalogInvalid):
        parse(text)


def test_sections_may_be_empty() -> None:
    """A section with nothing below it is as good as none."""
    parsed = parse("version: 1\nmeters:\nplans: {}\ntenants: ~\n")
    assert (parsed.catalog.meters, parsed.tenants) == ({}, ())


def test_the_demo_catalog_is_good() -> None:
    """What `dev` and `demo` begin with parses, and limits a tenant that comes by."""
    text = Path(demo.__file__).with_name("catalog.yaml").read_text()
    catalog = parse(text).catalog
    assert catalog.default_plan is not None
    limits = limits_of(catalog, Tenant(TenantId("someone"), catalog.default_plan))
    assert {limit.meter for limit in limits} == {"requests", "egress_bytes"}
    assert any(limit.period is Period.MINUTE for limit in limits)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text ends in anything but a catalog or faults."""
    faults(text)
    faults(f"version: 1\ntenants:\n  acme: {{plan: {text}}}\n")


@given(
    st.recursive(
        st.sampled_from(["1", "a", "~", "0.5", "-1", "''", "2024-01-31", "{env: X}"]),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
            st.dictionaries(
                st.sampled_from(["limits", "plan", "id", "kind", "x", "anchor", "secret", "url"]),
                inner,
                max_size=4,
            ).map(lambda found: "{" + ", ".join(f"{k}: {v}" for k, v in found.items()) + "}"),
        ),
        max_leaves=20,
    ),
    st.sampled_from(["meters", "plans", "tenants", "destinations", "default_plan", "version"]),
)
def test_any_shape_is_read_or_refused(value: str, section: str) -> None:
    """Whatever stands where something else belongs is a fault with a path, never a crash."""
    for text in (f"{section}: {value}\n", f"version: 1\n{section}: {{x: {value}}}\n"):
        for fault in faults(text):
            assert fault.message
