"""Usage recorded by a sidecar, over gRPC: lists of it, each piece answered by itself.

Guarantees: what comes back as recorded is in Redis or synced to the sidecar's disk, never in its
memory alone; whatever goes wrong on the way is a `Later`, as the same again is known by its id.
Refuses to know: who has the usage to record.
"""

import json
from collections.abc import Sequence
from typing import Final, cast

import grpc
from google.protobuf import struct_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tallygate.domain.recording import Later, Outcome, Recorded, Refused, Use
from tallygate.gen.v1 import (
    event_pb2,
    quota_pb2,
    quota_pb2_grpc,
    reason_pb2,
    usage_pb2,
    usage_pb2_grpc,
)
from tallygate.ports.recording import UsageRecorder

CALL_TIMEOUT_S: Final = 10.0
AFTER_MS: Final = 500
# What a sidecar that stops, is not there or is too busy makes of a call; and what a call is made of
# whose answer never came. All else would be the same the next time.
_TRANSIENT: Final = frozenset(
    (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        # Who may call is the operator's to mend, and not the usage's fault.
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    )
)


class SidecarRecorder(UsageRecorder):
    """The `UsageRecorder` port on a channel; `sdk` is who records, as events have it."""

    def __init__(self, channel: grpc.aio.Channel, sdk: str) -> None:
        self._usage = usage_pb2_grpc.UsageServiceStub(channel)
        self._quota = quota_pb2_grpc.QuotaServiceStub(channel)
        self._sdk = sdk

    async def record(self, uses: Sequence[Use]) -> Sequence[Outcome]:
        """Record a list in one call."""
        requests = [self._request(use) for use in uses]
        try:
            response = await self._usage.BatchRecordUsage(
                usage_pb2.BatchRecordUsageRequest(requests=requests), timeout=CALL_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            outcome = _failed(error)
            if len(uses) > 1 and isinstance(outcome, Refused):
                # It may be too large together, or be refused for one piece.
                middle = len(uses) // 2
                return [*await self.record(uses[:middle]), *await self.record(uses[middle:])]
            return [outcome for _ in uses]
        return [_outcome(result) for result in response.results]

    async def take_back(self, use: Use) -> Outcome:
        """Refund all of an event."""
        request = quota_pb2.RefundRequest(
            tenant_id=use.tenant_id,
            event_id=use.event_id,
            amount=use.amount,
            operation_id=f"{use.event_id}.back",
            reason="the level is nothing",
        )
        try:
            response = await self._quota.Refund(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return _failed(error)
        return Recorded(response.replayed)

    def _request(self, use: Use) -> usage_pb2.RecordUsageRequest:
        request = usage_pb2.RecordUsageRequest(
            tenant_id=use.tenant_id,
            meter=use.meter,
            amount=use.amount,
            event_id=use.event_id,
            dimensions=use.dimensions,
            # Whoever asks forgets it with the answer, so that memory alone is not enough.
            min_durability=event_pb2.DURABILITY_REDIS,
        )
        request.context.sdk = self._sdk
        request.context.subject_id = use.subject_id
        if use.time_us:
            request.event_time.FromMicroseconds(use.time_us)
        if use.metadata_json:
            metadata = struct_pb2.Struct()
            metadata.update(json.loads(use.metadata_json))
            request.metadata.CopyFrom(metadata)
        return request


def _outcome(result: usage_pb2.BatchRecordUsageResult) -> Outcome:
    if result.WhichOneof("outcome") == "response":
        return Recorded(result.response.replayed)
    error = result.error
    reason = reason_pb2.Reason.Name(error.reason).removeprefix("REASON_")
    if error.HasField("retry_after"):
        return Later(reason, error.message, max(1, error.retry_after.ToMilliseconds()))
    if grpc_code(error.code) in _TRANSIENT:
        return Later(reason, error.message, AFTER_MS)
    return Refused(reason, error.message, error.field)


def grpc_code(number: int) -> grpc.StatusCode:
    """Return the code of a number."""
    return next(
        (each for each in grpc.StatusCode if each.value[0] == number), grpc.StatusCode.UNKNOWN
    )


def _failed(error: grpc.aio.AioRpcError) -> Outcome:
    details = error.details() or error.code().name
    if error.code() in _TRANSIENT:
        pushback = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms", "")
        after = int(pushback) if isinstance(pushback, str) and pushback.isdigit() else AFTER_MS
        return Later(_reason(error), details, after)
    return Refused(_reason(error), details)


def _reason(error: grpc.aio.AioRpcError) -> str:
    """Return the reason that the error's details name, else its code."""
    status = rpc_status.from_call(cast(grpc.Call, error))
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return str(info.reason)
    return error.code().name
