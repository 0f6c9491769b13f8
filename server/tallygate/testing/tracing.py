"""A tracer in memory.

Guarantees: passes the same contract tests as the one over OpenTelemetry.
Refuses to know: time; a span has begun and has ended, or not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from tallygate.domain.trace import is_sampled, place
from tallygate.ports.tracing import Kind, Value

_TRACE_MASK: Final = (1 << 128) - 1


@dataclass(slots=True)
class FakeSpan:
    """A span as it was begun, and what became of it."""

    name: str
    kind: Kind
    parent: bytes
    place: bytes
    links: tuple[bytes, ...]
    attributes: dict[str, Value]
    ended: bool = False
    error: str = ""

    def tell(self, name: str, value: Value) -> None:
        """Note an attribute."""
        if not self.ended:
            self.attributes[name] = value

    def end(self, error: str = "") -> None:
        """End it; only the first end counts."""
        if not self.ended:
            self.ended, self.error = True, error


@dataclass(slots=True)
class FakeTracer:
    """The `Tracer` port. Set `roots` to False to have no call begin a trace by itself."""

    roots: bool = True
    spans: list[FakeSpan] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: bytes,
        attributes: Mapping[str, Value],
        links: Sequence[bytes] = (),
    ) -> FakeSpan | None:
        """Return a span that began now, None where nothing is to be recorded."""
        if (parent and not is_sampled(parent)) or not (parent or self.roots):
            return None
        number = next(self._numbers)
        trace = int.from_bytes(parent[:16], "big") if parent else number & _TRACE_MASK
        span = FakeSpan(name, kind, parent, place(trace, number), tuple(links), {**attributes})
        self.spans.append(span)
        return span

    def named(self, name: str) -> list[FakeSpan]:
        """Return the spans of a name, in the order in which they began."""
        return [each for each in self.spans if each.name == name]
