"""Any limit that a document can say: it is refused with a fault, or it can be bound."""

from hypothesis import given
from hypothesis import strategies as st

from tallygate.adapters.catalog.document import parse
from tallygate.domain.catalog import LimitKind, OnExceed
from tallygate.domain.decision import Charge
from tallygate.domain.errors import CatalogInvalid
from tallygate.domain.event import NO_CONTEXT
from tallygate.domain.ids import AMOUNT_MAX
from tallygate.domain.limit_rules import SUITS
from tallygate.domain.request import Item
from tallygate.domain.window import Period
from tallygate.flow.bind import Binder

NOW_US = 1_790_000_000_000_000
DOCUMENT = """\
version: 1
meters:
  requests: {{}}
  credits: {{weights: {{requests: {weight}}}}}
plans:
  all: {{limits: [{limit}]}}
tenants:
  acme: {{plan: all, overrides: {{a: {override}}}}}
"""

numbers = st.sampled_from(["0", "1", "7", "60", "-1", "1_000", "unlimited", str(AMOUNT_MAX), "x"])
durations = st.sampled_from(["1s", "90m", "24h", "366d", "367d", "0s", "1"])
lists = st.lists(numbers, max_size=3).map(lambda found: f"[{', '.join(found)}]")
ratios = st.lists(st.sampled_from(["0.5", "0.8", "1", "2"]), max_size=3).map(
    lambda found: f"[{', '.join(found)}]"
)
wheres = st.sampled_from(["{m: a}", "{m: [a, b]}", "{m: []}", "{a b: c}", "{}", "a", "[a]"])
outages = st.sampled_from(["refuse", "allow", "local_budget(5)", "local_budget(0)", "nope"])
fields: dict[str, st.SearchStrategy[str]] = {
    "period": st.sampled_from([*Period, "fortnight"]),
    "duration": durations,
    "limit": numbers,
    "burst": numbers,
    "on_exceed": st.sampled_from([*OnExceed, "panic"]),
    "warn_at": ratios,
    "overdraft": numbers,
    "low_at": lists,
    "per": st.sampled_from(["user", "subject_id", "a=b", "[a]"]),
    "where": wheres,
    "on_outage": outages,
    "exact": st.sampled_from(["true", "false", "maybe"]),
}


def suited(kind: LimitKind) -> st.SearchStrategy[dict[str, str]]:
    """Return limits of a kind, with fields that suit it; their values need not be good."""
    suits = {name: each for name, each in fields.items() if kind in SUITS.get(name, LimitKind)}
    always: dict[str, st.SearchStrategy[str]] = {
        "id": st.just("a"),
        "kind": st.just(kind.value),
        "meter": meters,
    }
    for name in ("period", "duration", "limit"):
        if name in suits:
            always[name] = suits.pop(name)
    return st.fixed_dictionaries(always, optional=suits)


meters = st.sampled_from(["requests", "credits"])
kinds = st.sampled_from(LimitKind)
anything = st.fixed_dictionaries(
    {"id": st.just("a"), "meter": meters, "kind": kinds.map(str)}, optional=fields
)
limits = st.one_of(kinds.flatmap(suited), anything)
overrides = st.fixed_dictionaries(
    {"limit": numbers},
    optional={
        "burst": numbers,
        "expires": st.sampled_from(["2020-01-01", "2030-01-01", "soon"]),
    },
)


def flow(parts: dict[str, str]) -> str:
    """Return a mapping as YAML."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in parts.items()) + "}"


def bound(text: str) -> tuple[Charge, ...]:
    """Return the charges of one call under a document; none where it is refused."""
    try:
        parsed = parse(text)
    except CatalogInvalid:
        return ()
    items = [Item(name, int(name == "requests"), {"m": "a"}) for name in parsed.catalog.meters]
    return Binder().charges(parsed.catalog, parsed.tenants, items, NO_CONTEXT, NOW_US)


@given(limits, numbers)
def test_a_limit_without_faults_can_be_bound(limit: dict[str, str], weight: str) -> None:
    """Rules that let a limit pass that cannot be counted would fail every call that meets it."""
    text = DOCUMENT.format(limit=flow(limit), weight=weight, override="{limit: 1}")
    plain = text.replace(", overrides: {a: {limit: 1}}", "")
    for charge in bound(plain):
        assert 0 <= charge.limit <= AMOUNT_MAX
        assert charge.amount <= AMOUNT_MAX


@given(limits, overrides)
def test_an_override_without_faults_can_be_bound(
    limit: dict[str, str], override: dict[str, str]
) -> None:
    """The same holds of the numbers that replace a plan's."""
    text = DOCUMENT.format(limit=flow(limit), weight="5", override=flow(override))
    for charge in bound(text):
        assert 0 <= charge.limit <= AMOUNT_MAX
