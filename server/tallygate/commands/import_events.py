"""`tallygate import events`: usage of another system, or of one's own books, with ids and times.

Guarantees: each event keeps the id and the time that it has in the file, so that a second run, or a
run beside the system itself, counts nothing twice; rows are streamed, however many there are; a row
that is no usage is told and holds nothing else up.
Refuses to know: how files are read, and how usage is stored.
"""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from tallygate.commands.import_calls import ImportCalls, ImportReport
from tallygate.domain.errors import InvalidField
from tallygate.domain.other_export import OtherRow, RowFault
from tallygate.gen.v1 import usage_pb2, usage_pb2_grpc

TOGETHER: Final = 500
AMOUNT_MAX: Final = 2**53 - 1
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class EventsImport:
    """One import of rows that have ids.

    `note` is told how many rows more were read, `confirmed` when all that was read is recorded.
    """

    def __init__(
        self,
        usage: "usage_pb2_grpc.UsageServiceAsyncStub",
        note: Callable[[int], None],
        confirmed: Callable[[], None] = lambda: None,
        report: ImportReport | None = None,
    ) -> None:
        self._report = report or ImportReport()
        self._calls = ImportCalls(usage, self._report)
        self._note = note
        self._confirmed = confirmed
        self._told = 0

    async def run(self, rows: Iterable[OtherRow | RowFault]) -> ImportReport:
        """Send every row. Raises `ImportFailed`."""
        numbers: list[int] = []
        requests: list[usage_pb2.RecordUsageRequest] = []
        for row in rows:
            self._report.lines += 1
            try:
                requests.append(request_of(row))
            except InvalidField as error:
                self._report.reject(row.line, f"{error.field} {error.message}".strip(), error.field)
                continue
            numbers.append(row.line)
            # A line's events are sent together, so that what is confirmed is whole lines.
            if len(requests) >= TOGETHER and isinstance(row, OtherRow) and not row.more:
                await self._send(numbers, requests)
                numbers, requests = [], []
        await self._send(numbers, requests)
        return self._report

    async def _send(self, numbers: list[int], requests: list[usage_pb2.RecordUsageRequest]) -> None:
        await self._calls.send(numbers, requests)
        self._confirmed()
        self._note(self._report.lines - self._told)
        self._told = self._report.lines


class EventsTried:
    """What an import would send, added up, with nothing sent."""

    def __init__(self, note: Callable[[int], None], report: ImportReport) -> None:
        self._report = report
        self._note = note
        self._events: dict[str, int] = {}
        self._units: dict[str, int] = {}
        self._tenants: dict[str, set[str]] = {}
        self._first_us: dict[str, int] = {}
        self._last_us: dict[str, int] = {}

    def run(self, rows: Iterable[OtherRow | RowFault]) -> ImportReport:
        """Look at every row."""
        for row in rows:
            self._report.lines += 1
            self._note(1)
            try:
                request = request_of(row)
            except InvalidField as error:
                self._report.reject(row.line, f"{error.field} {error.message}".strip(), error.field)
                continue
            self._add(request)
        return self._report

    def by_meter(self) -> list[tuple[str, int, int, int, str, str]]:
        """Return of each meter: events, units, tenants, the first and the last time."""
        return [
            (
                meter,
                self._events[meter],
                self._units[meter],
                len(self._tenants[meter]),
                _shown(self._first_us[meter]),
                _shown(self._last_us[meter]),
            )
            for meter in sorted(self._events)
        ]

    def _add(self, request: usage_pb2.RecordUsageRequest) -> None:
        meter, at_us = request.meter, request.event_time.ToMicroseconds()
        self._events[meter] = self._events.get(meter, 0) + 1
        self._units[meter] = self._units.get(meter, 0) + request.amount
        self._tenants.setdefault(meter, set()).add(request.tenant_id)
        self._first_us[meter] = min(self._first_us.get(meter, at_us), at_us)
        self._last_us[meter] = max(self._last_us.get(meter, at_us), at_us)


def request_of(row: OtherRow | RowFault) -> usage_pb2.RecordUsageRequest:
    """Return the call that tells of a row. Raises `InvalidField`."""
    if isinstance(row, RowFault):
        raise InvalidField(row.message, field=row.field)
    request = usage_pb2.RecordUsageRequest(
        tenant_id=row.tenant_id,
        meter=row.meter,
        amount=_whole(row.units),
        event_id=row.event_id,
        dimensions=row.dimensions,
    )
    if row.time_us:
        request.event_time.FromMicroseconds(row.time_us)
    if row.subject_id:
        request.context.subject_id = row.subject_id
    if row.metadata_json:
        request.metadata.update(json.loads(row.metadata_json))
    return request


def _whole(units: Decimal) -> int:
    if units != units.to_integral_value():
        raise InvalidField("is no whole number of units: scale it with --unit", field="amount")
    if not 1 <= units <= AMOUNT_MAX:
        raise InvalidField(f"must be 1 to {AMOUNT_MAX}", field="amount")
    return int(units)


def _shown(time_us: int) -> str:
    return (EPOCH + timedelta(microseconds=time_us)).isoformat() if time_us else ""
