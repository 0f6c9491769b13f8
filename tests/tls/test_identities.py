"""The rules for callers: what a pattern matches, what a rule allows, what a document may say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.adapters.catalog.identities import parse_identities
from tallygate.domain.identity import (
    ANY,
    LOCAL,
    NO_METER,
    NOBODY,
    Identities,
    IdentitiesInvalid,
    Refused,
    Rule,
    Service,
    names_of,
    pattern_fault,
)

SHOP = "spiffe://example.org/ns/shop/sa/checkout"
SEGMENTS = st.lists(st.from_regex(r"[a-zA-Z0-9._-]{1,8}", fullmatch=True), max_size=4)


def rule(pattern: str, *tenants: str, meters: tuple[str, ...] = (ANY,)) -> Rule:
    """Return a rule for every service."""
    return Rule(pattern, frozenset(Service), names_of(tenants), names_of(meters))


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        (SHOP, True),
        ("spiffe://example.org/ns/*/sa/checkout", True),
        ("spiffe://example.org/*/*/*/*", True),
        ("spiffe://example.org/ns/*/sa", False),
        ("spiffe://example.org/ns/*", False),
        ("spiffe://example.org/*/*/*/*/*", False),
        ("spiffe://example.com/ns/*/sa/checkout", False),
        (f"{SHOP}/", False),
        (LOCAL, False),
    ],
)
def test_star_is_one_segment(pattern: str, matches: bool) -> None:
    """A star stands for one whole segment: no more, no fewer, and no trust domain."""
    assert rule(pattern, "acme").matches(SHOP) is matches


@given(SEGMENTS, st.data())
def test_id_matches_its_pattern_and_no_longer_one(segments: list[str], data: st.DataObject) -> None:
    """However many of its segments are stars, an id matches; with one more segment it does not."""
    starred = [data.draw(st.sampled_from([each, ANY])) for each in segments]
    made = rule("/".join(["spiffe://example.org", *starred]), "acme")
    identity = "/".join(["spiffe://example.org", *segments])
    assert made.matches(identity)
    assert not made.matches(f"{identity}/more")
    assert not made.matches(identity.replace("example.org", "example.com"))


def test_one_rule_has_to_allow_all_of_it() -> None:
    """What one rule allows for one tenant, and another for another, is not mixed."""
    rules = Identities(
        (rule(SHOP, "acme", meters=("tokens",)), rule(SHOP, "team-*", meters=("requests",)))
    )
    asked = [
        rules.refused(SHOP, Service.QUOTA, tenant, meter)
        for tenant in ("acme", "team-a", "team-", "team", "acmes", "")
        for meter in ("tokens", "requests", NO_METER, ANY)
    ]
    no, gone = Refused.METER, [Refused.TENANT] * 4
    assert asked == [None, no, None, no, no, None, None, no, no, None, None, no, *gone * 3]


def test_nobody_is_allowed_nothing() -> None:
    """Who has proven nothing is refused by whatever rules there are, and so is who has none."""
    rules = Identities((rule(SHOP, ANY), rule(LOCAL, "local")))
    assert rules.refused(NOBODY, Service.QUOTA, "acme", "m") is Refused.NOBODY
    assert rules.refused("spiffe://example.org/x", Service.QUOTA, "a", "m") is Refused.IDENTITY
    assert rules.refused(LOCAL, Service.QUOTA, "acme", "m") is Refused.TENANT
    assert rules.refused(SHOP, Service.QUOTA, ANY, ANY) is None
    only = Identities((Rule(SHOP, frozenset({Service.USAGE}), names_of((ANY,))),))
    assert only.refused(SHOP, Service.QUOTA, "acme", "m") is Refused.SERVICE


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("https://example.org/x", "must be 'unix' or begin with spiffe://"),
        ("spiffe://*/x", "needs one trust domain"),
        ("spiffe:///x", "has no trust domain"),
        ("spiffe://Example.org/x", "has no trust domain"),
        ("spiffe://example.org/ns/shop-*", "stands for a whole segment"),
        ("spiffe://example.org/**", "stands for a whole segment"),
        ("spiffe://example.org/", "'' cannot be a segment"),
        ("spiffe://example.org/a/../b", "'..' cannot be a segment"),
        ("spiffe://example.org/a b", "'a b' cannot be a segment"),
        (f"spiffe://example.org/{'a' * 2048}", "is longer than"),
    ],
)
def test_bad_pattern_says_what_is_wrong(pattern: str, fault: str) -> None:
    """A pattern that could never match, or could match too much, is refused with the reason."""
    assert fault in (pattern_fault(pattern) or "")


def test_document_is_read() -> None:
    """Names, prefixes and services are as written; without services or meters, all of them."""
    rules = parse_identities(
        f"version: 1\nidentities:\n- id: {SHOP}\n  tenants: [acme, 'team-*']\n"
        "- id: unix\n  services: [usage]\n  tenants: ['*']\n  meters: [requests, 'llm.*']\n"
    ).rules
    assert rules == (
        rule(SHOP, "acme", "team-*"),
        Rule(LOCAL, frozenset({Service.USAGE}), names_of("*"), names_of(["requests", "llm.*"])),
    )


BAD = """\
version: 2
identities:
  - id: spiffe://*/a
    tenants: [a b, '*x', acme]
    metres: [x]
  - tenants: []
    meters: ['*', UP]
  - id: unix
    tenants: acme
    services: [qouta]
  - just a text
"""


def test_document_tells_all_its_faults_with_their_lines() -> None:
    """Every fault has its line and path, and a misspelled word what was probably meant."""
    with pytest.raises(IdentitiesInvalid) as told:
        parse_identities(BAD)
    found = [(each.line, each.path, each.suggestion) for each in told.value.faults]
    assert found == [
        (1, "version", ""),
        (3, "identities[0].id", ""),
        (4, "identities[0].tenants[0]", ""),
        (4, "identities[0].tenants[1]", ""),
        (5, "identities[0].metres", "meters"),
        (6, "identities[1].id", ""),
        (6, "identities[1].tenants", ""),
        (7, "identities[1].meters[1]", ""),
        (9, "identities[2].tenants", ""),
        (10, "identities[2].services[0]", "quota"),
        (11, "identities[3]", ""),
        (11, "identities[3].id", ""),
        (11, "identities[3].tenants", ""),
    ]


@pytest.mark.parametrize(
    "text", ["", "version: 1\n", "version: 1\nidentities: []\n", "a: [", "- &a"]
)
def test_document_without_rules_is_refused(text: str) -> None:
    """What would let nobody in is more likely a mistake than anybody's wish."""
    with pytest.raises(IdentitiesInvalid):
        parse_identities(text)
