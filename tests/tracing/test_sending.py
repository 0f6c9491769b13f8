"""Sending spans: a bounded queue, a collector that is away, keys and certificates that change."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tallygate.adapters.tracing.sending import (
    BATCH_MAX,
    HEADERS_MAX,
    Collector,
    SpanQueue,
    exporter,
    headers_of,
    tracer_of,
)
from tallygate.adapters.tracing.spans import OtelTracer
from tallygate.domain.errors import InvalidField
from tallygate.domain.trace import NOWHERE
from tallygate.ports.tracing import Kind
from tests.servers import eventually
from tests.tracing.certificates import Certificates, certificates
from tests.tracing.collector import attributes, collecting

QUEUE_MAX = 2_000


@dataclass(slots=True)
class Told:
    """What sending has told, by any thread."""

    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def exported(self, spans: int) -> None:
        """Count."""
        with self.lock:
            self.counts["exported"] += spans

    def dropped(self, reason: str, spans: int) -> None:
        """Count."""
        with self.lock:
            self.counts[reason] += spans


@dataclass(slots=True)
class Slow(SpanExporter):
    """Holds what it is given until it is let; then it takes it, or refuses or raises."""

    let: threading.Event = field(default_factory=threading.Event)
    holds: threading.Event = field(default_factory=threading.Event)
    result: SpanExportResult = SpanExportResult.SUCCESS
    fault: Exception | None = None
    shut: bool = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hold, and answer."""
        self.holds.set()
        self.let.wait(30)
        if self.fault is not None:
            raise self.fault
        return self.result

    def shutdown(self) -> None:
        """Let go."""
        self.shut = True
        self.let.set()


@contextmanager
def queued(
    to: Collector, told: Told, make: Callable[[Collector], SpanExporter] = exporter
) -> Iterator[tuple[SpanQueue, OtelTracer]]:
    """Lend a queue and what fills it."""
    queue = SpanQueue(to, told, QUEUE_MAX, make)
    try:
        yield queue, OtelTracer(tracer_of(queue, "here", "1"), 1.0, 1_000_000)
    finally:
        queue.close(0.0)


def spans(tracer: OtelTracer, count: int, name: str = "a") -> None:
    """Begin and end so many."""
    for _ in range(count):
        span = tracer.begin(name, Kind.INTERNAL, NOWHERE, {"n": 1})
        assert span is not None
        span.end()


NOWHERE_AT_ALL = Collector("127.0.0.1:9", secure=False)


def test_closing_sends_what_is_left() -> None:
    """A collector has all spans, in batches, once the queue is closed; who we are goes along."""
    told = Told()
    with collecting() as collector, queued(Collector(collector.address, False), told) as (it, own):
        spans(own, BATCH_MAX + 10)
        it.close(20.0)
        assert told.counts == {"exported": BATCH_MAX + 10}
        assert len({each.span_id for each in collector.spans}) == BATCH_MAX + 10
        assert attributes(collector.spans[0]) == {"n": 1}
        (resource,) = {tuple(sorted(each.items())) for each in collector.resources}
    assert {"service.instance.id": "here", "service.version": "1"}.items() <= dict(resource).items()


def test_without_room_spans_are_dropped_and_counted() -> None:
    """While the collector holds a batch, so many wait; one more is dropped, and nobody waits."""
    told, slow = Told(), Slow()
    with queued(NOWHERE_AT_ALL, told, lambda _: slow) as (it, own):
        spans(own, BATCH_MAX)
        assert slow.holds.wait(20)
        spans(own, QUEUE_MAX + 7)
        assert (it.depth, told.counts["queue"]) == (QUEUE_MAX, 7)
        slow.let.set()
        it.close(20.0)
    assert told.counts == {"exported": BATCH_MAX + QUEUE_MAX, "queue": 7}


def test_closing_gives_up_after_its_grace() -> None:
    """A collector that never answers holds no process up: what it did not take is counted."""
    told, slow = Told(), Slow(result=SpanExportResult.FAILURE)
    with queued(NOWHERE_AT_ALL, told, lambda _: slow) as (it, own):
        spans(own, BATCH_MAX + 3)
        assert slow.holds.wait(20)
        it.close(0.05)
        spans(own, 1)
        assert slow.shut
    lost = told.counts["export"] + told.counts["drain"]
    assert (lost, told.counts["exported"]) == (BATCH_MAX + 3 + 1, 0)


@pytest.mark.parametrize("fault", [None, RuntimeError("hunter2")])
def test_what_is_not_taken_is_counted(
    fault: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal and a fault lose their batch alone; no log quotes the fault."""
    told, slow = Told(), Slow(result=SpanExportResult.FAILURE, fault=fault)
    slow.let.set()
    with queued(NOWHERE_AT_ALL, told, lambda _: slow) as (it, own):
        spans(own, 3)
        it.close(20.0)
    assert told.counts == {"export": 3}
    assert "hunter2" not in caplog.text


async def test_a_collector_that_refuses_costs_its_batch() -> None:
    """Refused for good, the batch is lost and counted; the next one goes."""
    told = Told()
    with collecting() as collector, queued(Collector(collector.address, False), told) as (it, own):
        collector.refuses = grpc.StatusCode.PERMISSION_DENIED
        spans(own, 2)
        await eventually(lambda: told.counts["export"] == 2, 30.0, what="a lost batch")
        collector.refuses = None
        spans(own, 1, "later")
        it.close(20.0)
        assert [each.name for each in collector.spans] == ["later"]


async def test_headers_are_sent_and_read_again(tmp_path: Path) -> None:
    """What the file says goes along with each call, and a changed file with the next."""
    path, told = tmp_path / "headers", Told()
    path.write_text("x-api-key: first\n\nX-Scope: a b\n")
    with collecting() as collector:
        to = Collector(collector.address, secure=False, headers_file=path)
        with queued(to, told) as (it, own):
            spans(own, 1)
            await eventually(lambda: told.counts["exported"] == 1, 30.0, what="a batch")
            path.write_text("no header at all")
            spans(own, 1)
            await eventually(lambda: told.counts["exported"] == 2, 30.0, what="another batch")
            path.write_text("x-api-key: second")
            spans(own, 1)
            it.close(20.0)
        keys = [each["x-api-key"] for each in collector.headers]
        assert keys == ["first", "first", "second"]
        assert collector.headers[0]["x-scope"] == "a b"


@pytest.mark.parametrize(
    "text", ["no colon", ": no name", "na me: x", "name: \x01", "\n".join(["a: b"] * 33)]
)
def test_a_file_that_holds_no_headers_is_refused(tmp_path: Path, text: str) -> None:
    """The error names the setting and the line, and quotes none of it."""
    path = tmp_path / "headers"
    path.write_text(text)
    with pytest.raises(InvalidField, match=f"name: value|{HEADERS_MAX}") as caught:
        headers_of(path)
    assert caught.value.field == "tracing_headers_file"
    assert "no colon" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """By the setting that names it."""
    for name, field_name in (("ca_file", "tracing_ca_file"), ("key_file", "tracing_key_file")):
        to = Collector("127.0.0.1:9", True, **{name: tmp_path / "none"})
        with pytest.raises(InvalidField, match="cannot be read") as caught:
            exporter(to)
        assert caught.value.field == field_name


async def test_over_tls_both_sides_are_known(tmp_path: Path) -> None:
    """The collector's certificate is held against ours, and ours is asked for; both can change."""
    first, told = certificates("first"), Told()
    other = certificates("other")
    with collecting(first.server()) as collector:
        to = Collector(collector.address, True, None, tmp_path / "ca", *taken(tmp_path, other))
        with queued(to, told) as (it, own):
            spans(own, 1)
            # Of another authority: nobody there is who he says he is.
            await eventually(lambda: told.counts["export"] == 1, 40.0, what="a lost batch")
            assert collector.spans == []
            taken(tmp_path, first)
            spans(own, 1, "later")
            it.close(20.0)
        assert [each.name for each in collector.spans] == ["later"]


def taken(folder: Path, of: Certificates) -> tuple[Path, Path]:
    """Put certificates where the exporter reads them; return ours and its key."""
    for name, content in (("ca", of.authority), ("cert", of.certificate), ("key", of.key)):
        draft = folder / f"{name}.new"
        draft.write_bytes(content)
        draft.replace(folder / name)
    return folder / "cert", folder / "key"
