"""The spans of calls: begun from what a caller sends beside its message, ended with its status.

Guarantees: a caller's `traceparent` is followed only if it is whole and there is one of it; a call
that was refused at the door has no span, so that overload costs nothing here.
Refuses to know: transports, and how spans are recorded.

`tracestate` and baggage are not read: what is carried from here on is a place, of 25 bytes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import grpc

from tallygate.domain.trace import NOWHERE, read_header, trace_id
from tallygate.ports.tracing import Kind, Span, Tracer

Metadata = Iterable[tuple[str, str | bytes]]
TRACEPARENT: Final = "traceparent"
# Those that say that the service failed; the others are the caller's own affair.
FAULTS: Final = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)

_NAMES: Final = {each.value[0]: each.name for each in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class CallSpans:
    """Begins and ends them.

    `recorded` hears of a call that had one: its method, its status, its seconds, its trace's id.
    """

    tracer: Tracer
    recorded: Callable[[str, str, float, str], None]

    def begin(self, method: str, metadata: Metadata | None) -> Span | None:
        """Return the span of a call that has come, None where it is not recorded."""
        attributes = {"rpc.system.name": "grpc", "rpc.method": method}
        return self.tracer.begin(method, Kind.SERVER, caller_of(metadata or ()), attributes)

    def end(self, span: Span, method: str, code: str, seconds: float) -> None:
        """End it with the name of the status that the caller gets."""
        span.tell("rpc.response.status_code", code)
        span.end(code if code in FAULTS else "")
        self.recorded(method, code, seconds, trace_id(span.place))


def caller_of(metadata: Metadata) -> bytes:
    """Return where the caller is in its trace, `NOWHERE` where it does not say."""
    found = [value for name, value in metadata if name == TRACEPARENT]
    if len(found) != 1 or not isinstance(found[0], str):
        return NOWHERE
    return read_header(found[0])


def code_name(code: object) -> str:
    """Return the name of a status, as grpcio has it set by then: a number, or one of its own."""
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _NAMES.get(code, "UNKNOWN") if isinstance(code, int) else "UNKNOWN"
