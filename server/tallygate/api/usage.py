"""The UsageService: tell after the work is done.

Guarantees: usage is never refused for quota. RecordUsage, alone and in lists, is in `calls`.
Refuses to know: how usage is stored, and how errors are told.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import grpc

from tallygate.api import convert
from tallygate.api.calls import recorded_item
from tallygate.api.lists import answer_each
from tallygate.flow.admit import Admit
from tallygate.gen.v1 import usage_pb2, usage_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class UsageServicer(usage_pb2_grpc.UsageServiceServicer):
    """Converts, hands to `Admit`, converts back."""

    def __init__(self, admit: Admit, default_deadline_s: float) -> None:
        self._admit = admit
        self._default_deadline_s = default_deadline_s

    async def StreamRecordUsage(  # noqa: N802  the name is the proto's
        self, requests: AsyncIterator[usage_pb2.StreamRecordUsageRequest], context: Context
    ) -> AsyncGenerator[usage_pb2.StreamRecordUsageResponse, None]:
        """Record lists as they come, one after the other: who sends faster waits."""
        del context
        async for request in requests:
            expires_at = asyncio.get_running_loop().time() + self._default_deadline_s
            response = usage_pb2.StreamRecordUsageResponse()
            response.results.extend(await self._recorded(request.requests, expires_at))
            yield response

    async def _recorded(
        self, requests: Sequence[usage_pb2.RecordUsageRequest], expires_at: float
    ) -> list[usage_pb2.BatchRecordUsageResult]:
        """Record a list, each event by itself. Raises `TooManyItems` and `InvalidField`."""
        convert.counted(requests)
        results = await answer_each(
            requests,
            convert.usage_request,
            lambda events: self._admit.record(events, expires_at),
        )
        return [recorded_item(result) for result in results]
