"""`tallygate usage` of one meter: by its aggregation, in windows and groups.

Guarantees: what is wrong with an option is said by its name, before anything is asked.
Refuses to know: storage.
"""

import re
from dataclasses import dataclass
from typing import Final

import typer

from tallygate.commands.asking import number
from tallygate.commands.channel import Target, channel
from tallygate.commands.output import Cell, Sheet
from tallygate.commands.times import instant_us
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from tallygate.gen.v1 import admin_pb2_grpc, meter_usage_pb2

CALL_TIMEOUT_S: Final = 30.0
_UNITS: Final = {"d": DAY_US, "h": HOUR_US, "m": MINUTE_US, "s": SECOND_US}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,7})([dhms])")
_DIVISIONS: Final = ("total", "minute", "hour", "day", "period")


@dataclass(frozen=True, slots=True)
class WindowsAsked:
    """What was given; empty strings where nothing was."""

    tenant: str
    meter: str
    by: str = "total"
    group_by: str = ""
    sliding: str = ""
    step: str = ""
    session_gap: str = ""
    from_minute: str = ""
    to_minute: str = ""
    rows: int = 20

    @property
    def needed(self) -> bool:
        """Whether it is more than usage of all meters by bucket."""
        given = (self.group_by, self.sliding, self.step, self.session_gap)
        return any((*given, self.from_minute, self.to_minute)) or self.by == "period"


def request_of(asked: WindowsAsked, now_us: int) -> meter_usage_pb2.QueryMeterUsageRequest:
    """Return the request: the last 24 hours unless told otherwise."""
    for value, option in ((asked.tenant, "--tenant"), (asked.meter, "--meter")):
        if not value:
            raise typer.BadParameter("is needed to look at windows or groups", param_hint=option)
    request = meter_usage_pb2.QueryMeterUsageRequest(
        tenant_id=asked.tenant,
        meter=asked.meter,
        division=_division(asked),
        group_by=[name.strip() for name in asked.group_by.split(",") if name.strip()],
        page_size=asked.rows,
    )
    minute_us = now_us - now_us % MINUTE_US
    to_us = instant_us(asked.to_minute, "--to")
    if to_us is None:
        to_us = minute_us + MINUTE_US
    from_us = instant_us(asked.from_minute, "--from")
    if from_us is None:
        from_us = to_us - DAY_US
    getattr(request, "from").FromMicroseconds(from_us)
    request.to.FromMicroseconds(to_us)
    if asked.sliding:
        request.length.FromMicroseconds(_duration_us(asked.sliding, "--sliding"))
        request.step.FromMicroseconds(_duration_us(asked.step, "--step"))
    if asked.session_gap:
        request.gap.FromMicroseconds(_duration_us(asked.session_gap, "--session-gap"))
    return request


async def windows(control: Target, request: meter_usage_pb2.QueryMeterUsageRequest) -> Sheet:
    """Return the first rows as a table."""
    async with channel(control) as lent:
        admin = admin_pb2_grpc.AdminServiceStub(lent)
        reply = await admin.QueryMeterUsage(request, timeout=CALL_TIMEOUT_S)
    rows: list[tuple[Cell, ...]] = [
        (
            row.start.ToDatetime().isoformat() + "Z",
            row.end.ToDatetime().isoformat() + "Z",
            *(each.value for each in row.group),
            number(row.quantity),
            row.count,
        )
        for row in reply.rows
    ]
    columns = ("from", "to", *request.group_by, "quantity", "events")
    title = f"{request.meter} of {request.tenant_id}"
    return Sheet(title + (", and more" if reply.next_page_token else ""), columns, rows)


def _division(asked: WindowsAsked) -> "meter_usage_pb2.UsageDivision.ValueType":
    if asked.sliding and asked.session_gap:
        raise typer.BadParameter("is not for sessions", param_hint="--sliding")
    if bool(asked.sliding) != bool(asked.step):
        missing = "--step" if asked.sliding else "--sliding"
        raise typer.BadParameter("is needed for sliding windows", param_hint=missing)
    name = asked.by
    if asked.sliding or asked.session_gap:
        if asked.by != "total":
            raise typer.BadParameter("is for windows of the calendar", param_hint="--by")
        name = "sliding" if asked.sliding else "session"
    elif name not in _DIVISIONS:
        raise typer.BadParameter(f"must be one of {', '.join(_DIVISIONS)}", param_hint="--by")
    return meter_usage_pb2.UsageDivision.Value(f"USAGE_DIVISION_{name.upper()}")


def _duration_us(text: str, option: str) -> int:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise typer.BadParameter("must be a duration such as 1h, 5m or 30s", param_hint=option)
    return int(found[1]) * _UNITS[found[2]]
