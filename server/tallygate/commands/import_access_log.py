"""`tallygate import access-log`: meters a whole log as usage, after the fact.

Guarantees: resumable and idempotent: a run that was killed goes on where it was confirmed, and what
is sent twice is counted once, because a line's events always have the same ids.
Refuses to know: how usage is stored.

Lines are read in batches; each batch is one `BatchRecordUsage`, sent again while the service is
unavailable. Progress is written only when a batch is confirmed, so that a crash repeats at most
one batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from tallygate.commands import progress_file
from tallygate.commands.import_calls import ImportCalls, ImportFailed, ImportReport
from tallygate.commands.progress_file import ImportProgress
from tallygate.domain import access_log
from tallygate.domain.access_log import BYTES_METER, REQUESTS_METER
from tallygate.domain.errors import InvalidField
from tallygate.gen.v1 import usage_pb2, usage_pb2_grpc

# Two events a line stay within the 1,000 of one call.
BATCH_LINES: Final = 500
LINE_BYTES_MAX: Final = 64 * 1024

Note = Callable[[int], None]


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
        self._report = ImportReport()
        self._calls = ImportCalls(usage, self._report)
        self._note = note

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
        await self._calls.send(numbers, requests)


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
