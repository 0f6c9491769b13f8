"""The UsageService: tell after the work is done.

Guarantees: usage is never refused for quota.
Refuses to know: how usage is stored, and how errors are told.
"""

import asyncio
from typing import Any

import grpc

from tallygate.api import convert
from tallygate.api.edge import remaining_s
from tallygate.api.lists import answer_each
from tallygate.api.status import item_error
from tallygate.domain.errors import TallygateError
from tallygate.flow.admit import Admit
from tallygate.gen.v1 import usage_pb2, usage_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class UsageServicer(usage_pb2_grpc.UsageServiceServicer):
    """Converts, hands to `Admit`, converts back."""

    def __init__(self, admit: Admit, default_deadline_s: float) -> None:
        self._admit = admit
        self._default_deadline_s = default_deadline_s

    async def RecordUsage(  # noqa: N802  the name is the proto's
        self, request: usage_pb2.RecordUsageRequest, context: Context
    ) -> usage_pb2.RecordUsageResponse:
        """Record one event."""
        event = convert.usage_request(request)
        [result] = await self._admit.record([event], self._expires_at(context))
        if isinstance(result, TallygateError):
            raise result
        return convert.record_response(result)

    async def BatchRecordUsage(  # noqa: N802
        self, request: usage_pb2.BatchRecordUsageRequest, context: Context
    ) -> usage_pb2.BatchRecordUsageResponse:
        """Record a list, each event by itself."""
        convert.counted(request.requests)
        expires_at = self._expires_at(context)
        results = await answer_each(
            request.requests,
            convert.usage_request,
            lambda events: self._admit.record(events, expires_at),
        )
        response = usage_pb2.BatchRecordUsageResponse()
        for result in results:
            outcome = response.results.add()
            if isinstance(result, TallygateError):
                outcome.error.CopyFrom(item_error(result))
            else:
                outcome.response.CopyFrom(convert.record_response(result))
        return response

    def _expires_at(self, context: Context) -> float:
        return asyncio.get_running_loop().time() + remaining_s(context, self._default_deadline_s)
