"""The part of the AdminService that is about what meters come to.

Guarantees: what converts is well-formed; a page token is checked like any other input.
Refuses to know: rollups, and how errors are told.
"""

from typing import Any, Final

import grpc

from tallygate.api import convert_times as times
from tallygate.api.paging import decoded, encoded, foreign_token, name, page_size
from tallygate.domain import ids
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import MeterName
from tallygate.domain.limit_rules import is_key, key_message
from tallygate.domain.rollup import digits
from tallygate.domain.window import Window
from tallygate.domain.windows import Division, Sessions, Sliding, Tumbling
from tallygate.flow.usage_windows import WINDOWS_MAX, UsageAsk, UsageOfWindow, UsageWindows
from tallygate.gen.v1 import admin_pb2_grpc, meter_usage_pb2

Context = grpc.aio.ServicerContext

PAGE_MAX: Final = 10_000
_TUMBLING: Final = {
    meter_usage_pb2.USAGE_DIVISION_UNSPECIFIED: "total",
    meter_usage_pb2.USAGE_DIVISION_TOTAL: "total",
    meter_usage_pb2.USAGE_DIVISION_DAY: "day",
    meter_usage_pb2.USAGE_DIVISION_HOUR: "hour",
    meter_usage_pb2.USAGE_DIVISION_MINUTE: "minute",
    meter_usage_pb2.USAGE_DIVISION_PERIOD: "period",
}


class UsageCalls(admin_pb2_grpc.AdminServiceServicer):
    """Converts, asks for windows, converts back."""

    def __init__(self, windows: UsageWindows) -> None:
        self._windows = windows

    async def QueryMeterUsage(  # noqa: N802  the name is the proto's
        self, request: meter_usage_pb2.QueryMeterUsageRequest, context: "Context[Any, Any]"
    ) -> meter_usage_pb2.QueryMeterUsageResponse:
        """Read what one meter comes to."""
        rows = page_size(request.page_size, PAGE_MAX)
        page = await self._windows.page(_asked(request), rows, _start(request.page_token))
        return meter_usage_pb2.QueryMeterUsageResponse(
            rows=[_row_message(row) for row in page.rows],
            next_page_token=encoded([page.next_start]) if page.next_start else "",
        )


def _asked(request: meter_usage_pb2.QueryMeterUsageRequest) -> UsageAsk:
    for field in ("from", "to"):
        if not request.HasField(field):
            raise InvalidField("is required", field=field)
    for index, each in enumerate(request.group_by):
        if not is_key(each):
            raise InvalidField(key_message(), field=f"group_by[{index}]")
    return UsageAsk(
        tenant_id=ids.tenant_id(request.tenant_id),
        meter=MeterName(name(request.meter, "meter")),
        window=Window(
            times.instant_us(getattr(request, "from"), "from"),
            times.instant_us(request.to, "to"),
        ),
        division=_division(request),
        group_by=tuple(request.group_by),
    )


def _division(request: meter_usage_pb2.QueryMeterUsageRequest) -> Division:
    if request.division == meter_usage_pb2.USAGE_DIVISION_SLIDING:
        length_us = times.duration_us(request.length, "length")
        return Sliding(length_us, times.duration_us(request.step, "step"))
    if request.division == meter_usage_pb2.USAGE_DIVISION_SESSION:
        return Sessions(times.duration_us(request.gap, "gap"))
    if request.division not in _TUMBLING:
        raise InvalidField("is not a known division", field="division")
    return Tumbling(_TUMBLING[request.division])


def _start(token: str) -> int:
    position = decoded(token, 1)
    if not position:
        return 0
    start = position[0]
    if type(start) is not int or not 0 < start <= WINDOWS_MAX:
        raise foreign_token()
    return start


def _row_message(row: UsageOfWindow) -> meter_usage_pb2.MeterUsageRow:
    message = meter_usage_pb2.MeterUsageRow(quantity=digits(row.quantity), count=row.count)
    message.start.FromMicroseconds(row.window.start_us)
    message.end.FromMicroseconds(row.window.end_us)
    for name_, value in row.group:
        message.group.add(name=name_, value=value)
    return message
