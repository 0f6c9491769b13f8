"""A collector: OTLP's own service over gRPC, on loopback.

Guarantees: takes what any OTLP exporter sends; keeps spans, resources and headers.
Refuses to know who sends.
"""

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

RESPONSE = trace_service_pb2.ExportTraceServiceResponse()


@dataclass(slots=True)
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What has come. Set `refuses` to have it answer with that status."""

    address: str = ""
    spans: list[trace_pb2.Span] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    refuses: grpc.StatusCode | None = None
    held: threading.Event | None = None

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  the name is the proto's
        """Take spans."""
        if self.held is not None:
            self.held.wait(30)
        if self.refuses is not None:
            context.abort(self.refuses, "not now")
        self.headers.append({key: str(value) for key, value in context.invocation_metadata()})
        for part in request.resource_spans:
            self.resources.append(
                {each.key: each.value.string_value for each in part.resource.attributes}
            )
            for scope in part.scope_spans:
                self.spans.extend(scope.spans)
        return RESPONSE

    def named(self, name: str) -> list[trace_pb2.Span]:
        """Return the spans of a name, in the order in which they came."""
        return [each for each in self.spans if each.name == name]


def attributes(span: trace_pb2.Span) -> dict[str, Any]:
    """Return a span's attributes."""
    return {
        each.key: getattr(each.value, str(each.value.WhichOneof("value")))
        for each in span.attributes
    }


@contextmanager
def collecting(credentials: grpc.ServerCredentials | None = None) -> Iterator[Collector]:
    """Run a collector, over TLS where credentials are given."""
    found = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    register(found, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    found.address = f"127.0.0.1:{port}"
    server.start()
    try:
        yield found
    finally:
        if found.held is not None:
            found.held.set()
        server.stop(0).wait()
