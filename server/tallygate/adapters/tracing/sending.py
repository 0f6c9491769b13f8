"""What takes ended spans to a collector: a bounded queue, and one thread that empties it.

Guarantees: ending a span never waits: where there is no room it is dropped, and counted, as is what
the collector did not take. Closing sends what is left within its time and not longer. Headers and
certificates are read again when their files change.
Refuses to know: what spans are about, and who begins them.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog
from grpc import Compression, ssl_channel_credentials
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Tracer

from tallygate.domain.errors import InvalidField

# As many as the collector takes in one call without complaint; some 200 KB.
BATCH_MAX: Final = 512
# How long ended spans wait for others: a person who looks for a trace waits longer.
DELAY_S: Final = 1.0
# For one call of the collector, its retries included: then the spans are given up.
SEND_TIMEOUT_S: Final = 10.0
HEADERS_MAX: Final = 32
# A stop waits this long for the thread after the exporter was told to give up.
GIVE_UP_S: Final = 1.0

log = structlog.get_logger(__name__)


class SpansObserver(Protocol):
    """What sending spans tells of itself. Any thread calls it."""

    def exported(self, spans: int) -> None:
        """So many spans were taken by the collector."""

    def dropped(self, reason: str, spans: int) -> None:
        """So many were not recorded or not sent: for `rate`, `queue`, `export` or `drain`."""


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans go. Without `secure` nothing is encrypted, and no file but headers is read."""

    address: str
    secure: bool
    headers_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read of the disk."""
        named = (self.headers_file, self.ca_file, self.cert_file, self.key_file)
        return tuple(each for each in named if each is not None)


def exporter(to: Collector) -> SpanExporter:
    """Return what sends spans there. Raises `InvalidField` for a file that cannot be used."""
    credentials = None
    if to.secure:
        credentials = ssl_channel_credentials(
            _bytes(to.ca_file, "tracing_ca_file"),
            _bytes(to.key_file, "tracing_key_file"),
            _bytes(to.cert_file, "tracing_cert_file"),
        )
    return OTLPSpanExporter(
        endpoint=to.address,
        insecure=not to.secure,
        credentials=credentials,
        headers=headers_of(to.headers_file),
        timeout=SEND_TIMEOUT_S,
        compression=Compression.Gzip,
    )


def headers_of(path: Path | None) -> tuple[tuple[str, str], ...]:
    """Return the headers of a file: a `name: value` in each line. Raises `InvalidField`."""
    text = (_bytes(path, "tracing_headers_file") or b"").decode(errors="replace")
    found: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        plain = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
        if not colon or not plain or not value.isprintable() or len(found) == HEADERS_MAX:
            # Without the line, which may hold a key.
            raise InvalidField(
                f"line {len(found) + 1} is no `name: value`, or there are more than {HEADERS_MAX}",
                field="tracing_headers_file",
            )
        found.append((name, value))
    return tuple(found)


def _bytes(path: Path | None, field: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidField(f"cannot be read: {error.strerror}", field=field) from error


class SpanQueue(SpanProcessor):
    """A span processor that keeps `spans_max` ended spans at most, and sends them in batches."""

    def __init__(
        self, to: Collector, observer: SpansObserver, spans_max: int, make: "Make" = exporter
    ) -> None:
        """Raises `InvalidField` for files that cannot be used."""
        self._to = to
        self._make = make
        self._observer = observer
        self._spans_max = spans_max
        self._spans: deque[ReadableSpan] = deque()
        self._files = _signature(to)
        self._exporter = make(to)
        self._wake = threading.Event()
        self._stopping = False
        self._ends_s = float("inf")
        self._thread = threading.Thread(target=self._run, name="tallygate-spans", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """How many spans wait."""
        return len(self._spans)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note nothing: what has not ended is nowhere."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span that has ended, where there is room."""
        if self._stopping or len(self._spans) >= self._spans_max:
            self._observer.dropped("drain" if self._stopping else "queue", 1)
            return
        self._spans.append(span)
        if len(self._spans) >= BATCH_MAX:
            self._wake.set()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have what waits sent soon; whoever has to know when closes."""
        self._wake.set()
        return True

    def shutdown(self) -> None:
        """Send nothing more."""
        self.close(0.0)

    def close(self, grace_s: float) -> None:
        """Take no more, send what is left within so long, and give up the rest. Blocks."""
        if self._stopping:
            return
        self._stopping = True
        self._ends_s = time.monotonic() + grace_s
        self._wake.set()
        self._thread.join(grace_s)
        # It gives up between two tries; where the thread has ended, nothing is under way.
        self._exporter.shutdown()
        self._thread.join(GIVE_UP_S)
        left = len(self._spans)
        if left:
            self._observer.dropped("drain", left)

    def _run(self) -> None:
        while True:
            self._wake.wait(DELAY_S)
            self._wake.clear()
            while self._spans and time.monotonic() < self._ends_s:
                self._send(self._taken())
                if not self._stopping and len(self._spans) < BATCH_MAX:
                    break
            if self._stopping:
                return

    def _taken(self) -> list[ReadableSpan]:
        count = min(BATCH_MAX, len(self._spans))
        return [self._spans.popleft() for _ in range(count)]

    def _send(self, spans: Sequence[ReadableSpan]) -> None:
        try:
            self._renew()
            taken = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001  a fault in one batch must not end the thread
            log.warning("spans_not_sent", cause=type(error).__name__)
            taken = False
        if taken:
            self._observer.exported(len(spans))
        else:
            self._observer.dropped("export", len(spans))

    def _renew(self) -> None:
        """Take up files that have changed; what cannot be used is told, and the old ones stay."""
        found = _signature(self._to)
        if found == self._files:
            return
        self._files = found
        try:
            made = self._make(self._to)
        except InvalidField as error:
            log.warning("tracing_files_not_taken", field=error.field, detail=error.message)
            return
        old, self._exporter = self._exporter, made
        old.shutdown()


Make = Callable[[Collector], SpanExporter]


def _signature(to: Collector) -> tuple[tuple[int, int, int], ...]:
    found: list[tuple[int, int, int]] = []
    for path in to.files:
        with contextlib.suppress(OSError):
            state = path.stat()
            found.append((state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(found)


def tracer_of(queue: SpanProcessor, instance: str, version: str) -> Tracer:
    """Return what begins spans that end in the queue."""
    resource = Resource.create(
        {
            "service.name": "tallygate",
            "service.version": version,
            "service.instance.id": instance,
        }
    )
    # Whoever begins a span has decided by then that it is recorded.
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(queue)
    return provider.get_tracer("tallygate", version)
