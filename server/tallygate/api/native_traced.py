"""An address of the native transport whose calls are recorded.

Guarantees: a call that is recorded is handed over alone, as a batch has no one place in a trace;
all others go together, as ever. Each span is ended once, however its call ends.
Refuses to know: how spans are recorded.
"""

from collections.abc import Sequence

from pygrpc_native import NativeGrpcFront

from tallygate.api.batched import Call
from tallygate.api.edge import Edge, Method
from tallygate.api.native_arrivals import Event
from tallygate.api.native_context import Details
from tallygate.api.native_front import Front, FrontOptions, OpenCall
from tallygate.api.traced import CallSpans
from tallygate.ports.tracing import Span, working_for


class TracedFront(Front):
    """A front that begins a span for each call that it lets in."""

    def __init__(
        self, native: NativeGrpcFront, options: FrontOptions, edge: Edge, spans: CallSpans
    ) -> None:
        super().__init__(native, options, edge)
        self._call_spans = spans
        self._spans: dict[OpenCall, Span] = {}

    def _admit(
        self, event: Event, method: Method, now: float, batches: dict[int, list[Call]]
    ) -> None:
        _, number, index, _, _, details = event
        if method.batch is None or not method.edged:
            super()._admit(event, method, now, batches)
            return
        alone: dict[int, list[Call]] = {}
        super()._admit(event, method, now, alone)
        if not alone:
            return
        span = self._call_spans.begin(method.name, details[0])
        if span is None:
            batches.setdefault(index, []).extend(alone[index])
            return
        self._spans[self._open[number]] = span
        with working_for(span):
            try:
                method.batch(alone[index], self)
            except Exception as error:  # noqa: BLE001  a defect must not leave a caller waiting
                self.fail(number, error)

    def _begin(self, number: int, opened: OpenCall, data: bytes, details: Details) -> None:
        span = None
        if opened.method.edged:
            span = self._call_spans.begin(opened.method.name, details[0])
        if span is None:
            super()._begin(number, opened, data, details)
            return
        self._spans[opened] = span
        # Its task takes on what it is begun within.
        with working_for(span):
            super()._begin(number, opened, data, details)

    def _count_out(self, ended: Sequence[OpenCall], code: str) -> None:
        super()._count_out(ended, code)
        if not self._spans:
            return
        now = self._loop.time()
        for each in ended:
            span = self._spans.pop(each, None)
            if span is not None:
                self._call_spans.end(span, each.method.name, code, now - each.started)
