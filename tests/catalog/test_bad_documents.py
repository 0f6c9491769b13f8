"""Bad documents: each fault with its line, its path, what is wrong, and a guess."""

from dataclasses import dataclass

import pytest

from tallygate.adapters.catalog.document import parse
from tallygate.domain.errors import CatalogInvalid, Fault
from tests.catalog.documents import GOOD, changed, faults


@dataclass(frozen=True, slots=True)
class Bad:
    """One edit of the good document: its only fault stands on the line that holds `at`."""

    old: str
    new: str
    at: str
    path: str
    message: str
    suggestion: str = ""


RATE = "{id: per-minute, meter: requests, kind: rate, period: minute, limit: 60, burst: 20}"
FREE = "plans.free.limits[0]"
SOFT = "plans.pro.limits[0]"
ACME = "tenants.acme"
HOOKS = "destinations.hooks"
URL = "url: https://example.com/hooks"


def rate(**parts: str) -> str:
    """Return the rate limit's line with some of its parts changed, or left out for ''."""
    found = {"id": "per-minute", "meter": "requests", "kind": "rate", "period": "minute"}
    found |= {"limit": "60", "burst": "20"} | parts
    return "{" + ", ".join(f"{key}: {value}" for key, value in found.items() if value) + "}"


def of_rate(path: str, message: str, suggestion: str = "", **parts: str) -> Bad:
    """Return a bad rate limit."""
    return Bad(RATE, rate(**parts), rate(**parts), f"{FREE}.{path}", message, suggestion)


def shaped(meter: str, path: str, message: str, suggestion: str = "") -> Bad:
    """Return a bad meter that no limit is of."""
    at = f"meters.x.{path or 'unique_by'}"
    return Bad(
        "unit: request}", f"unit: request}}\n  x: {meter}", f"x: {meter}", at, message, suggestion
    )


def line(old: str, new: str, path: str, message: str, suggestion: str = "") -> Bad:
    """Return an edit whose fault stands where it is made."""
    return Bad(old, new, new, path, message, suggestion)


ROOTS = [
    line("version: 1", "version: 2", "version", "must be 1"),
    line("tenants:\n", "tennants:\n", "tennants", "there is no 'tennants'", "tenants"),
    line("default_plan: free", "default_plan: fre", "default_plan", "there is no plan", "free"),
    line("default_plan: free", "default_plan:", "default_plan", "is empty"),
    line("default_plan: free", '"version": 1', "version", "is there twice, first on line 1"),
]
METERS = [
    line(
        "aggregation: sum", "aggregation: sun", "meters.egress_bytes.aggregation", "must be", "sum"
    ),
    shaped("{aggregation: unique}", "", "is required"),
    shaped("{aggregation: uniqe, unit: a}", "aggregation", "must be", "unique"),
    shaped("{unit: a, percentile: 95}", "percentile", "of aggregation percentile"),
    shaped("{unit: a, unique_by: b}", "unique_by", "of aggregation unique"),
    shaped("{aggregation: unique, unique_by: a b}", "unique_by", "is not a name of up to 64"),
    *(
        shaped(f"{{aggregation: percentile, percentile: {value}}}", "percentile", "must be above 0")
        for value in ("0", "101", "-5", "1e1", "99.99999", "p95")
    ),
    line("unit: request}", "late_policy: corect}", "meters.requests.late_policy", "be", "correct"),
    line("unit: request}", "group_by: a}", "meters.requests.group_by", "must be a list"),
    line("unit: request}", "group_by: [a, a]}", "meters.requests.group_by[1]", "a is there twice"),
    line("unit: request}", "group_by: [a=b]}", "meters.requests.group_by[0]", "is not a name of"),
    line("unit: request}", "group_by: [a, b, c, d, e]}", "meters.requests.group_by", "more than 4"),
    line("unit: request}", "grup_by: [a]}", "meters.requests.grup_by", "there is no", "group_by"),
    line("unit: request}", "unti: request}", "meters.requests.unti", "there is no 'unti'", "unit"),
    line("unit: request}", 'unit: "a\\0b"}', "meters.requests.unit", "cannot be printed"),
    line("unit: request}", "unit: [a]}", "meters.requests.unit", "must be a text"),
    line("unit: byte", "unit: " + "b" * 257, "meters.egress_bytes.unit", "at most 256"),
    line("12h", "12 hours", "meters.egress_bytes.late_horizon", "such as 35d"),
    line("12h", "0d", "meters.egress_bytes.late_horizon", "above 0"),
    line("12h", "99999999d", "meters.egress_bytes.late_horizon", "at most 3660d"),
]
LIMITS = [
    of_rate("id", "is required", id=""),
    of_rate("meter", "is required", meter=""),
    of_rate("meter", "there is no meter 'request'", "requests", meter="request"),
    of_rate("kind", "must be one of window, sliding", "rate", kind="rat"),
    of_rate("period", "must be one of second, minute", "minute", period="minutes"),
    of_rate("period", "of a rate must be one of", period="month"),
    of_rate("period", "of a rate must be one of", period="week"),
    of_rate("limit", "is required", limit=""),
    of_rate("limit", "of a rate must be at least 1", limit="0"),
    of_rate("limit", "must be a whole number, not 'unlimitd'", limit="unlimitd"),
    of_rate("limit", "must be a whole number, not '1e4'", limit="1e4"),
    of_rate("limit", "must be a whole number, not '1.0'", limit="1.0"),
    of_rate("limit", "must be a whole number, not '010'", limit="010"),
    of_rate("limit", "must be a whole number, not '0x10'", limit="0x10"),
    of_rate("limit", "must be a whole number, not '1_'", limit="1_"),
    of_rate("limit", "must be a whole number, not 'yes'", limit="yes"),
    of_rate("limit", "must be a whole number, not '١٢'", limit="١٢"),
    of_rate("limit", "without quotes", limit='"60"'),
    of_rate("limit", "must be at most 9007199254740991", limit="9007199254740992"),
    of_rate("limit", "must be a text", limit="[60]"),
    of_rate("burst", "must be at least 1", burst="0"),
    of_rate("burst", "must be at least 1", burst="-5"),
    of_rate("burst", "too large to be counted exactly", limit="7", burst="9007199254740991"),
    of_rate("brust", "there is no 'brust'", "burst", brust="20", burst=""),
    of_rate("warn_at", "is for limits of kind window", warn_at="[0.5]"),
    of_rate("on_exceed", "must be one of refuse, allow", "refuse", on_exceed="refused"),
    line("limit: 5_000}", "limit: 5_000, burst: 3}", "plans.free.limits[1].burst", "kind rate"),
    line("limit: 5_000}", "limit: -1}", "plans.free.limits[1].limit", "must be from 0"),
    line("[0.8, 0.95, 1]", "[0.8, 0.8]", f"{SOFT}.warn_at", "must rise"),
    line("[0.8, 0.95, 1]", "[0.95, 0.8]", f"{SOFT}.warn_at", "must rise"),
    line("[0.8, 0.95, 1]", "[0.8, 1.5]", f"{SOFT}.warn_at", "at most 1"),
    line("[0.8, 0.95, 1]", "[0, 1]", f"{SOFT}.warn_at", "not above 0"),
    line("[0.8, 0.95, 1]", "[0.1234567]", f"{SOFT}.warn_at[0]", "at most 6 decimals"),
    line("[0.8, 0.95, 1]", "[80%]", f"{SOFT}.warn_at[0]", "must be a ratio"),
    line("[0.8, 0.95, 1]", "[nan]", f"{SOFT}.warn_at[0]", "must be a ratio"),
    line("[0.8, 0.95, 1]", "0.8", f"{SOFT}.warn_at", "must be a list"),
    line(
        "[0.8, 0.95, 1]",
        "[.1, .2, .3, .4, .5, .6, .7, .8, .9]",
        f"{SOFT}.warn_at",
        "more than 8 ratios",
    ),
    line(
        "id: egress, meter: egress_bytes",
        "id: per-minute, meter: egress_bytes",
        "plans.free.limits[1].id",
        "twice",
    ),
    line("id: egress, meter", "id: Egress, meter", "plans.free.limits[1].id", "is not a name"),
    Bad(
        "aggregation: count",
        "aggregation: max",
        RATE,
        f"{FREE}.meter",
        "takes the max",
    ),
    Bad(
        "        meter: egress_bytes\n",
        "        meter: requests\n",
        "        meter: requests",
        f"{SOFT}.meter",
        "is requests, but egress of plan free limits egress_bytes",
    ),
    line("description: >", "prices: >", "plans.pro.prices", "must be a list"),
]
TENANTS = [
    line("org: {plan: pro}", "org: {plan: pros}", "tenants.org.plan", "there is no plan", "pro"),
    line("org: {plan: pro}", "org: {}", "tenants.org.plan", "is required"),
    line("org: {plan: pro}", "org: pro", "tenants.org", "must be a mapping"),
    line("org: {plan: pro}", "o rg: {plan: pro}", "tenants.o rg", "without spaces"),
    line("org: {plan: pro}", f"{'o' * 129}: {{plan: pro}}", f"tenants.{'o' * 129}", "at most 128"),
    line("2024-01-31", "31.01.2024", f"{ACME}.anchor", "as in ISO 8601"),
    line("2024-01-31", "2024-02-30", f"{ACME}.anchor", "as in ISO 8601"),
    line("2024-01-31", "1812-01-31", f"{ACME}.anchor", "from 1970 to 2199"),
    line("Europe/Berlin", "Europe/Bern", f"{ACME}.time_zone", "not an IANA time zone"),
    line("Europe/Berlin", "../etc/passwd", f"{ACME}.time_zone", "not an IANA time zone"),
    line("currency: EUR", "currency: EURO", f"{ACME}.currency", "ISO 4217", "EUR"),
    line("currency: EUR", "currency: eur", f"{ACME}.currency", "ISO 4217", "EUR"),
    line("parent: org", "parent: ogr", f"{ACME}.parent", "there is no tenant 'ogr'", "org"),
    line("parent: org", "parent: acme", f"{ACME}.parent", "makes a circle"),
    line("egress: {limit: 0}", "egres: {limit: 0}", f"{ACME}.overrides.egres", "limit", "egress"),
    line("egress: {limit: 0}", "egress: {}", f"{ACME}.overrides.egress.limit", "is required"),
    line(
        "egress: {limit: 0}",
        "egress: {limit: 1, burst: 2}",
        f"{ACME}.overrides.egress.burst",
        "kind rate",
    ),
    line('"10.0.0.1": {', "acme: {", ACME, "is there twice, first on line"),
]
DESTINATIONS = [
    line("kind: webhook", "kind: webhok", f"{HOOKS}.kind", "must be webhook", "webhook"),
    line("kind: webhook", "kind: kafka", f"{HOOKS}.kind", "kafka is reserved"),
    line(URL, "url: ftp://example.com", f"{HOOKS}.url", "must be a URL such as"),
    line(URL, "url: https:///hooks", f"{HOOKS}.url", "must be a URL such as"),
    line(URL, "url: http://[::1/", f"{HOOKS}.url", "is not a URL"),
    line(URL, "url: https://me:hunter2@example.com", f"{HOOKS}.url", "no user or password"),
    line("[usage.batch]", "[usage.batches]", f"{HOOKS}.types[0]", "must be one of", "usage.batch"),
    line("[usage.batch]", "[]", f"{HOOKS}.types", "at least one"),
    line("[usage.batch]", "[usage.batch, usage.batch]", f"{HOOKS}.types[1]", "is there twice"),
    line("secret: {env: HOOKS_SECRET}", "secret: whsec_hunter2", f"{HOOKS}.secret", "never itself"),
    line("{env: HOOKS_SECRET}", "{env: A, file: /b}", f"{HOOKS}.secret", "one of them"),
    line("{env: HOOKS_SECRET}", "{env: A-B}", f"{HOOKS}.secret.env", "environment variable"),
    line("{env: HOOKS_SECRET}", "{value: x}", f"{HOOKS}.secret.value", "there is no 'value'"),
]
BAD = ROOTS + METERS + LIMITS + TENANTS + DESTINATIONS


@pytest.mark.parametrize("bad", BAD, ids=[f"{bad.path}:{bad.message}"[:60] for bad in BAD])
def test_each_fault_is_told_with_its_place(bad: Bad) -> None:
    """A wrong value is told on its line, by its path, with what was meant."""
    text = changed(bad.old, bad.new)
    expected = text[: text.index(bad.at)].count("\n") + 1
    found = [fault for fault in faults(text) if bad.message in fault.message]
    assert [(fault.line, fault.path) for fault in found] == [(expected, bad.path)], faults(text)
    if bad.suggestion:
        assert found[0].suggestion == bad.suggestion


@pytest.mark.parametrize("bad", BAD, ids=[f"{bad.path}:{bad.message}"[:60] for bad in BAD])
def test_no_fault_comes_of_another(bad: Bad) -> None:
    """One mistake gives one fault, but for a name that others refer to."""
    renames = ("tennants", "tenants.o", "plans.free.limits[1].id", f"{HOOKS}.secret.value")
    found = faults(changed(bad.old, bad.new))
    assert len(found) == 1 or bad.path.startswith(renames) or "twice" in bad.message, found


UNREADABLE = [
    ("", 1, "must be 1"),
    ("- a\n- b\n", 1, "must be a mapping"),
    ("version: [1\n", 2, "is not YAML"),
    ("version: 1\nmeters: &m {}\nplans: *m\n", 3, "aliases are not taken"),
    ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", 2, "aliases are not taken"),
    ("version: 1\nmeters: !!python/object/apply:os.system [id]\n", 2, "tags are not taken"),
    ("version: 1\nplans: " + "[" * 50_000, 2, "nests deeper than 32"),
    ("version: 1\n---\nversion: 1\n", 2, "a second document"),
    ("version: 1\nplans: \x00\n", 2, "not allowed"),
    ("version: 1\nplans: \ud800\n", 0, "lone surrogate"),
    ("version: 1\nmeters: {? [a] : {}}\n", 2, "not a printable text"),
    ("version: 1\n" + "#" * 17 * 1024 * 1024, 0, "is larger than"),
]


@pytest.mark.parametrize(("text", "at", "message"), UNREADABLE, ids=[row[2] for row in UNREADABLE])
def test_what_is_no_document_is_refused(text: str, at: int, message: str) -> None:
    """What is not one bounded YAML mapping is refused with its line."""
    assert any((fault.line, message in fault.message) == (at, True) for fault in faults(text))


def test_every_fault_is_told_at_once() -> None:
    """Faults all over a document come together, by line."""
    text = GOOD
    edits = [("12h", "soon"), ("limit: 60", "limit: many"), ("EUR", "XXQ"), ("webhook", "fax")]
    for old, new in edits:
        text = text.replace(old, new, 1)
    found = faults(text)
    assert [fault.path for fault in found] == [
        "meters.egress_bytes.late_horizon",
        "plans.free.limits[0].limit",
        "tenants.acme.currency",
        "destinations.hooks.kind",
    ]
    assert [fault.line for fault in found] == sorted(fault.line for fault in found)


def test_a_secret_is_never_repeated() -> None:
    """A document that holds a secret is refused without quoting it."""
    for old, new in [
        ("{env: HOOKS_SECRET}", "whsec_hunter2"),
        ("https://example", "https://me:hunter2@example"),
    ]:
        assert "hunter2" not in repr(faults(changed(old, new)))


def test_a_circle_is_refused() -> None:
    """Two tenants cannot be each other's parent."""
    found = faults(changed("org: {plan: pro}", "org: {plan: pro, parent: acme}"))
    assert {fault.path for fault in found} == {"tenants.org.parent", "tenants.acme.parent"}


def lineage_of(length: int, plan: str = "free") -> str:
    """Return a document with a line of tenants, each the parent of the next."""
    lines = [f"  t0: {{plan: {plan}}}"]
    lines += [f"  t{n}: {{plan: {plan}, parent: t{n - 1}}}" for n in range(1, length)]
    return changed("tenants:\n", "tenants:\n" + "\n".join(lines) + "\n")


def test_a_lineage_has_at_most_eight() -> None:
    """Eight tenants in a line pass, nine do not."""
    assert faults(lineage_of(8)) == ()
    (fault,) = faults(lineage_of(9))
    assert fault.path == "tenants.t8.parent"
    assert "more than 8" in fault.message


def test_a_lineage_has_at_most_32_limits() -> None:
    """The limits of a tenant and of all above it are counted together."""
    limits = "".join(
        f"      - {{id: l{n}, meter: requests, kind: window, period: day, limit: 1}}\n"
        for n in range(11)
    )
    extra = f"  wide:\n    limits:\n{limits}"
    text = lineage_of(3, "wide").replace("  pro:\n", f"{extra}  pro:\n", 1)
    (fault,) = faults(text)
    assert (fault.path, "33 limits" in fault.message) == ("tenants.t2.parent", True)


def test_many_faults_are_bounded() -> None:
    """Thousands of faults end in a count, quickly."""
    tenants = "".join(f"  t{n}: {{plan: nope, parent: x{n}}}\n" for n in range(2_000))
    found = faults(changed("tenants:\n", "tenants:\n" + tenants))
    assert len(found) == 1_001
    assert found[-1] == Fault(0, "", "and 3000 more")


def test_the_error_counts_its_faults() -> None:
    """The error's own message says how many there are."""
    with pytest.raises(CatalogInvalid, match=r"1 fault"):
        parse("version: 2\n")
