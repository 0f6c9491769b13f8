"""What a catalog says of Stripe: read whole, kept through the codec, each fault with its place."""

import pytest

from tallygate.adapters.catalog.document import parse
from tallygate.adapters.catalog_codec import catalog_from_json, catalog_to_json
from tallygate.domain.ids import MeterName
from tallygate.domain.stripe_rules import account_of, synced
from tallygate.domain.stripe_sync import Mode, StripeAccount, StripeSync, SyncWindow, Way
from tests.catalog.documents import faults

GOOD = """\
version: 1
meters:
  calls:
    aggregation: count
    stripe:
      way: meter_events
      event_name: api_calls
      since: 2027-01-01
      scale: "0.001"
      settle: 5m
      window: day
      early: true
      dimensions: {area: region}
  seats:
    aggregation: max
    stripe: {way: quantity, price: seats, since: 2027-01-01, window: day, proration: none}
  setup: {stripe: {way: invoice_items}}
  plain: {}
destinations:
  stripe:
    kind: stripe
    secret: {file: /run/secrets/stripe}
    mode: live
    account: acct_1
    calls_per_s: 50
    shadow: true
    fees: true
    reports_secret: {env: REPORTS}
  hooks: {kind: webhook, url: "https://example.com", types: [usage.batch], secret: {env: HOOKS}}
"""
CALLS, SEATS = "meters.calls.stripe", "meters.seats.stripe"


def test_a_document_is_read_whole() -> None:
    """Every field arrives as it is written."""
    catalog = parse(GOOD).catalog
    sync = catalog.meters[MeterName("calls")].stripe
    assert sync == StripeSync(
        Way.METER_EVENTS,
        event_name="api_calls",
        since_us=1_798_761_600_000_000,
        window=SyncWindow.DAY,
        scale="0.001",
        settle_us=300_000_000,
        early=True,
        dimensions=(("area", "region"),),
    )
    account = account_of(catalog, sync)
    assert account is not None
    assert account.url == "https://api.stripe.com"
    assert account.types == ()
    assert account.stripe == StripeAccount(
        *(Mode.LIVE, True, "acct_1"),
        calls_per_s=50,
        reports_env="REPORTS",
        fees=True,
    )
    assert catalog.meters[MeterName("plain")].stripe is None
    assert [meter.name for meter, _ in synced(catalog, "stripe", Way.METER_EVENTS)] == ["calls"]
    assert synced(catalog, "hooks", *Way) == []


def test_it_reads_back_equal() -> None:
    """Nothing is lost or rounded on the way to sidecars and Postgres."""
    catalog = parse(GOOD).catalog
    assert catalog_from_json(catalog_to_json(catalog)) == catalog


FAULTS = [
    ("way: meter_events", "way: meter_event", f"{CALLS}.way", "must be one of"),
    ("event_name: api_calls", "event_nam: api_calls", f"{CALLS}.event_nam", "there is no"),
    ("      event_name: api_calls\n", "", f"{CALLS}.event_name", "is required for meter_events"),
    ("api_calls", "x" * 101, f"{CALLS}.event_name", "at most 100"),
    ("      since: 2027-01-01\n", "", f"{CALLS}.since", "is required for meter_events"),
    ("since: 2027-01-01\n", "since: 2027-01-01T05:00:00Z\n", f"{CALLS}.since", "UTC day"),
    ('"0.001"', "1e-3", f"{CALLS}.scale", "must be a decimal"),
    ('"0.001"', "0", f"{CALLS}.scale", "must be a decimal"),
    ("early: true", "early: true\n      overwrite: true", f"{CALLS}.early", "overwrite"),
    ("area: region", "area: re gion", f"{CALLS}.dimensions.area", "not a name"),
    ("early: true", "v2_stream: true", "", ""),
    ("mode: live", "mode: love", "destinations.stripe.mode", "must be one of"),
    ("account: acct_1", "account: x", "destinations.stripe.account", "acct_"),
    ("calls_per_s: 50", "calls_per_s: 50_000", "destinations.stripe.calls_per_s", "10000"),
    ("shadow: true", "shadow: perhaps", "destinations.stripe.shadow", "true or false"),
    ("kind: stripe\n", "kind: stripe\n    types: []\n", "destinations.stripe.types", "no 'types'"),
    ("{file: /run/secrets/stripe}", "sk_live_x", "destinations.stripe.secret", "never itself"),
    ("price: seats, ", "", f"{SEATS}.price", "is required for quantity"),
    ("proration: none}", "scale: 0.5}", f"{SEATS}.scale", "whole for quantity"),
    ("proration: none", "proration: nothing", f"{SEATS}.proration", "must be one of"),
    ("early: true", "proration: none", f"{CALLS}.proration", "for quantity only"),
    ("window: day, p", "window: day, early: true, p", f"{SEATS}.early", "meter_events only"),
    ("way: invoice_items", "way: meter_events, event_name: e", "meters.setup.stripe.since", ""),
    ("aggregation: count", "aggregation: max", f"{CALLS}.way", "adds up"),
    ("aggregation: count", "aggregation: latest", f"{CALLS}.way", "takes the latest"),
    ("aggregation: max", "aggregation: time_weighted", f"{SEATS}.way", "seats takes the time_w"),
    ("settle: 5m", "settle: 5m\n      destination: strip", f"{CALLS}.destination", "no dest"),
]


@pytest.mark.parametrize(("old", "new", "path", "message"), FAULTS, ids=lambda each: str(each)[:30])
def test_each_fault_is_told(old: str, new: str, path: str, message: str) -> None:
    """One edit of the good document is one fault, at its path."""
    assert old in GOOD
    found = faults(GOOD.replace(old, new, 1))
    told = [(fault.path, fault.message) for fault in found]
    if not path:
        assert told == []
        return
    assert [each for each in told if each[0] == path and message in each[1]], told
    assert "sk_live_x" not in repr(told)


def test_streams_are_for_live_mode() -> None:
    """A sandbox has none."""
    text = GOOD.replace("early: true", "v2_stream: true").replace("mode: live", "mode: sandbox")
    assert [fault.path for fault in faults(text)] == [f"{CALLS}.v2_stream"]


def test_an_event_name_is_of_one_meter() -> None:
    """Two meters of one name would be added up by Stripe."""
    text = GOOD.replace(
        "setup: {stripe: {way: invoice_items}}",
        "setup: {stripe: {way: meter_events, event_name: api_calls, since: 2027-01-01}}",
    )
    (fault,) = faults(text)
    assert (fault.path, "meter calls" in fault.message) == ("meters.setup.stripe.event_name", True)


def test_a_meter_has_one_destination() -> None:
    """With none, or two and no name, it is told; with its name all is well."""
    start, end = GOOD.index("  stripe:\n    kind"), GOOD.index("  hooks:")
    alone = GOOD[:start] + GOOD[end:]
    assert {fault.message for fault in faults(alone)} == {"needs a destination of kind stripe"}
    two = GOOD + GOOD[start:end].replace("  stripe:", "  other:")
    assert {fault.path.rpartition(".")[2] for fault in faults(two)} == {"destination"}
    named = two.replace("way: meter_events\n", "way: meter_events\n      destination: other\n")
    named = named.replace("price: seats,", "price: seats, destination: stripe,")
    named = named.replace("{way: invoice_items}", "{way: invoice_items, destination: stripe}")
    assert faults(named) == ()
