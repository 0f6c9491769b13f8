"""`tallygate import events`: usage of another system, or of one's own books, with ids and times.

Guarantees: each event keeps the id and the time that it has in the file, so that a second run, or a
run beside the system itself, counts nothing twice; rows are streamed, however many there are.
Refuses to know: how files are read, and how usage is stored.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final

from tallygate.commands.import_calls import ImportCalls, ImportReport
from tallygate.domain.errors import InvalidField
from tallygate.domain.other_export import OtherRow
from tallygate.gen.v1 import usage_pb2, usage_pb2_grpc

TOGETHER: Final = 500
AMOUNT_MAX: Final = 2**53 - 1


class EventsImport:
    """One import of rows that have ids."""

    def __init__(
        self, usage: "usage_pb2_grpc.UsageServiceAsyncStub", note: Callable[[int], None]
    ) -> None:
        self._report = ImportReport()
        self._calls = ImportCalls(usage, self._report)
        self._note = note

    async def run(self, rows: Iterable[OtherRow]) -> ImportReport:
        """Send every row. Raises `ImportFailed`, and `InvalidField` for a row that is no usage."""
        numbers: list[int] = []
        requests: list[usage_pb2.RecordUsageRequest] = []
        for row in rows:
            self._report.lines += 1
            try:
                requests.append(_request(row))
            except InvalidField as error:
                self._report.reject(row.line, f"{error.field} {error.message}")
                continue
            numbers.append(row.line)
            if len(requests) == TOGETHER:
                await self._calls.send(numbers, requests)
                self._note(self._report.lines)
                numbers, requests = [], []
        await self._calls.send(numbers, requests)
        self._note(self._report.lines)
        return self._report


def _request(row: OtherRow) -> usage_pb2.RecordUsageRequest:
    """Return the call that tells of a row. Raises `InvalidField`."""
    request = usage_pb2.RecordUsageRequest(
        tenant_id=row.tenant_id,
        meter=row.meter,
        amount=_whole(row.units),
        event_id=row.event_id,
        dimensions=row.dimensions,
    )
    request.event_time.FromMicroseconds(row.time_us)
    return request


def _whole(units: Decimal) -> int:
    if units != units.to_integral_value():
        raise InvalidField("is no whole number of units: scale it with --unit", field="amount")
    if not 1 <= units <= AMOUNT_MAX:
        raise InvalidField(f"must be 1 to {AMOUNT_MAX}", field="amount")
    return int(units)
