"""Bad limits of every kind, rate cards, overrides: each fault alone, on its line."""

from dataclasses import dataclass

import pytest

from tests.catalog.documents import KINDS, changed, faults


@dataclass(frozen=True, slots=True)
class Bad:
    """One edit of the document of all kinds, and its only fault, which stands on that line."""

    old: str
    new: str
    path: str
    message: str
    suggestion: str = ""


TRAILING = "plans.all.limits[0]"
AT_ONCE = "plans.all.limits[1]"
PREPAID = "plans.all.limits[2]"
BOUNDLESS = "plans.all.limits[3]"
RATED = "plans.all.limits[4]"
PER_USER = "plans.all.limits[5]"
LARGE = "plans.all.limits[6]"
CREDITS = "meters.credits.weights"
ACME = "tenants.acme"
BUDGET = "local_budget(1_500)"
WHERE = "{region: eu, model: [large, xl]}"
IMAGE = "{by: sku, units: 10, values:"
LONG = "v" * 257

SUITING = [
    Bad("duration: 24h,", "", f"{TRAILING}.duration", "is required"),
    Bad(
        "duration: 24h",
        "period: day, duration: 24h",
        f"{TRAILING}.period",
        "of kind window and rate",
    ),
    Bad("limit: 500", "limit: 500, burst: 3", f"{TRAILING}.burst", "is for limits of kind rate"),
    Bad("limit: 500", "limit: 500, warn_at: [0.5]", f"{TRAILING}.warn_at", "of kind window"),
    Bad("limit: 500", "limit: 500, low_at: [5]", f"{TRAILING}.low_at", "of kind balance"),
    Bad("limit: 4,", "", f"{AT_ONCE}.limit", "is required"),
    Bad("limit: 4,", "limit: 4, period: day,", f"{AT_ONCE}.period", "of kind window and rate"),
    Bad("limit: 4,", "limit: 4, warn_at: [0.5],", f"{AT_ONCE}.warn_at", "of kind window"),
    Bad("limit: 4,", "limit: 4, duration: 1h,", f"{AT_ONCE}.duration", "of kind sliding"),
    Bad(
        "overdraft: 50", "limit: 0, overdraft: 50", f"{PREPAID}.limit", "of kind window and sliding"
    ),
    Bad("overdraft: 50", "limit: unlimited, overdraft: 50", f"{PREPAID}.limit", "is for limits"),
    Bad("overdraft: 50", "period: day, overdraft: 50", f"{PREPAID}.period", "of kind window and"),
    Bad("overdraft: 50", "warn_at: [0.5], overdraft: 50", f"{PREPAID}.warn_at", "of kind window"),
    Bad("limit: 10,", "limit: 10, overdraft: 0,", f"{PER_USER}.overdraft", "of kind balance"),
    Bad("period: year,", "", f"{PER_USER}.period", "is required"),
]
NUMBERS = [
    Bad("duration: 24h", "duration: 0s", f"{TRAILING}.duration", "must be a duration above 0"),
    Bad("duration: 24h", "duration: 367d", f"{TRAILING}.duration", "must be from 1s to 366d"),
    Bad("duration: 24h", "duration: daily", f"{TRAILING}.duration", "such as 35d"),
    Bad("limit: 4,", "limit: -1,", f"{AT_ONCE}.limit", "must be from 0"),
    Bad(
        "quarter, limit: unlimited",
        'quarter, limit: "unlimited"',
        f"{BOUNDLESS}.limit",
        "without quotes",
    ),
    Bad(
        "quarter, limit: unlimited",
        "quarter, limit: infinite",
        f"{BOUNDLESS}.limit",
        "must be a whole number",
    ),
    Bad("limit: 5, burst", "limit: unlimited, burst", f"{RATED}.burst", "that are not unlimited"),
    Bad("overdraft: 50", "overdraft: -50", f"{PREPAID}.overdraft", "must be from 0"),
    Bad("overdraft: 50", "overdraft: some", f"{PREPAID}.overdraft", "must be a whole number"),
    Bad("[100, 10, 0]", "[10, 100]", f"{PREPAID}.low_at", "must fall"),
    Bad("[100, 10, 0]", "[10, 10]", f"{PREPAID}.low_at", "must fall"),
    Bad("[100, 10, 0]", "[-1]", f"{PREPAID}.low_at", "not from 0 to"),
    Bad("[100, 10, 0]", "[50%]", f"{PREPAID}.low_at[0]", "must be a whole number"),
    Bad("[100, 10, 0]", "100", f"{PREPAID}.low_at", "must be a list"),
    Bad("[100, 10, 0]", "[9, 8, 7, 6, 5, 4, 3, 2, 1]", f"{PREPAID}.low_at", "more than 8 numbers"),
    Bad("kind: balance", "kind: balance, per: user_id", f"{PREPAID}.per", "not for limits of kind"),
    Bad("kind: balance", "kind: ballance", f"{PREPAID}.kind", "must be one of", "balance"),
    Bad("period: quarter", "period: quartal", f"{BOUNDLESS}.period", "must be one of", "quarter"),
]
SCOPES = [
    Bad("per: user_id", "per: user=id", f"{PER_USER}.per", "is not a name of up to 64"),
    Bad("per: user_id", f"per: {'u' * 65}", f"{PER_USER}.per", "is not a name of up to 64"),
    Bad("per: user_id", "per: [user_id]", f"{PER_USER}.per", "must be a text"),
    Bad("per: user_id", "pre: user_id", f"{PER_USER}.pre", "there is no 'pre'", "per"),
    Bad(WHERE, "{a b: eu}", f"{LARGE}.where.a b", "is not a name of up to 64"),
    Bad(WHERE, "{model: []}", f"{LARGE}.where.model", "at least one value"),
    Bad(WHERE, "{model: [a, b, a]}", f"{LARGE}.where.model", "holds a value twice"),
    Bad(WHERE, f"{{model: {LONG}}}", f"{LARGE}.where.model", "at most 256 characters"),
    Bad(WHERE, "{model: {a: b}}", f"{LARGE}.where.model", "must be a text"),
    Bad(WHERE, "[large]", f"{LARGE}.where", "must be a mapping"),
    Bad(
        WHERE,
        f"{{model: [{', '.join(f'm{n}' for n in range(65))}]}}",
        f"{LARGE}.where.model",
        "more than 64 values",
    ),
    Bad(
        WHERE,
        f"{{{', '.join(f'k{n}: v' for n in range(17))}}}",
        f"{LARGE}.where",
        "more than 16 names",
    ),
]
OUTAGES = [
    Bad(BUDGET, "local_budget(0)", f"{LARGE}.on_outage", "must be from 1 to 9007199254740991"),
    Bad(BUDGET, "local_budget(9007199254740992)", f"{LARGE}.on_outage", "must be from 1 to"),
    Bad(BUDGET, "local_budget", f"{LARGE}.on_outage", "must be one of", "local_budget(500)"),
    Bad(BUDGET, "local_budget(5k)", f"{LARGE}.on_outage", "must be one of", "local_budget(500)"),
    Bad(BUDGET, "alow", f"{LARGE}.on_outage", "must be one of refuse, allow, local_b", "allow"),
    Bad(BUDGET, "[allow]", f"{LARGE}.on_outage", "must be a text"),
    Bad(
        "on_outage: allow",
        "on_outage: allow, on_exceed: shadow",
        f"{AT_ONCE}.on_outage",
        "means nothing",
    ),
    Bad("exact: true", "exact: yes", f"{LARGE}.exact", "must be true or false, not 'yes'"),
]
CARDS = [
    Bad("search: 5", "serch: 5", f"{CREDITS}.serch", "there is no meter 'serch'", "search"),
    Bad("search: 5", "credits: 5", f"{CREDITS}.credits", "cannot weigh itself"),
    Bad("search: 5", "search: -5", f"{CREDITS}.search.units", "must be from 0"),
    Bad("search: 5", "search: 0.5", f"{CREDITS}.search", "must be a whole number"),
    Bad("search: 5", "search: [5]", f"{CREDITS}.search", "must be a whole number, or a"),
    Bad("search: 5", "search: {by: sku, values: {a: 1}}", f"{CREDITS}.search.units", "is required"),
    Bad(
        "search: 5", "search: {units: 5, by: sku}", f"{CREDITS}.search.values", "required with `by`"
    ),
    Bad(IMAGE, "{units: 10, values:", f"{CREDITS}.image.by", "is required with `values`"),
    Bad(IMAGE, "{by: s ku, units: 10, values:", f"{CREDITS}.image.by", "is not a name of up"),
    Bad(
        IMAGE,
        "{by: sku, unit: 1, units: 10, values:",
        f"{CREDITS}.image.unit",
        "there is no",
        "units",
    ),
    Bad("{hd: 20,", "{hd: -20,", f"{CREDITS}.image.values.hd", "must be from 0"),
    Bad("{hd: 20,", "{hd: many,", f"{CREDITS}.image.values.hd", "must be a whole number"),
    Bad("{hd: 20,", f"{{{LONG}: 20,", f"{CREDITS}.image.values.{LONG}", "at most 256 characters"),
]
TENANTS = [
    Bad("suspended: true", "suspended: 1", "tenants.org.suspended", "must be true or false"),
    Bad("fiscal_month: 4", "fiscal_month: 13", "tenants.org.fiscal_month", "from 1 to 12"),
    Bad("fiscal_month: 4", "fiscal_month: 0", "tenants.org.fiscal_month", "from 1 to 12"),
    Bad("fiscal_month: 4", "fiscal_month: april", "tenants.org.fiscal_month", "whole number"),
    Bad("expires: 2027-01-01,", "expires: soon,", f"{ACME}.overrides.trailing.expires", "ISO 8601"),
    Bad(
        "expires: 2027-01-01,", "expires: 2200-01-01,", f"{ACME}.overrides.trailing.expires", "year"
    ),
    Bad(
        "expires: 2027-01-01,",
        "expires: 1970-01-01T00:00:00Z,",
        f"{ACME}.overrides.trailing.expires",
        "must be after 1970-01-01",
    ),
    Bad("reason: launch week", "reason: ~", f"{ACME}.overrides.trailing.reason", "is empty"),
    Bad("reason: launch", "raeson: launch", f"{ACME}.overrides.trailing.raeson", "no 'r", "reason"),
    Bad(
        "at-once: {limit", "prepaid: {limit", f"{ACME}.overrides.prepaid", "has no limit to replace"
    ),
    Bad("{limit: 900,", "{limit: 900, burst: 2,", f"{ACME}.overrides.trailing.burst", "kind rate"),
    Bad(
        "rated: {limit: unlimited",
        "rated: {burst: 4, limit: unlimited",
        f"{ACME}.overrides.rated.burst",
        "that are not unlimited",
    ),
]
BAD = SUITING + NUMBERS + SCOPES + OUTAGES + CARDS + TENANTS


@pytest.mark.parametrize("bad", BAD, ids=[f"{bad.path}:{bad.message}"[:60] for bad in BAD])
def test_each_fault_is_told_alone_with_its_place(bad: Bad) -> None:
    """A wrong value is one fault on its line, by its path, with what was meant."""
    text = changed(bad.old, bad.new, KINDS)
    expected = KINDS[: KINDS.index(bad.old)].count("\n") + 1
    found = faults(text)
    assert [(fault.line, fault.path) for fault in found] == [(expected, bad.path)], found
    assert bad.message in found[0].message
    if bad.suggestion:
        assert found[0].suggestion == bad.suggestion


def test_the_document_of_all_kinds_is_good() -> None:
    """What the edits start from has no fault of its own."""
    assert faults(KINDS) == ()


def test_a_meter_with_weights_is_no_source() -> None:
    """Weights are one step deep, so that they make no circle."""
    text = changed("jobs: {aggregation: count}", "jobs: {weights: {credits: 1}}", KINDS)
    (fault,) = faults(text)
    assert (fault.path, fault.line) == ("meters.jobs.weights.credits", 5)
    assert "credits has weights itself" in fault.message
    circle = changed("image: {}", "image: {weights: {credits: 1}}", KINDS)
    assert {fault.path for fault in faults(circle)} == {
        "meters.image.weights.credits",
        "meters.credits.weights.image",
    }


@pytest.mark.parametrize("aggregation", ["max", "min"])
def test_only_meters_that_add_up_are_weighed(aggregation: str) -> None:
    """Neither a source nor a meter with weights may take the largest or the smallest."""
    text = changed("image: {}", f"image: {{aggregation: {aggregation}}}", KINDS)
    assert [fault.path for fault in faults(text)] == [
        "meters.credits.weights.image",
        "plans.all.limits[6].meter",
    ]
    text = changed("    weights:\n", f"    aggregation: {aggregation}\n    weights:\n", KINDS)
    assert {fault.path for fault in faults(text)} == {
        "meters.credits.weights",
        "plans.all.limits[2].meter",
    }


def test_a_rate_card_is_bounded() -> None:
    """64 meters and 1,000 values pass, one more does not."""
    for count, path in ((64, None), (65, f"{CREDITS}")):
        sources = "".join(f"  s{n}: {{}}\n" for n in range(count))
        weights = "".join(f"      s{n}: 1\n" for n in range(count))
        start, end = KINDS.index("      search: 5"), KINDS.index("plans:\n")
        text = (KINDS[:start] + weights + KINDS[end:]).replace(
            "meters:\n", f"meters:\n{sources}", 1
        )
        assert [fault.path for fault in faults(text)] == ([path] if path else [])
    for count, path in ((1_000, None), (1_001, f"{CREDITS}.image.values")):
        values = ", ".join(f"v{n}: 1" for n in range(count))
        text = changed('{hd: 20, "4K ultra": 40}', f"{{{values}}}", KINDS)
        assert [fault.path for fault in faults(text)] == ([path] if path else [])


def test_a_second_and_a_leap_year_are_the_bounds_of_a_trailing_time() -> None:
    """Both ends are taken."""
    for duration in ("1s", "366d"):
        assert faults(changed("duration: 24h", f"duration: {duration}", KINDS)) == ()
