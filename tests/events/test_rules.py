"""What an event says becomes usage by the catalog's rules, the same each time."""

from decimal import Decimal
from typing import Any

import pytest

from tallygate.adapters.catalog.document import parse
from tallygate.adapters.catalog_codec import catalog_from_json, catalog_to_json
from tallygate.domain.catalog_diff import diff
from tallygate.domain.cloudevent import CloudEvent, Json, event_of, events_of
from tallygate.domain.errors import CatalogInvalid, InvalidField, TooManyItems, UnknownMeter
from tallygate.domain.event_rules import EventReader, at, path_fault
from tallygate.domain.ids import TenantId

DOCUMENT = """
version: 1
meters: {tokens: {}, calls: {aggregation: count}, cents: {}}
ingest:
  unmatched: UNMATCHED
  events:
    - {type: prompt, meter: tokens, value: $.tokens, dimensions: {model: $.model}}
    - {type: prompt, meter: calls}
    - {type: cost, meter: cents, value: "$['total price'].usd", unit: 100}
"""


def reader(unmatched: str = "refuse") -> EventReader:
    """Return a reader by these rules."""
    catalog = parse(DOCUMENT.replace("UNMATCHED", unmatched)).catalog
    return EventReader(catalog.ingest, frozenset(catalog.meters))


def cloud(**changed: Any) -> dict[str, Any]:
    """Return an event as JSON has it."""
    usual = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "app",
        "type": "prompt",
        "subject": "acme",
        "time": "2026-03-01T12:00:00.5Z",
        "data": {"tokens": "7", "model": "small"},
    }
    return {name: value for name, value in {**usual, **changed}.items() if value is not None}


def test_one_event_feeds_every_meter_of_its_type() -> None:
    """Each under an id of its own, made of source, id and meter; a number may be a text."""
    event = event_of(cloud())
    tokens, calls = reader().uses(event) or []
    assert (tokens.meter, tokens.amount, tokens.dimensions) == ("tokens", 7, {"model": "small"})
    assert (calls.meter, calls.amount, calls.dimensions) == ("calls", 1, {})
    assert tokens.event_id == f"{event.digest()}-tokens" != calls.event_id
    assert tokens.time_us == 1_772_366_400_500_000
    assert '"ce_id": "e-1"' in tokens.metadata_json
    assert (reader().uses(event) or [])[0] == tokens


def test_source_and_id_name_an_event_together() -> None:
    """Another source with the same id is another event, however the two are divided."""
    names = [("a", "bc"), ("ab", "c"), ("a:b", "c"), ("", "abc")]
    digests = {CloudEvent(each, source, "t", TenantId("x")).digest() for source, each in names}
    assert len(digests) == len(names)
    assert all(len(each) == 43 for each in digests)


def test_units_scale_exactly() -> None:
    """A price in dollars is cents; a part of a cent is refused by its path."""
    data = {"total price": {"usd": Decimal("12.34")}}
    (cents,) = reader().uses(event_of(cloud(type="cost", data=data))) or []
    assert cents.amount == 1_234
    with pytest.raises(InvalidField, match="no whole number") as caught:
        reader().uses(event_of(cloud(type="cost", data={"total price": {"usd": "0.001"}})))
    assert caught.value.field == "data['total price'].usd"


def test_a_meters_name_is_a_type_of_its_own() -> None:
    """Without a rule the data are ours: amount, dimensions, subject."""
    data = {"amount": 3, "dimensions": {"model": "big", "gone": None}, "subject_id": "ann"}
    (use,) = reader().uses(event_of(cloud(type="tokens", data=data))) or []
    assert (use.amount, use.dimensions, use.subject_id) == (3, {"model": "big"}, "ann")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"data": {"model": "small"}}, "data.tokens"),
        ({"data": {"tokens": -1}}, "data.tokens"),
        ({"data": {"tokens": True}}, "data.tokens"),
        ({"data": {"tokens": "many"}}, "data.tokens"),
        ({"data": {"tokens": 2**53}}, "data.tokens"),
        ({"data": {"tokens": "1e999999"}}, "data.tokens"),
        ({"data": {"tokens": 1, "model": ["a"]}}, "data dimension 'model'"),
        ({"data": {"tokens": 1, "model": "x" * 257}}, "data.dimensions['model']"),
        ({"type": "tokens", "data": 3}, "data"),
        ({"type": "tokens", "data": {"amount": 0}}, "data.amount"),
        ({"type": "other"}, "type"),
        ({"id": None}, "id"),
        ({"source": ""}, "source"),
        ({"subject": "two words"}, "subject"),
        ({"subject": 7}, "subject"),
        ({"specversion": "0.3"}, "specversion"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-02-30T00:00:00Z"}, "time"),
        ({"time": "2026-02-03T00:00:00"}, "time"),
        ({"datacontenttype": "text/xml"}, "datacontenttype"),
        ({"data_base64": "YQ=="}, "data_base64"),
        ({"id": "a\x00b"}, "id"),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], field: str) -> None:
    """Each fault is of the attribute, or of the path, where it is."""
    with pytest.raises((InvalidField, UnknownMeter)) as caught:
        reader().uses(event_of(cloud(**changed)))
    assert caught.value.field == field


def test_nothing_used_is_no_use() -> None:
    """A value of 0 is well and records nothing; another meter of the type counts all the same."""
    (use,) = reader().uses(event_of(cloud(data={"tokens": 0}))) or []
    assert use.meter == "calls"


def test_types_that_nobody_knows_may_be_ignored() -> None:
    """Where the catalog says so they are None, and not a fault."""
    assert reader("ignore").uses(event_of(cloud(type="other"))) is None


def test_a_body_holds_one_event_or_a_list() -> None:
    """A list has 1 to 1,000."""
    assert events_of(cloud()) == [(0, cloud())]
    assert [place for place, _ in events_of([1, 2])] == [0, 1]
    with pytest.raises(InvalidField):
        events_of([])
    with pytest.raises(TooManyItems):
        events_of([1] * 1_001)


def test_paths_lead_into_data() -> None:
    """Names, quoted names and places; what is not there is nothing."""
    data: Json = {"a": [{"b c": 5}]}
    assert at(data, "$.a[0]['b c']") == 5
    assert at(data, "$.a[1]['b c']") is None
    assert at(data, "$") == data
    assert [path_fault(each) == "" for each in ("$.a", "a", "$.a[*]", "$..a")] == [
        True, False, False, False,
    ]  # fmt: skip


def test_rules_are_part_of_the_catalog() -> None:
    """They read back equal, and what changes of them is told."""
    catalog = parse(DOCUMENT.replace("UNMATCHED", "ignore")).catalog
    assert catalog_from_json(catalog_to_json(catalog)) == catalog
    bare = parse("version: 1\nmeters: {tokens: {}, calls: {aggregation: count}, cents: {}}").catalog
    assert [each.path for each in diff(bare, catalog)] == ["ingest.unmatched", "ingest.events"]


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("{type: a, meter: nothing}", "ingest.events[0].meter"),
        ("{meter: tokens}", "ingest.events[0].type"),
        ("{type: a, meter: tokens, value: tokens}", "ingest.events[0].value"),
        ("{type: a, meter: tokens, unit: 0}", "ingest.events[0].unit"),
        ("{type: a, meter: tokens, dimensions: {x: y}}", "ingest.events[0].dimensions.x"),
        ("{type: a, meter: tokens, factor: 2}", "ingest.events[0].factor"),
        ("{type: a, meter: tokens}\n    - {type: a, meter: tokens}", "ingest.events[1]"),
    ],
)
def test_rules_are_checked(rule: str, path: str) -> None:
    """A rule with a fault is told by its place in the document."""
    text = f"version: 1\nmeters: {{tokens: {{}}}}\ningest:\n  events:\n    - {rule}\n"
    with pytest.raises(CatalogInvalid) as caught:
        parse(text)
    assert [fault.path for fault in caught.value.faults] == [path]
    assert caught.value.faults[0].line >= 4
