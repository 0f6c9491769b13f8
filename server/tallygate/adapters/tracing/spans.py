"""The `Tracer` port over OpenTelemetry's API.

Guarantees: a place whose trace is not recorded begins nothing; without a place, one call in so many
begins a trace, by one draw. Calls that begin spans are bounded per second, whatever callers ask for
in their headers.
Refuses to know: the SDK, and where spans go.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context

from tallygate.domain.trace import is_sampled, place
from tallygate.ports.tracing import Kind, Value

_KINDS: Final = {
    Kind.SERVER: trace.SpanKind.SERVER,
    Kind.CLIENT: trace.SpanKind.CLIENT,
    Kind.INTERNAL: trace.SpanKind.INTERNAL,
    Kind.PRODUCER: trace.SpanKind.PRODUCER,
    Kind.CONSUMER: trace.SpanKind.CONSUMER,
}
_SAMPLED: Final = trace.TraceFlags(trace.TraceFlags.SAMPLED)


class OtelSpan:
    """A span of OpenTelemetry's."""

    __slots__ = ("_span", "place")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        at = span.get_span_context()
        self.place: Final = place(at.trace_id, at.span_id)

    def tell(self, name: str, value: Value) -> None:
        """Note an attribute."""
        self._span.set_attribute(name, value)

    def end(self, error: str = "") -> None:
        """End it now, with the kind of the error that ended it, if one did."""
        if not self._span.is_recording():
            return
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


def _ignore() -> None:
    """Hear nothing."""


@dataclass(slots=True)
class OtelTracer:
    """Begins spans. `ratio` is of calls that come without a trace.

    `limited` hears of each call that was not recorded as too many were in its second.
    """

    tracer: trace.Tracer
    ratio: float
    calls_per_s_max: int
    limited: Callable[[], None] = _ignore
    # No secret, so that any generator will do.
    chance: Callable[[], float] = field(default_factory=lambda: Random().random)  # noqa: S311
    now_s: Callable[[], float] = time.monotonic
    _second: int = 0
    _begun: int = 0

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: bytes,
        attributes: Mapping[str, Value],
        links: Sequence[bytes] = (),
    ) -> OtelSpan | None:
        """Return a span that began now, None where nothing is to be recorded."""
        if parent:
            if not is_sampled(parent):
                return None
            context = trace.set_span_in_context(trace.NonRecordingSpan(_context(parent)), Context())
        elif self.chance() >= self.ratio:
            return None
        else:
            # A context of its own: there is nothing around us that we would have put there.
            context = Context()
        if kind is Kind.SERVER and not self._room():
            self.limited()
            return None
        span = self.tracer.start_span(
            name,
            context,
            _KINDS[kind],
            attributes,
            [trace.Link(_context(each)) for each in links],
        )
        return OtelSpan(span) if span.is_recording() else None

    def _room(self) -> bool:
        """Count a call in, where its second has room for it."""
        second = int(self.now_s())
        if second != self._second:
            self._second, self._begun = second, 0
        self._begun += 1
        return self._begun <= self.calls_per_s_max


def _context(at: bytes) -> trace.SpanContext:
    return trace.SpanContext(
        int.from_bytes(at[:16], "big"), int.from_bytes(at[16:24], "big"), True, _SAMPLED
    )
