"""QueryMeterUsage converts what is asked, and tells quantities with every digit."""

from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import HOUR_US, MINUTE_US
from tallygate.gen.v1 import meter_usage_pb2
from tallygate.ports import LedgerBatch
from tests.api.control import Control, controlled
from tests.catalog.documents import GOOD
from tests.usage_events import NOON_US, event

DOCUMENT = GOOD.replace(
    "unit: request}",
    "unit: request, group_by: [region]}\n"
    "  seats: {aggregation: time_weighted}\n"
    "  latency: {aggregation: percentile, percentile: 50}",
)


@dataclass(frozen=True, slots=True)
class Case:
    """What is changed of a request, and the field it is refused for."""

    fields: dict[str, object]
    field: str


def stamp(at_us: int) -> Timestamp:
    """Return an instant."""
    found = Timestamp()
    found.FromMicroseconds(at_us)
    return found


def asked(**fields: object) -> meter_usage_pb2.QueryMeterUsageRequest:
    """Return a request for an hour of requests, with other fields replaced."""
    values: dict[str, object] = {
        "tenant_id": "acme",
        "meter": "requests",
        "from": stamp(NOON_US),
        "to": stamp(NOON_US + HOUR_US),
    }
    return meter_usage_pb2.QueryMeterUsageRequest(**{**values, **fields})  # type: ignore[arg-type]


async def used(site: Control) -> None:
    """Have usage of three meters."""
    await site.apply(DOCUMENT)
    await site.ledger.persist(
        LedgerBatch(
            (
                *(
                    event(n, event_time_us=NOON_US + n * MINUTE_US, amount=2**53 - 1)
                    for n in range(5)
                ),
                event(8, meter=MeterName("seats"), amount=3, event_time_us=NOON_US + 1),
                event(9, meter=MeterName("seats"), tenant_id=TenantId("org")),
            )
        )
    )


async def test_quantities_have_every_digit() -> None:
    """Beyond 64 bits, and to the microsecond of a level."""
    async with controlled() as site:
        await used(site)
        reply = await site.stub.QueryMeterUsage(asked(meter="seats"))
        (row,) = reply.rows
        assert (row.quantity, row.count) == ("10799.999997", 1)
        whole = await site.stub.QueryMeterUsage(
            asked(meter="seats", **{"from": stamp(NOON_US + MINUTE_US)})
        )
        assert whole.rows[0].quantity == str(3 * 59 * 60)
        assert whole.rows[0].start == stamp(NOON_US + MINUTE_US)


async def test_pages_of_groups_and_windows() -> None:
    """Each page says where the next one begins."""
    async with controlled() as site:
        await used(site)
        request = asked(
            group_by=["region"], division=meter_usage_pb2.USAGE_DIVISION_MINUTE, page_size=3
        )
        first = await site.stub.QueryMeterUsage(request)
        request.page_token = first.next_page_token
        second = await site.stub.QueryMeterUsage(request)
        rows = [*first.rows, *second.rows]
        assert [row.start.ToMicroseconds() for row in rows] == [
            NOON_US + n * MINUTE_US for n in range(5)
        ]
        assert {(each.name, each.value) for row in rows for each in row.group} == {
            ("region", "eu-1")
        }
        while second.next_page_token:
            request.page_token = second.next_page_token
            second = await site.stub.QueryMeterUsage(request)
            assert not second.rows


@pytest.mark.parametrize(
    ("division", "rows"),
    [
        ({"division": meter_usage_pb2.USAGE_DIVISION_PERIOD}, 1),
        ({"division": meter_usage_pb2.USAGE_DIVISION_HOUR}, 1),
        ({"division": meter_usage_pb2.USAGE_DIVISION_DAY}, 1),
        (
            {
                "division": meter_usage_pb2.USAGE_DIVISION_SLIDING,
                "length": Duration(seconds=120),
                "step": Duration(seconds=60),
            },
            5,
        ),
        ({"division": meter_usage_pb2.USAGE_DIVISION_SESSION, "gap": Duration(seconds=59)}, 5),
        ({"division": meter_usage_pb2.USAGE_DIVISION_SESSION, "gap": Duration(seconds=60)}, 1),
    ],
)
async def test_time_is_divided_as_asked(division: dict[str, object], rows: int) -> None:
    """Into periods, fixed lengths, sliding windows and sessions."""
    async with controlled() as site:
        await used(site)
        reply = await site.stub.QueryMeterUsage(asked(**division))
        assert len(reply.rows) == rows


REFUSED = [
    Case({"tenant_id": ""}, "tenant_id"),
    Case({"meter": "NO"}, "meter"),
    Case({"from": None}, "from"),
    Case({"to": None}, "to"),
    Case({"to": stamp(NOON_US)}, "to"),
    Case({"from": stamp(NOON_US + 1)}, "from"),
    Case({"division": 99}, "division"),
    Case({"division": meter_usage_pb2.USAGE_DIVISION_SLIDING}, "length"),
    Case({"division": meter_usage_pb2.USAGE_DIVISION_SESSION}, "gap"),
    Case({"group_by": ["a=b"]}, "group_by[0]"),
    Case({"page_size": 10_001}, "page_size"),
    Case({"page_token": "bm8="}, "page_token"),
    Case({"page_token": "WzBd"}, "page_token"),
]


@pytest.mark.parametrize("case", REFUSED, ids=[f"{case.fields}" for case in REFUSED])
async def test_what_is_wrong_is_named(case: Case) -> None:
    """As a violation of the field at fault."""
    async with controlled() as site:
        await used(site)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await site.stub.QueryMeterUsage(asked(**case.fields))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = dict(raised.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert case.field.encode() in bytes(details)


async def test_an_unknown_meter_is_not_found() -> None:
    """With a guess at what was meant."""
    async with controlled() as site:
        with pytest.raises(grpc.aio.AioRpcError, match="did you mean requests") as raised:
            await site.stub.QueryMeterUsage(asked(meter="request"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
