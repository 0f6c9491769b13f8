"""Meters: made, listed, renamed, switched off and on."""

import pytest
import stripe
from stripe import StripeClient

from tallygate_fake_stripe import FakeStripe

from .clients import advance, make_meter, now_s, send


async def test_meter_has_every_field(client: StripeClient, fake: FakeStripe) -> None:
    """A meter that was made has the fields of Stripe's, with their defaults."""
    meter = await make_meter(client, window="hour")
    assert meter.to_dict() == {
        "id": meter.id,
        "object": "billing.meter",
        "created": now_s(fake),
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "default_aggregation": {"formula": "sum"},
        "display_name": "Calls",
        "event_name": "calls",
        "event_time_window": "hour",
        "livemode": False,
        "status": "active",
        "status_transitions": {"deactivated_at": None},
        "updated": now_s(fake),
        "value_settings": {"event_payload_key": "value"},
    }
    assert meter.id.startswith("mtr_")
    again = await client.v1.billing.meters.retrieve_async(meter.id)
    assert again.to_dict() == meter.to_dict()


WHOLE = {"display_name": "x", "event_name": "x", "default_aggregation": {"formula": "sum"}}


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"display_name": None}, "display_name", "parameter_missing"),
        ({"event_name": None}, "event_name", "parameter_missing"),
        ({"default_aggregation": None}, "default_aggregation[formula]", "parameter_missing"),
        ({"default_aggregation": {"formula": "max"}}, "default_aggregation[formula]", None),
        ({"event_name": "x" * 101}, "event_name", "string_too_long"),
        ({"unit": "s"}, "unit", "parameter_unknown"),
        (
            {"default_aggregation": {"formula": "sum", "by": "x"}},
            "default_aggregation[by]",
            "parameter_unknown",
        ),
        ({"event_time_window": "minute"}, "event_time_window", None),
    ],
)
async def test_wrong_meters_are_refused(
    client: StripeClient, change: dict[str, object], param: str, code: str | None
) -> None:
    """A fault names its parameter, down to the key of a hash."""
    params = {name: value for name, value in {**WHOLE, **change}.items() if value is not None}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.billing.meters.create_async(params)  # type: ignore[arg-type]
    assert (refused.value.param, refused.value.code) == (param, code)
    assert refused.value.http_status == 400


async def test_event_names_are_unique(client: StripeClient) -> None:
    """A second meter of an event name is refused, also while the first is inactive."""
    meter = await make_meter(client)
    await client.v1.billing.meters.deactivate_async(meter.id)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await make_meter(client)
    assert refused.value.param == "event_name"


async def test_only_the_display_name_changes(client: StripeClient, fake: FakeStripe) -> None:
    """A meter can be renamed, and nothing else of it changed."""
    meter = await make_meter(client)
    advance(fake, 10)
    renamed = await client.v1.billing.meters.update_async(meter.id, {"display_name": "Requests"})
    assert (renamed.display_name, renamed.updated) == ("Requests", now_s(fake))
    change = {"event_name": "x"}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.billing.meters.update_async(meter.id, change)  # type: ignore[arg-type]
    assert refused.value.code == "parameter_unknown"


async def test_inactive_meters_take_no_usage(client: StripeClient, fake: FakeStripe) -> None:
    """A meter takes usage until it is deactivated, and again once it is reactivated."""
    meter = await make_meter(client)
    inactive = await client.v1.billing.meters.deactivate_async(meter.id)
    assert inactive.status == "inactive"
    assert inactive.status_transitions.deactivated_at == now_s(fake)
    with pytest.raises(stripe.InvalidRequestError, match="No active meter found"):
        await send(client)
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.billing.meters.deactivate_async(meter.id)
    active = await client.v1.billing.meters.reactivate_async(meter.id)
    assert active.status_transitions.deactivated_at is None
    await send(client)
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.billing.meters.reactivate_async(meter.id)


async def test_lists_are_newest_first(client: StripeClient) -> None:
    """Meters are listed newest first, by pages that cursors walk both ways, and by status."""
    fifteen = [await make_meter(client, f"meter_{number}") for number in range(15)]
    newest = [meter.id for meter in reversed(fifteen)]
    first = await client.v1.billing.meters.list_async()
    assert [meter.id for meter in first.data] == newest[:10]
    assert first.has_more
    second = await client.v1.billing.meters.list_async({"starting_after": newest[9]})
    assert [meter.id for meter in second.data] == newest[10:]
    assert not second.has_more
    back = await client.v1.billing.meters.list_async({"ending_before": newest[10], "limit": 3})
    assert [meter.id for meter in back.data] == newest[7:10]
    assert [meter.id async for meter in first.auto_paging_iter()] == newest
    await client.v1.billing.meters.deactivate_async(newest[3])
    only = await client.v1.billing.meters.list_async({"status": "inactive"})
    assert [meter.id for meter in only.data] == [newest[3]]
    for params in ({"limit": 0}, {"limit": 101}, {"starting_after": "mtr_none"}):
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.billing.meters.list_async(params)  # type: ignore[arg-type]


async def test_missing_meters_are_not_found(client: StripeClient) -> None:
    """A meter that is not there is a 404 with its code."""
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.billing.meters.retrieve_async("mtr_none")
    assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")


async def test_live_and_sandbox_are_apart(client: StripeClient, live: StripeClient) -> None:
    """What is made in one mode is not there in the other."""
    meter = await make_meter(client)
    assert (await make_meter(live)).livemode
    with pytest.raises(stripe.InvalidRequestError):
        await live.v1.billing.meters.retrieve_async(meter.id)
