"""The catalog's messages: what goes through them comes back equal; what is malformed is named."""

from collections.abc import Callable

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tallygate.adapters.catalog.document import parse
from tallygate.api import convert_catalog as convert
from tallygate.domain.errors import InvalidField
from tallygate.gen.v1 import catalog_pb2
from tests.catalog.documents import GOOD, KINDS, PRICES


@pytest.mark.parametrize("text", [GOOD, KINDS, PRICES], ids=["GOOD", "KINDS", "PRICES"])
def test_what_a_document_says_a_message_says(text: str) -> None:
    """Meters, plans and tenants survive the way through their messages, on the wire too."""
    parsed = parse(text)
    for meter in parsed.catalog.meters.values():
        wire = convert.meter_message(meter).SerializeToString()
        assert convert.meter(catalog_pb2.Meter.FromString(wire)) == meter
    for plan in parsed.catalog.plans.values():
        wire = convert.plan_message(plan).SerializeToString()
        assert convert.plan(catalog_pb2.Plan.FromString(wire)) == plan
    for tenant in parsed.tenants:
        wire = convert.tenant_message(tenant).SerializeToString()
        assert convert.tenant(catalog_pb2.Tenant.FromString(wire)) == tenant


def limit(**fields: object) -> catalog_pb2.Limit:
    """Return a limit of 5 in a trailing minute, with other fields replaced."""
    values: dict[str, object] = {
        "limit_id": "a",
        "meter": "requests",
        "kind": catalog_pb2.LIMIT_KIND_SLIDING,
        "duration": Duration(seconds=60),
        "limit": 5,
        "on_exceed": catalog_pb2.ON_EXCEED_REFUSE,
    }
    return catalog_pb2.Limit(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


def in_plan(**fields: object) -> Callable[[], object]:
    """Return what converts a plan of one limit."""
    return lambda: convert.plan(catalog_pb2.Plan(name="free", limits=[limit(**fields)]))


def in_meter(**fields: object) -> Callable[[], object]:
    """Return what converts a meter of one weight."""
    values = {"meter": "search", "units": 1, **fields}
    weight = catalog_pb2.Weight(**values)  # type: ignore[arg-type]  # fields by name
    meter = catalog_pb2.Meter(
        name="credits", aggregation=catalog_pb2.AGGREGATION_SUM, weights=[weight]
    )
    return lambda: convert.meter(meter)


def in_shape(**fields: object) -> Callable[[], object]:
    """Return what converts a meter that takes a percentile."""
    values = {"name": "m", "aggregation": catalog_pb2.AGGREGATION_PERCENTILE, **fields}
    return lambda: convert.meter(catalog_pb2.Meter(**values))  # type: ignore[arg-type]


def in_override(**fields: object) -> Callable[[], object]:
    """Return what converts an override."""
    values = {"limit_id": "a", "limit": 1, **fields}
    return lambda: convert.override(catalog_pb2.Override(**values))  # type: ignore[arg-type]


def in_prices(**fields: object) -> Callable[[], object]:
    """Return what converts a plan of one price."""
    values = {"price_id": "a", "model": catalog_pb2.PRICE_MODEL_PER_UNIT, **fields}
    price = catalog_pb2.Price(**values)  # type: ignore[arg-type]  # fields by name
    return lambda: convert.plan(catalog_pb2.Plan(name="free", prices=[price]))


AT = "plan.limits[0]"
PRICE = "plan.prices[0]"
# Per case: what converts, the field it is refused for.
MALFORMED = [
    (in_plan(duration=Duration()), f"{AT}.duration"),
    (in_plan(duration=Duration(seconds=-1)), f"{AT}.duration"),
    (in_plan(duration=Duration(seconds=2**62)), f"{AT}.duration"),
    (in_plan(period=99), f"{AT}.period"),
    (in_plan(kind=catalog_pb2.LIMIT_KIND_WINDOW), f"{AT}.period"),
    (in_plan(kind=catalog_pb2.LIMIT_KIND_BALANCE, unlimited=True), f"{AT}.unlimited"),
    (in_plan(on_outage=99), f"{AT}.on_outage"),
    (in_plan(per="a\nb"), f"{AT}.per"),
    (in_plan(where={"k": catalog_pb2.DimensionValues(values=["\x00"])}), f"{AT}.where['k']"),
    (in_plan(where={"\x00": catalog_pb2.DimensionValues(values=["v"])}), f"{AT}.where"),
    (in_meter(meter=""), "meter.weights[0].meter"),
    (in_meter(by="\x00"), "meter.weights[0].by"),
    (in_meter(values={"\x00": 1}), "meter.weights[0].values"),
    (in_shape(percentile="0"), "meter.percentile"),
    (in_shape(percentile="100.1"), "meter.percentile"),
    (in_shape(percentile="p95"), "meter.percentile"),
    (in_shape(unique_by="\x00"), "meter.unique_by"),
    (in_shape(group_by=["a", "\x00"]), "meter.group_by[1]"),
    (in_shape(late_policy=99), "meter.late_policy"),
    (in_shape(aggregation=99), "meter.aggregation"),
    (in_prices(model=0), f"{PRICE}.model"),
    (in_prices(model=99), f"{PRICE}.model"),
    (in_prices(price_id=""), f"{PRICE}.price_id"),
    (in_prices(amount="1e3"), f"{PRICE}.amount"),
    (in_prices(amount="-1"), f"{PRICE}.amount"),
    (in_prices(amount="0.0000000000001"), f"{PRICE}.amount"),
    (in_prices(percent="NaN"), f"{PRICE}.percent"),
    (in_prices(rounding=99), f"{PRICE}.rounding"),
    (in_prices(size=5), f"{PRICE}.size"),
    (in_prices(description="\x00"), f"{PRICE}.description"),
    (
        in_prices(where={"k": catalog_pb2.DimensionValues(values=["\x00"])}),
        f"{PRICE}.where['k']",
    ),
    (
        in_prices(tiers=[catalog_pb2.PriceTier(amount="a lot")]),
        f"{PRICE}.tiers[0].amount",
    ),
    (in_prices(discount=[catalog_pb2.DiscountStep(percent="x")]), f"{PRICE}.discount[0].percent"),
    (in_override(expires_at=Timestamp()), "override.expires_at"),
    (in_override(expires_at=Timestamp(seconds=2**40)), "override.expires_at"),
    (in_override(reason="r" * 257), "override.reason"),
]


@pytest.mark.parametrize(("make", "field"), MALFORMED, ids=[case[1] for case in MALFORMED])
def test_what_is_malformed_is_refused_by_name(make: Callable[[], object], field: str) -> None:
    """The error names the field; nothing else is raised."""
    with pytest.raises(InvalidField) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["95", "99.9", "0.0001", "100"])
def test_a_meter_comes_back_as_it_was(text: str) -> None:
    """What is written of a meter reads the same, its percentile exactly."""
    sent = catalog_pb2.Meter(
        name="m",
        aggregation=catalog_pb2.AGGREGATION_PERCENTILE,
        late_horizon=Duration(seconds=60),
        percentile=text,
        group_by=["region", "sku"],
        late_policy=catalog_pb2.LATE_POLICY_CORRECT,
    )
    assert convert.meter_message(convert.meter(sent)) == sent


def test_a_meter_without_a_policy_adjusts_the_next_period() -> None:
    """Callers that know of no late policy keep what has always been."""
    meter = convert.meter(catalog_pb2.Meter(name="m", aggregation=catalog_pb2.AGGREGATION_SUM))
    assert meter.late_policy == "next_period"


def test_a_field_of_another_kind_is_left_for_the_rules() -> None:
    """A period on a sliding limit converts: whether it suits is for the catalog's rules."""
    plan = convert.plan(
        catalog_pb2.Plan(name="free", limits=[limit(period=catalog_pb2.PERIOD_DAY)])
    )
    assert plan.limits[0].period == "day"
