"""Usage of an import on its way: lists of it, sent until they are answered, and what came of each.

Guarantees: what the service could not take yet is sent again, whole; an event that it refuses is
counted with its line and its reason, and holds nothing else up.
Refuses to know: where events come from.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc

from tallygate.domain.errors import TallygateError
from tallygate.gen.v1 import reason_pb2, usage_pb2, usage_pb2_grpc

CALL_TIMEOUT_S: Final = 10.0
ATTEMPTS_MAX: Final = 60
RETRY_DELAY_S: Final = 0.5
REJECTED_SHOWN: Final = 20


class ImportFailed(TallygateError):
    """The import cannot go on; what was confirmed is kept, and the next run resumes there."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that is not usage, with the reason."""

    line: int
    reason: str
    field: str = ""


@dataclass(slots=True)
class ImportReport:
    """What an import did. `known` events had been accepted before, in an earlier run."""

    lines: int = 0
    skipped_lines: int = 0
    accepted: int = 0
    known: int = 0
    rejected_count: int = 0
    last_rejected: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    # Hears of every line that is rejected.
    note: Callable[[Rejected], None] | None = None

    def reject(self, line: int, reason: str, field_name: str = "") -> None:
        """Count a rejected line, once for all its events; keep the first few to show."""
        if line == self.last_rejected:
            return
        self.last_rejected = line
        self.rejected_count += 1
        found = Rejected(line, reason, field_name)
        if self.note is not None:
            self.note(found)
        if len(self.rejected) < REJECTED_SHOWN:
            self.rejected.append(found)


class ImportCalls:
    """Sends lists, and takes down in a report what came of them."""

    def __init__(self, usage: "usage_pb2_grpc.UsageServiceAsyncStub", report: ImportReport) -> None:
        self._usage = usage
        self._report = report

    async def send(
        self, numbers: Sequence[int], requests: Sequence[usage_pb2.RecordUsageRequest]
    ) -> None:
        """Send events, each of the line whose number stands beside it. Raises `ImportFailed`."""
        if not requests:
            return
        response = await self._call(usage_pb2.BatchRecordUsageRequest(requests=requests))
        for number, result in zip(numbers, response.results, strict=True):
            self._count(number, result)

    def _count(self, line: int, result: usage_pb2.BatchRecordUsageResult) -> None:
        if result.WhichOneof("outcome") == "response":
            if result.response.replayed:
                self._report.known += 1
            else:
                self._report.accepted += 1
        elif result.error.reason == reason_pb2.REASON_OPERATION_ID_REUSED:
            # The same line with another shift: an earlier run whose progress was lost.
            self._report.known += 1
        elif result.error.HasField("retry_after"):
            raise ImportFailed(f"line {line}: {result.error.message}")
        else:
            name = reason_pb2.Reason.Name(result.error.reason).removeprefix("REASON_")
            self._report.reject(line, f"{name}: {result.error.message}", result.error.field)

    async def _call(
        self, request: usage_pb2.BatchRecordUsageRequest
    ) -> usage_pb2.BatchRecordUsageResponse:
        problem = ""
        for attempt in range(ATTEMPTS_MAX):
            try:
                response = await self._usage.BatchRecordUsage(request, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise ImportFailed(f"{error.code().name}: {error.details()}") from error
                problem = str(error.details())
            else:
                waiting = [
                    result.error.message
                    for result in response.results
                    if result.error.HasField("retry_after")
                ]
                if not waiting or attempt == ATTEMPTS_MAX - 1:
                    return response
                problem = waiting[0]
            await asyncio.sleep(RETRY_DELAY_S)
        raise ImportFailed(f"the service stayed unavailable: {problem}")
