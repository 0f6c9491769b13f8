"""Summaries: alignment, grouping, pages, and what each formula makes of usage."""

import pytest
import stripe
from stripe import StripeClient

from tallygate_fake_stripe import FakeStripe

from .clients import CUSTOMER, DAY_S, HOUR_S, advance, make_meter, now_s, only_summary, send, summed


async def test_summary_has_every_field(client: StripeClient, fake: FakeStripe) -> None:
    """A summary has the fields of Stripe's, and none for the customer."""
    meter = await make_meter(client)
    start_s = now_s(fake)
    await send(client, "2.5")
    summary = await only_summary(client, meter, start_s, start_s + HOUR_S)
    assert summary.to_dict() == {
        "id": summary.id,
        "object": "billing.meter_event_summary",
        "aggregated_value": 2.5,
        "end_time": start_s + HOUR_S,
        "livemode": False,
        "meter": meter.id,
        "start_time": start_s,
    }
    assert summary.id.startswith("mtrusg_")


@pytest.mark.parametrize(
    ("start_s", "end_s", "window", "param"),
    [
        (30, 120, "", "start_time"),
        (0, 90, "", "end_time"),
        (60, 60, "", "end_time"),
        (120, 60, "", "end_time"),
        (60, 7_200, "hour", "start_time"),
        (0, 5_400, "hour", "end_time"),
        (HOUR_S, DAY_S, "day", "start_time"),
        (0, DAY_S + HOUR_S, "day", "end_time"),
        (0, 60, "week", "value_grouping_window"),
        (0, 20_000 * HOUR_S, "hour", "end_time"),
    ],
)
async def test_bounds_are_aligned(
    client: StripeClient, start_s: int, end_s: int, window: str, param: str
) -> None:
    """Bounds lie on minutes, or on hours or days in UTC where it is grouped by them."""
    meter = await make_meter(client)
    params: dict[str, object] = {"customer": CUSTOMER, "start_time": start_s, "end_time": end_s}
    if window:
        params["value_grouping_window"] = window
    summaries = client.v1.billing.meters.event_summaries
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await summaries.list_async(meter.id, params)  # type: ignore[arg-type]
    assert refused.value.param == param


@pytest.mark.parametrize("name", ["customer", "start_time", "end_time"])
async def test_bounds_and_customer_are_needed(client: StripeClient, name: str) -> None:
    """None of the three can be left out."""
    meter = await make_meter(client)
    params: dict[str, object] = {"customer": CUSTOMER, "start_time": 0, "end_time": 60}
    del params[name]
    summaries = client.v1.billing.meters.event_summaries
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await summaries.list_async(meter.id, params)  # type: ignore[arg-type]
    assert (refused.value.param, refused.value.code) == (name, "parameter_missing")


async def test_end_is_exclusive(client: StripeClient, fake: FakeStripe) -> None:
    """What lies at the start counts, what lies at the end belongs to the next span."""
    meter = await make_meter(client)
    start_s = now_s(fake) - DAY_S
    await send(client, "1", timestamp=start_s)
    await send(client, "10", timestamp=start_s + 60)
    assert await summed(client, meter, start_s, start_s + 60) == 1
    assert await summed(client, meter, start_s + 60, start_s + 120) == 10
    assert await summed(client, meter, start_s - 60, start_s) == 0


async def test_hours_are_pages_newest_first(client: StripeClient, fake: FakeStripe) -> None:
    """Grouped by hour there is one summary an hour, ten a page, walked by cursors."""
    meter = await make_meter(client)
    end_s = now_s(fake)
    start_s = end_s - DAY_S
    for hour in range(24):
        await send(client, str(hour), timestamp=start_s + hour * HOUR_S + 59)
    page = await client.v1.billing.meters.event_summaries.list_async(
        meter.id,
        {
            "customer": CUSTOMER,
            "start_time": start_s,
            "end_time": end_s,
            "value_grouping_window": "hour",
        },
    )
    assert (len(page.data), page.has_more) == (10, True)
    found = [each async for each in page.auto_paging_iter()]
    assert [each.aggregated_value for each in found] == list(range(23, -1, -1))
    assert [each.start_time for each in found] == [
        start_s + hour * HOUR_S for hour in range(23, -1, -1)
    ]
    assert all(each.end_time - each.start_time == HOUR_S for each in found)


@pytest.mark.parametrize(("formula", "expected"), [("sum", 9), ("count", 3), ("last", 4)])
async def test_formulas(
    client: StripeClient, fake: FakeStripe, formula: str, expected: float
) -> None:
    """Sum adds up, count counts, last is the latest by its timestamp, not by its receipt."""
    meter = await make_meter(client, formula=formula)
    start_s = now_s(fake) - HOUR_S
    await send(client, "3", timestamp=start_s)
    await send(client, "4", timestamp=start_s + 20)
    await send(client, "2", timestamp=start_s + 10)
    assert await summed(client, meter, start_s, start_s + 60) == expected


@pytest.mark.parametrize(("window", "expected"), [("hour", 60), ("day", 50)])
async def test_windows_are_overwritten(
    client: StripeClient, fake: FakeStripe, window: str, expected: float
) -> None:
    """On a pre-aggregated meter the event received last in a window is the one that counts."""
    meter = await make_meter(client, window=window)
    start_s = now_s(fake) - 2 * DAY_S
    await send(client, "1", timestamp=start_s + 1_800)
    await send(client, "10", timestamp=start_s)
    await send(client, "20", timestamp=start_s + HOUR_S + 10)
    await send(client, "50", timestamp=start_s + HOUR_S)
    assert await summed(client, meter, start_s, start_s + DAY_S) == expected


async def test_overwriting_needs_no_identifier_window(
    client: StripeClient, fake: FakeStripe
) -> None:
    """The same absolute total may be sent again long after 24 hours, and counts once."""
    meter = await make_meter(client, window="hour")
    start_s = now_s(fake)
    await send(client, "7", timestamp=start_s, identifier="hour-1")
    advance(fake, 30 * DAY_S)
    await send(client, "7", timestamp=start_s, identifier="hour-1")
    assert await summed(client, meter, start_s, start_s + HOUR_S) == 7


async def test_negative_usage_counts(client: StripeClient, fake: FakeStripe) -> None:
    """Negative values take away, and a summary may be negative."""
    meter = await make_meter(client)
    start_s = now_s(fake)
    await send(client, "5")
    await send(client, "-8")
    assert await summed(client, meter, start_s, start_s + 60) == -3


async def test_customers_are_apart(client: StripeClient, fake: FakeStripe) -> None:
    """A customer's summary has nobody else's usage, and 0 where there is none."""
    fake.add_customer("cus_2")
    meter = await make_meter(client)
    start_s = now_s(fake)
    await send(client, "5")
    assert await summed(client, meter, start_s, start_s + 60, "cus_2") == 0
