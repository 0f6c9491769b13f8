"""Events of a file are told with their ids and times; what is no usage holds nothing else up."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, cast

from tallygate.commands.import_events import TOGETHER, EventsImport
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.other_export import OtherRow
from tallygate.gen.v1 import reason_pb2, usage_pb2

NOON_US = 1_795_176_000_000_000


class Service:
    """A usage service that takes what it is told, knows what it had, and refuses one meter."""

    def __init__(self) -> None:
        self.calls: list[Sequence[usage_pb2.RecordUsageRequest]] = []
        self.known: set[str] = set()

    async def BatchRecordUsage(  # noqa: N802  the name is the proto's
        self, request: usage_pb2.BatchRecordUsageRequest, **_: object
    ) -> usage_pb2.BatchRecordUsageResponse:
        """Take a list."""
        self.calls.append(request.requests)
        reply = usage_pb2.BatchRecordUsageResponse()
        for each in request.requests:
            result = reply.results.add()
            if each.meter == "unknown":
                result.error.reason = reason_pb2.REASON_UNKNOWN_METER
                result.error.message = "is in no catalog"
            else:
                result.response.event_id = each.event_id
                result.response.replayed = each.event_id in self.known
                self.known.add(each.event_id)
        return reply


def row(number: int, units: str = "5", meter: str = "tokens") -> OtherRow:
    """Return a row of a file."""
    name = f"e-{number}"
    dimensions = {"model": "small"}
    return OtherRow(
        number, TenantId("acme"), MeterName(meter), NOON_US, Decimal(units), name, dimensions
    )


async def test_events_keep_their_ids_and_times() -> None:
    """What is told is what the row says; the same file again is known already."""
    service, notes = Service(), list[int]()
    importing = EventsImport(cast(Any, service), notes.append)
    report = await importing.run([row(1), row(2)])
    (told, _), *_ = service.calls
    assert (told.event_id, told.amount, told.dimensions["model"]) == ("e-1", 5, "small")
    assert told.event_time.ToMicroseconds() == NOON_US
    assert (report.lines, report.accepted, report.known) == (2, 2, 0)
    again = await EventsImport(cast(Any, service), notes.append).run([row(1), row(2)])
    assert (again.accepted, again.known) == (0, 2)
    assert notes == [2, 2]


async def test_rows_that_are_no_usage_are_listed() -> None:
    """A part of a unit, nothing, too much, and a meter that nobody knows: each by its line."""
    rows = [row(1, "0.5"), row(2, "0"), row(3, "1e16"), row(4, meter="unknown"), row(5)]
    report = await EventsImport(cast(Any, Service()), lambda _: None).run(rows)
    assert (report.accepted, report.rejected_count) == (1, 4)
    assert [each.line for each in report.rejected] == [1, 2, 3, 4]
    assert "--unit" in report.rejected[0].reason
    assert "UNKNOWN_METER" in report.rejected[3].reason


async def test_a_long_file_is_told_in_lists() -> None:
    """As many rows at once as one call may hold, and the rest."""
    service = Service()
    report = await EventsImport(cast(Any, service), lambda _: None).run(
        row(number) for number in range(2 * TOGETHER + 1)
    )
    assert [len(call) for call in service.calls] == [TOGETHER, TOGETHER, 1]
    assert report.accepted == 2 * TOGETHER + 1
