"""Envoy's AccessLogService: converts entries and hands them to the flow, message by message.

Guarantees: the next message of a stream is read only when the one before is recorded, so that a
sender that is faster waits. Where there are rules for callers, what they do not let the caller
record is left out and counted.
Refuses to know: what entries mean, which the catalog says.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from tallygate.api.caller import Permits, caller_of
from tallygate.api.envoy_entries import records_of
from tallygate.api.guarded import Methods
from tallygate.domain.errors import TallygateError
from tallygate.domain.identity import NOBODY, Service
from tallygate.domain.request import UsageRequest
from tallygate.flow.access_logs import AccessLogs
from tallygate.gen.envoy import access_log_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]

SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"


class AccessLogServicer:
    """Takes streams of access logs, which is all that Envoy's service does."""

    def __init__(self, flow: AccessLogs, permits: Permits | None = None) -> None:
        self._flow = flow
        self._permits = permits

    async def StreamAccessLogs(  # noqa: N802  the name is the proto's
        self, requests: AsyncIterator[pb.StreamAccessLogsMessage], context: Context
    ) -> pb.StreamAccessLogsResponse:
        """Record what each message tells, until the sender ends the stream."""
        identifier = pb.StreamAccessLogsMessage.Identifier()

        caller = caller_of(context) if self._permits is not None else NOBODY

        def allowed(event: UsageRequest) -> bool:
            return self._allowed(caller, event)

        async for message in requests:
            if message.HasField("identifier"):
                # Only the first message of a stream has it.
                identifier = message.identifier
            records, skipped = records_of(message, identifier)
            self._flow.skip(skipped)
            await self._flow.take(records, allowed)
        return pb.StreamAccessLogsResponse()

    def _allowed(self, caller: str, event: UsageRequest) -> bool:
        if self._permits is None:
            return True
        try:
            self._permits.check(caller, Service.ENVOY, event.tenant_id, ((event.meter, "meter"),))
        except TallygateError:
            return False
        return True


def register(servicer: AccessLogServicer, registry: Methods) -> None:
    """Register the service's one method; the service itself is Envoy's, and none of our protos."""
    handler = grpc.stream_unary_rpc_method_handler(
        servicer.StreamAccessLogs,
        request_deserializer=pb.StreamAccessLogsMessage.FromString,
        response_serializer=pb.StreamAccessLogsResponse.SerializeToString,
    )
    registry.add_registered_method_handlers(SERVICE, {"StreamAccessLogs": handler})
