"""The part of the AdminService that is about billing periods.

Guarantees: what converts is well-formed; a page token is checked like any other input.
Refuses to know: rules, storage, and how errors are told.
"""

from typing import Any, Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from tallygate.api import convert_times as times
from tallygate.api.paging import decoded, encoded, foreign_token, page_size
from tallygate.domain import ids
from tallygate.domain.errors import InvalidField
from tallygate.domain.period import PeriodKey, PeriodState
from tallygate.domain.rollup import digits
from tallygate.flow.period_orders import PeriodOrder, PeriodOrders
from tallygate.gen.v1 import admin_pb2_grpc, period_pb2
from tallygate.ports.period import BillingPeriod, PeriodQuery

Context = grpc.aio.ServicerContext

PERIODS_PAGE_MAX: Final = 1_000
# East of Greenwich, a first period begins before the epoch.
START_US_MIN: Final = -(2**53)
_STATES: Final = {
    PeriodState.OPEN: period_pb2.PERIOD_STATE_OPEN,
    PeriodState.GRACE: period_pb2.PERIOD_STATE_GRACE,
    PeriodState.SEALED: period_pb2.PERIOD_STATE_SEALED,
    PeriodState.CLOSED: period_pb2.PERIOD_STATE_CLOSED,
}


class PeriodCalls(admin_pb2_grpc.AdminServiceServicer):
    """Converts, reads or orders, converts back."""

    _orders: PeriodOrders

    async def ListPeriods(  # noqa: N802  the name is the proto's
        self, request: period_pb2.ListPeriodsRequest, context: "Context[Any, Any]"
    ) -> period_pb2.ListPeriodsResponse:
        """List periods by tenant and start, a page at a time."""
        count = page_size(request.page_size, PERIODS_PAGE_MAX)
        found = await self._orders.periods(
            PeriodQuery(
                tenant_id=ids.tenant_id(request.tenant_id) if request.tenant_id else None,
                states=_states(request.state),
                held=request.held,
                limit=count + 1,
                after=_place(decoded(request.page_token, 2)),
            )
        )
        page = found[:count]
        token = ""
        if len(found) > count:
            token = encoded([page[-1].tenant_id, page[-1].start_us])
        return period_pb2.ListPeriodsResponse(
            periods=[_message(period) for period in page], next_page_token=token
        )

    async def GetPeriod(  # noqa: N802
        self, request: period_pb2.GetPeriodRequest, context: "Context[Any, Any]"
    ) -> period_pb2.GetPeriodResponse:
        """Read a period and what was frozen of it."""
        story = await self._orders.story(
            ids.tenant_id(request.tenant_id),
            _start_us(request.start) if request.HasField("start") else None,
            request.revision,
        )
        response = period_pb2.GetPeriodResponse(period=_message(story.period))
        for total in story.totals:
            response.totals.add(
                meter=total.meter,
                group=dict(total.group),
                quantity=digits(total.quantity),
                count=total.count,
            )
        for late in story.adjustments:
            added = response.adjustments.add(
                meter=late.meter,
                group=dict(late.group),
                quantity=digits(late.quantity),
                count=late.count,
            )
            if late.closed_start_us is not None:
                added.closed_start.FromMicroseconds(late.closed_start_us)
        for revision in story.revisions:
            response.revisions.add(
                number=revision.number,
                cause=revision.cause,
                closed_at=_instant(revision.closed_us),
                events=revision.events,
                digest=revision.digest,
            )
        for each in story.late:
            response.late.add(
                placed=each.placed,
                allocated_start=_instant(each.allocated_start_us),
                allocated_revision=each.allocated_revision,
                events=each.events,
            )
        for action in story.actions:
            response.actions.add(
                action=action.action,
                at=_instant(action.done_us),
                actor=action.actor,
                reason=action.reason,
            )
        return response

    async def ClosePeriod(  # noqa: N802
        self, request: period_pb2.ClosePeriodRequest, context: "Context[Any, Any]"
    ) -> period_pb2.ClosePeriodResponse:
        """Have a period that has ended closed now."""
        period = await self._orders.close(_order(request), accept_missing=request.accept_missing)
        return period_pb2.ClosePeriodResponse(period=_message(period))

    async def ReopenPeriod(  # noqa: N802
        self, request: period_pb2.ReopenPeriodRequest, context: "Context[Any, Any]"
    ) -> period_pb2.ReopenPeriodResponse:
        """Open a closed period again."""
        period = await self._orders.reopen(_order(request))
        return period_pb2.ReopenPeriodResponse(period=_message(period))


def _order(
    request: period_pb2.ClosePeriodRequest | period_pb2.ReopenPeriodRequest,
) -> PeriodOrder:
    tenant_id = ids.tenant_id(request.tenant_id)
    if not request.HasField("start"):
        raise InvalidField("is required", field="start")
    key = PeriodKey(tenant_id, _start_us(request.start))
    return PeriodOrder(key, request.actor, request.reason)


def _message(period: BillingPeriod) -> period_pb2.BillingPeriod:
    message = period_pb2.BillingPeriod(
        tenant_id=period.tenant_id,
        start=_instant(period.start_us),
        end=_instant(period.end_us),
        state=_STATES[period.state],
        revision=period.revision,
        held=period.held or "",
    )
    if period.due_us:
        message.due.FromMicroseconds(period.due_us)
    if period.held_since_us:
        message.held_since.FromMicroseconds(period.held_since_us)
    return message


def _instant(instant_us: int) -> Timestamp:
    found = Timestamp()
    found.FromMicroseconds(instant_us)
    return found


def _start_us(start: Timestamp) -> int:
    return times.instant_us(start, "start", START_US_MIN)


def _states(asked: int) -> tuple[PeriodState, ...]:
    if asked == period_pb2.PERIOD_STATE_UNSPECIFIED:
        return ()
    found = tuple(state for state, number in _STATES.items() if number == asked)
    if not found:
        raise InvalidField(f"must be one of {', '.join(PeriodState)}", field="state")
    return found


def _place(position: list[object]) -> tuple[str, int] | None:
    if not position:
        return None
    tenant_id, start_us = position
    if not isinstance(tenant_id, str) or type(start_us) is not int:
        raise foreign_token()
    if not START_US_MIN <= start_us < times.INSTANT_US_END:
        raise foreign_token()
    return ids.tenant_id(tenant_id, "page_token"), start_us
