"""Which rule a descriptor meets, what it makes of it, and what a document may say of Envoy."""

import json
from typing import Any

import pytest

from tallygate.adapters.catalog.document import parse
from tallygate.adapters.catalog_codec import catalog_from_json, catalog_to_json
from tallygate.domain.catalog import Catalog
from tallygate.domain.catalog_diff import diff
from tallygate.domain.envoy import EntryMatch, Given, RateRule
from tallygate.domain.envoy_match import Descriptor, RuleTree, compiled, shortened, wanted
from tallygate.domain.errors import CatalogInvalid, InvalidField
from tallygate.domain.ids import MeterName
from tests.envoy.world import catalog

METER = MeterName("requests")
WHOLE: dict[str, Any] = {
    "domains": {
        "edge": {
            "charge": "each",
            "headers": "legacy",
            "metadata": True,
            "on_outage": "error",
            "rules": [
                {
                    "match": [{"key": "tenant"}, {"key": "path", "like": "/v1/*"}],
                    "tenant": {"entry": "tenant"},
                    "meter": "requests",
                    "dimensions": {"path": {"entry": "path"}, "side": "edge"},
                    "name": "by-path",
                },
                {
                    "match": [{"key": "k"}, {"key": "k", "name": "second", "value": "9"}],
                    "tenant": {"entries": ["k", "second"]},
                    "meter": "requests",
                    "amount": {"entry": "k"},
                    "shadow": True,
                    "replaces": ["by-path"],
                },
                {"match": [{"key": "internal"}], "pass": True},
            ],
        }
    },
    "access_logs": [
        {
            "tenant": {"metadata": ["jwt", "claims", "org"]},
            "meters": {"requests": "one", "egress_bytes": "response_bytes"},
            "kind": "http",
            "where": {"status": ["2*", "304"], "cluster": "app"},
            "dimensions": {"route": {"field": "route"}, "side": "edge"},
        },
        {"tenant": "nobody", "meters": {"egress_bytes": "sent_bytes"}},
    ],
}


def document(envoy: object) -> Catalog:
    """Return a catalog that says this of Envoy."""
    return parse(json.dumps(catalog(envoy=envoy))).catalog


def rule(*entries: str, **fields: object) -> RateRule:
    """Return a rule: an entry is `key`, `key=value` or `key~pattern`."""
    match = []
    for each in entries:
        key, mark, value = each.partition("~") if "~" in each else each.partition("=")
        match.append(
            EntryMatch(key, pattern=value) if mark == "~" else EntryMatch(key, value=value)
        )
    given = {"tenant": Given(text="t"), "meter": METER, **fields}
    return RateRule(tuple(match), **given)  # type: ignore[arg-type]


def asked(*entries: str, hits: int = 1) -> Descriptor:
    """Return a descriptor of `key=value` entries."""
    pairs = [each.partition("=") for each in entries]
    return Descriptor(tuple((key, value) for key, _, value in pairs), hits)


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        (("path=/a",), "path=/a"),
        (("path=/api/x",), "path~/api/*"),
        (("path=/api/x/y",), "path~/api/*"),
        (("path=/b",), "path"),
        (("path=/a", "user=u"), "path=/a,user"),
        # The very value was chosen: what follows less special ones is not looked at.
        (("path=/a", "other=u"), None),
        (("path=/b", "other=u"), "path,other"),
        (("path=/api/x", "other=u"), None),
        (("user=u",), None),
        (("path=/a", "user=u", "more=1"), None),
    ],
)
def test_most_special_first(entries: tuple[str, ...], found: str | None) -> None:
    """A value comes before patterns, in their order, and these before any; never back again."""
    rules = [
        rule("path"),
        rule("path~/api/*"),
        rule("path~/api/x/*"),
        rule("path=/a"),
        rule("path=/a", "user"),
        rule("path", "other"),
    ]
    met = RuleTree(rules).find(asked(*entries))
    assert (met.key if met else None) == found


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("a*", "a", True),
        ("*", "", True),
        ("/api/*/x", "/api/1/x", True),
        ("/api/*/x", "/api/x", False),
        ("/a/*/b/*/c", "/a/1/b/2/c", True),
        ("/a/*/b/*/c", "/a/1/b/c", False),
        ("a.c*", "abc", False),
        ("*ab*ab", "abab", True),
        ("*ab*ab", "ab", False),
        ("a*", "a\nb", True),
    ],
)
def test_patterns(pattern: str, value: str, matches: bool) -> None:
    """A star stands for any characters, also none, and everything else for itself."""
    assert bool(compiled(pattern).fullmatch(value)) is matches


def test_patterns_are_quick() -> None:
    """A long value that does not match is refused in a moment, whatever the pattern."""
    assert not compiled("*a" * 30 + "*b").fullmatch("a" * 20_000)


def test_replaced() -> None:
    """A rule that names another takes its place where one call meets both."""
    specific, general = rule("user", name="general"), rule("route", replaces=("general",))
    tree = RuleTree([specific, general])
    assert tree.rules_of([asked("user=u"), asked("route=r")]) == [None, general]
    assert tree.rules_of([asked("user=u")]) == [specific]


def test_wanted() -> None:
    """Tenant, units and dimensions are the entries' values; several are joined, never alike."""
    made = rule(
        "a",
        "b",
        tenant=Given(entries=("a",)),
        amount="b",
        dimensions=(("both", Given(entries=("a", "b"))), ("fixed", Given(text="x"))),
    )
    found = wanted(made, asked("a=acme|1", "b=7"), "descriptors[0]")
    assert (found.tenant_id, found.item.amount) == ("acme|1", 7)
    assert found.item.dimensions == {"both": "acme%7C1|7", "fixed": "x"}
    assert wanted(made, asked("a=acme", "b=7", hits=0), "d").item.amount == 0


@pytest.mark.parametrize(
    ("entries", "field"),
    [
        (("a=", "b=1"), "d.entries"),
        (("a=x y", "b=1"), "d.entries"),
        (("a=x", "b=1.5"), "d.entries['b']"),
        (("a=x", "b=-1"), "d.entries['b']"),
        (("a=x", "b=9999999999999999"), "d.hits_addend"),
    ],
)
def test_unreadable(entries: tuple[str, ...], field: str) -> None:
    """A value that cannot be a tenant or a number is a fault of its entry."""
    made = rule("a", "b", tenant=Given(entries=("a",)), amount="b")
    with pytest.raises(InvalidField) as caught:
        wanted(made, asked(*entries), "d")
    assert caught.value.field == field


def test_shortened() -> None:
    """What is longer than a dimension may be keeps its beginning, and is told from all others."""
    long = "x" * 300
    assert shortened("short") == "short"
    assert len(shortened(long)) <= 256
    assert shortened(long).startswith("xxx")
    assert shortened(long) != shortened(long + "y")
    assert "\0" not in shortened("a\0b")


def test_whole_document() -> None:
    """All that may be said of Envoy is read, kept in the compiled catalog, and told as changes."""
    found = document(WHOLE)
    assert catalog_from_json(catalog_to_json(found)) == found
    domain = found.envoy.domains["edge"]
    assert domain.rules[1].tenant == Given(entries=("k", "second"))
    assert domain.metadata
    plain = document({})
    assert "envoy" not in catalog_to_json(plain).decode()
    told = {change.path for change in diff(plain, found)}
    assert {"envoy.domains.edge", "envoy.access_logs"} <= told
    assert list(diff(found, found)) == []


def test_changed_rules_are_told() -> None:
    """A change of one rule is told as that rule's, and another order as such."""
    rules = WHOLE["domains"]["edge"]["rules"]
    changed = [{**rules[0], "dimensions": {}}, *rules[1:]]
    edge = WHOLE["domains"]["edge"]
    other = document({"domains": {"edge": {**edge, "rules": changed}}})
    paths = [change.path for change in diff(document({"domains": WHOLE["domains"]}), other)]
    assert paths == ["envoy.domains.edge.rules.tenant,path~/v1/*.dimensions"]
    turned = {**edge, "rules": rules[::-1]}
    told = [*diff(document(WHOLE), document({**WHOLE, "domains": {"edge": turned}}))]
    assert [(each.path, each.after) for each in told] == [
        ("envoy.domains.edge.rules", "in another order")
    ]


@pytest.mark.parametrize(
    ("rules", "path", "message"),
    [
        ([{"meter": "requests", "tenant": "t"}], ".match", "is required"),
        ([{"match": [{"key": "a"}]}], ".meter", "is required"),
        ([{"match": [{"key": "a"}], "meter": "requests"}], ".tenant", "is required"),
        (
            [{"match": [{"key": "a"}], "meter": "request", "tenant": "t"}],
            ".meter",
            "there is no meter 'request'",
        ),
        (
            [{"match": [{"key": "a"}], "meter": "requests", "tenant": {"entry": "b"}}],
            ".tenant",
            "there is no entry 'b'",
        ),
        (
            [{"match": [{"key": "a"}], "meter": "requests", "tenant": "two words"}],
            ".tenant",
            "must be printable",
        ),
        (
            [{"match": [{"key": "a"}, {"key": "a"}], "meter": "requests", "tenant": "t"}],
            ".match[1]",
            "a is there twice",
        ),
        (
            [{"match": [{"key": "a", "value": "x", "like": "y"}], "pass": True}],
            ".match[0]",
            "one of value and like",
        ),
        (
            [{"match": [{"key": "a"}], "pass": True, "tenant": "t"}],
            "",
            "passes, as it has no meter",
        ),
        (
            [{"match": [{"key": "a"}], "pass": True, "replaces": ["nobody"]}],
            ".replaces",
            "there is no rule of that name",
        ),
        (
            [{"match": [{"key": "a"}], "meter": "requests", "tenant": "t", "amount": "3"}],
            ".amount",
            "must be hits",
        ),
        (
            [{"match": [{"kee": "a"}], "pass": True}],
            ".match[0].kee",
            "there is no 'kee' here",
        ),
    ],
)
def test_rule_faults(rules: object, path: str, message: str) -> None:
    """A rule that cannot work is refused with its line and path."""
    with pytest.raises(CatalogInvalid) as caught:
        document({"domains": {"edge": {"rules": rules}}})
    fault = next(
        each
        for each in caught.value.faults
        if each.path == f"envoy.domains.edge.rules[0]{path}" and message in each.message
    )
    assert fault.line


def test_rules_alike() -> None:
    """Two rules of a domain for the same entries are a fault of the second."""
    rules = [{"match": [{"key": "a"}], "pass": True} for _ in range(2)]
    with pytest.raises(CatalogInvalid) as caught:
        document({"domains": {"edge": {"rules": rules}}})
    (fault,) = caught.value.faults
    assert fault.path == "envoy.domains.edge.rules[1].match"
    assert fault.message == "is that of rules[0] already"


@pytest.mark.parametrize(
    ("log", "path"),
    [
        ({"meters": {"requests": "one"}}, ".tenant"),
        ({"tenant": "t"}, ".meters"),
        ({"tenant": "t", "meters": {"nothing": "one"}}, ".meters.nothing"),
        ({"tenant": "t", "meters": {"requests": "bytes"}}, ".meters.requests"),
        ({"tenant": {"header": "x"}, "meters": {"requests": "one"}}, ".tenant.header"),
        ({"tenant": {"field": "claster"}, "meters": {"requests": "one"}}, ".tenant.field"),
        ({"tenant": {"metadata": "jwt"}, "meters": {"requests": "one"}}, ".tenant.metadata"),
        ({"tenant": "t", "meters": {"requests": "one"}, "where": {"color": "red"}}, ".where.color"),
        ({"tenant": "t", "meters": {"requests": "one"}, "kind": "udp"}, ".kind"),
    ],
)
def test_log_faults(log: object, path: str) -> None:
    """A rule for access logs that cannot work is refused with its line and path."""
    with pytest.raises(CatalogInvalid) as caught:
        document({"access_logs": [log]})
    paths = {each.path: each.line for each in caught.value.faults}
    assert paths.get(f"envoy.access_logs[0]{path}")
