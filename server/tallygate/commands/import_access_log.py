"""`tallygate import access-log`: meters a whole log as usage, after the fact.

Guarantees: resumable and idempotent: a run that was killed goes on where it was confirmed, and what
is sent twice is counted once, because a line's events always have the same ids.
Refuses to know: how usage is stored.

Lines are read in batches; each batch is one `BatchRecordUsage`, sent again while the service is
unavailable. Progress is written only when a batch is confirmed, so that a crash repeats at most
one batch.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final

import grpc

from tallygate.commands import progress_file
from tallygate.commands.progress_file import ImportProgress
from tallygate.domain import access_log
from tallygate.domain.access_log import BYTES_METER, REQUESTS_METER
from tallygate.domain.errors import InvalidField, TallygateError
from tallygate.gen.v1 import reason_pb2, usage_pb2, usage_pb2_grpc

# Two events a line stay within the 1,000 of one call.
BATCH_LINES: Final = 500
LINE_BYTES_MAX: Final = 64 * 1024
CALL_TIMEOUT_S: Final = 10.0
ATTEMPTS_MAX: Final = 60
RETRY_DELAY_S: Final = 0.5
REJECTED_SHOWN: Final = 20

Note = Callable[[int], None]


class ImportFailed(TallygateError):
    """The import cannot go on; what was confirmed is kept, and the next run resumes there."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that is not usage, with the reason."""

    line: int
    reason: str


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

    def reject(self, line: int, reason: str) -> None:
        """Count a rejected line, once for all its events; keep the first few to show."""
        if line == self.last_rejected:
            return
        self.last_rejected = line
        self.rejected_count += 1
        if len(self.rejected) < REJECTED_SHOWN:
            self.rejected.append(Rejected(line, reason))


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What to import. `now_us` is when the log's last line is moved to, 0 for not at all."""

    log: Path
    progress: Path
    now_us: int = 0


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    offset: int
    content: bytes


class AccessLogImport:
    """One import of one log."""

    def __init__(
        self, options: ImportOptions, usage: "usage_pb2_grpc.UsageServiceAsyncStub", note: Note
    ) -> None:
        self._options = options
        self._usage = usage
        self._note = note
        self._report = ImportReport()

    async def run(self) -> ImportReport:
        """Import what is not yet imported. Raises `ImportFailed`; `OSError` for the log itself."""
        with self._options.log.open("rb") as file:
            first = file.readline(LINE_BYTES_MAX)
            log = access_log.identity(first)
            progress = self._begin(log, file)
            self._report.skipped_lines = progress.lines
            self._note(progress.offset)
            for batch, end in _batches(file, progress):
                await self._send(log, batch, progress.shift_us)
                progress = replace(progress, offset=end, lines=progress.lines + len(batch))
                progress_file.write(self._options.progress, progress)
                self._note(end)
        return self._report

    def _begin(self, log: bytes, file: BinaryIO) -> ImportProgress:
        """Return where to begin, with the shift on disk before anything is sent by it."""
        known = progress_file.read(self._options.progress, log.hex())
        if known is not None:
            return known
        shift_us = 0
        if self._options.now_us:
            shift_us = self._options.now_us - _latest_us(file)
        progress = ImportProgress(log=log.hex(), shift_us=shift_us)
        progress_file.write(self._options.progress, progress)
        return progress

    async def _send(self, log: bytes, lines: list[_Line], shift_us: int) -> None:
        numbers: list[int] = []
        requests: list[usage_pb2.RecordUsageRequest] = []
        for line in lines:
            self._report.lines += 1
            try:
                events = list(_events(log, line, shift_us))
            except InvalidField as error:
                self._report.reject(line.number, f"{error.field} {error.message}")
                continue
            requests += events
            numbers += [line.number] * len(events)
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
            self._report.reject(line, f"{name}: {result.error.message}")

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


def _batches(file: BinaryIO, progress: ImportProgress) -> Iterator[tuple[list[_Line], int]]:
    """Iterate over lists of whole lines from the progress on, each with the offset of its end."""
    file.seek(progress.offset)
    number, offset = progress.lines, progress.offset
    batch: list[_Line] = []
    while content := file.readline(LINE_BYTES_MAX):
        if not content.endswith(b"\n") and len(content) < LINE_BYTES_MAX and _grows(file):
            break
        number += 1
        batch.append(_Line(number, offset, content.rstrip(b"\r\n")))
        offset += len(content)
        if len(batch) == BATCH_LINES:
            yield batch, offset
            batch = []
    if batch:
        yield batch, offset


def _grows(file: BinaryIO) -> bool:
    """Say whether the file has gone on behind the last line read: then it was not whole."""
    here = file.tell()
    more = bool(file.read(1))
    file.seek(here)
    return more


def _latest_us(file: BinaryIO) -> int:
    """Return the latest time in the log. Raises `ImportFailed` when no line has one."""
    file.seek(0)
    latest = 0
    while content := file.readline(LINE_BYTES_MAX):
        try:
            parsed = access_log.parse(content.rstrip(b"\r\n").decode(errors="replace"))
        except InvalidField:
            continue
        latest = max(latest, parsed.time_us)
    if not latest:
        raise ImportFailed("no line of the log is in NCSA common or combined format")
    return latest


def _events(log: bytes, line: _Line, shift_us: int) -> Iterator[usage_pb2.RecordUsageRequest]:
    """Iterate over a line's events: one request, and its bytes where any were sent."""
    logged = access_log.parse(line.content.decode(errors="replace"))
    amounts = {REQUESTS_METER: 1, BYTES_METER: logged.size}
    for meter, amount in amounts.items():
        if amount == 0:
            continue
        request = usage_pb2.RecordUsageRequest(
            tenant_id=logged.client,
            meter=meter,
            amount=amount,
            event_id=access_log.event_id(log, line.offset, line.content, meter),
            dimensions={"method": logged.method, "status": logged.status},
        )
        request.context.resource_id = logged.path.replace("\x00", "")
        request.event_time.FromMicroseconds(logged.time_us + shift_us)
        yield request
