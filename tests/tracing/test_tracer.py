"""The `Tracer` port: the one over OpenTelemetry and the fake, by the same rules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tallygate.adapters.tracing.spans import OtelTracer
from tallygate.domain.trace import NOWHERE, is_sampled, place, trace_id
from tallygate.ports.tracing import Kind, Tracer, current, here, within, working_for
from tallygate.testing.tracing import FakeTracer

CALLER = place(0xABC, 0xDEF)
OTHER = place(0x123, 0x456)
ERROR = "error.type"
UNRECORDED = place(0xABC, 0xDEF, sampled=False)


@dataclass(frozen=True)
class Seen:
    """An ended span as either tracer has it."""

    name: str
    parent: int
    trace: int
    links: int
    attributes: dict[str, Any]
    failed: bool


@dataclass(frozen=True)
class Case:
    """A tracer, one that begins no traces by itself, and what has ended."""

    tracer: Tracer
    rootless: Tracer
    seen: Callable[[], list[Seen]]


def fake() -> Case:
    """Return the fake."""
    tracer, rootless = FakeTracer(), FakeTracer(roots=False)
    rootless.spans = tracer.spans

    def seen() -> list[Seen]:
        return [
            Seen(
                each.name,
                int.from_bytes(each.parent[16:24], "big"),
                int.from_bytes(each.place[:16], "big"),
                len(each.links),
                each.attributes,
                bool(each.error),
            )
            for each in tracer.spans
            if each.ended
        ]

    return Case(tracer, rootless, seen)


def otel() -> Case:
    """Return the one over OpenTelemetry, with an exporter in memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    own = provider.get_tracer("test")

    def seen() -> list[Seen]:
        return [
            Seen(
                each.name,
                each.parent.span_id if each.parent else 0,
                each.context.trace_id,
                len(each.links),
                {
                    key: value
                    for key, value in (each.attributes or {}).items()
                    if key != "error.type"
                },
                each.status.status_code is StatusCode.ERROR,
            )
            for each in exporter.get_finished_spans()
        ]

    return Case(OtelTracer(own, 1.0, 1_000), OtelTracer(own, 0.0, 1_000), seen)


@pytest.fixture(params=[fake, otel], ids=["fake", "otel"])
def case(request: pytest.FixtureRequest) -> Case:
    """Either."""
    made: Case = request.param()
    return made


def test_a_parent_decides(case: Case) -> None:
    """Below a place that is recorded a span begins, in its trace; below one that is not, none."""
    span = case.rootless.begin("a", Kind.SERVER, CALLER, {"x": 1}, [OTHER])
    assert span is not None
    assert trace_id(span.place) == trace_id(CALLER)
    assert is_sampled(span.place)
    assert case.tracer.begin("b", Kind.SERVER, UNRECORDED, {}) is None
    span.tell("y", "z")
    span.end()
    assert case.seen() == [Seen("a", 0xDEF, 0xABC, 1, {"x": 1, "y": "z"}, False)]


def test_without_a_parent_the_ratio_decides(case: Case) -> None:
    """At a ratio of all, a trace begins; at one of none, none."""
    assert case.rootless.begin("a", Kind.SERVER, NOWHERE, {}) is None
    span = case.tracer.begin("a", Kind.INTERNAL, NOWHERE, {})
    assert span is not None
    span.end()
    (seen,) = case.seen()
    assert (seen.parent, seen.trace > 0) == (0, True)


def test_a_span_ends_once(case: Case) -> None:
    """What is said after the first end changes nothing."""
    span = case.tracer.begin("a", Kind.CLIENT, NOWHERE, {})
    assert span is not None
    span.end("Broken")
    span.end()
    span.tell("late", True)
    (seen,) = case.seen()
    assert (seen.failed, seen.attributes) == (True, {})


def test_work_within_a_span_knows_it(case: Case) -> None:
    """Within it, its place is where we are; after it, the place before; an error ends it as one."""
    outer = case.tracer.begin("outer", Kind.INTERNAL, NOWHERE, {})
    assert outer is not None
    assert (current(), here()) == (None, NOWHERE)
    with working_for(outer):
        inner = case.tracer.begin("inner", Kind.INTERNAL, here(), {})
        assert inner is not None
        with pytest.raises(ValueError, match=inner.place.hex()), within(inner):
            raise ValueError(here().hex())
        assert here() == outer.place
    assert here() == NOWHERE
    outer.end()
    assert {each.name: each.failed for each in case.seen()} == {"inner": True, "outer": False}


def test_calls_in_a_second_are_bounded() -> None:
    """Of the calls that begin spans so many are recorded in a second; what is below them, all."""
    limited: list[int] = []
    now_s = [10.2]
    tracer = OtelTracer(
        TracerProvider(shutdown_on_exit=False).get_tracer("test"),
        1.0,
        2,
        limited=lambda: limited.append(1),
        now_s=lambda: now_s[0],
    )
    kinds = [Kind.SERVER] * 4 + [Kind.INTERNAL]
    found = [tracer.begin("a", kind, CALLER, {}) is not None for kind in kinds]
    assert (found, len(limited)) == ([True, True, False, False, True], 2)
    now_s[0] = 11.0
    assert tracer.begin("a", Kind.SERVER, CALLER, {}) is not None


def test_kinds_are_those_of_opentelemetry() -> None:
    """Each kind becomes the one of the same name."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = OtelTracer(provider.get_tracer("test"), 1.0, 100)
    for kind in Kind:
        span = tracer.begin(kind.value, kind, NOWHERE, {})
        assert span is not None
        span.end()
    for each in exporter.get_finished_spans():
        assert each.kind is SpanKind[each.name.upper()]
