"""A sidecar that answers as a test says: real gRPC on a real port, no rules of its own."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from tallygate_client.calls import METHODS
from tallygate_client.gen.v1 import quota_pb2, reason_pb2, usage_pb2

WORKERS = 8
Answer = Callable[[Any, grpc.ServicerContext], Any]


class FakeSidecar:
    """Answers each method with what is scripted for it, then by its defaults."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Any]] = defaultdict(list)
        self.events: dict[str, usage_pb2.RecordUsageRequest] = {}
        self.repeats = 0
        self._scripts: dict[str, deque[Answer]] = defaultdict(deque)
        self._changed = threading.Condition()
        self._server: grpc.Server | None = None
        self.address = ""

    def script(self, method: str, *answers: Answer) -> None:
        """Answer the next calls of a method so, one each."""
        self._scripts[method].extend(answers)

    def start(self, address: str = "127.0.0.1:0") -> None:
        """Listen, at the address it had before if it had one."""
        server = grpc.server(
            futures.ThreadPoolExecutor(WORKERS), options=[("grpc.so_reuseport", 0)]
        )
        server.add_generic_rpc_handlers((_Routes(self),))
        port = server.add_insecure_port(self.address or address)
        self.address = self.address or f"127.0.0.1:{port}"
        server.start()
        self._server = server

    def stop(self) -> None:
        """Listen no more; calls under way are cancelled."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def wait_for(self, method: str, calls: int) -> None:
        """Wait until a method was called so often."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen[method]) >= calls, 30)

    def answer(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer a call."""
        with self._changed:
            self.seen[method].append(request)
            script = self._scripts[method]
            answer = script.popleft() if script else getattr(self, f"_{method}")
            self._changed.notify_all()
        return answer(request, context)

    def _CheckAndConsume(self, request: Any, _: Any) -> Any:  # noqa: N802
        ids = [f"{request.operation_id}:{index}" for index, _ in enumerate(request.items)]
        return quota_pb2.CheckAndConsumeResponse(allowed=True, event_ids=ids)

    def _Check(self, request: Any, _: Any) -> Any:  # noqa: N802
        return quota_pb2.CheckResponse(allowed=True)

    def _Reserve(self, request: Any, _: Any) -> Any:  # noqa: N802
        return quota_pb2.ReserveResponse(allowed=True, reservation_id=f"01-{request.operation_id}")

    def _Commit(self, request: Any, _: Any) -> Any:  # noqa: N802
        return quota_pb2.CommitResponse(outcome=quota_pb2.RESERVATION_OUTCOME_COMMITTED)

    def _Release(self, request: Any, _: Any) -> Any:  # noqa: N802
        return quota_pb2.ReleaseResponse(outcome=quota_pb2.RESERVATION_OUTCOME_RELEASED)

    def _ExtendReservation(self, request: Any, _: Any) -> Any:  # noqa: N802
        return quota_pb2.ExtendReservationResponse(outcome=quota_pb2.RESERVATION_OUTCOME_EXTENDED)

    def _RecordUsage(self, request: Any, _: Any) -> Any:  # noqa: N802
        return self._recorded(request)

    def _BatchRecordUsage(self, request: Any, _: Any) -> Any:  # noqa: N802
        return usage_pb2.BatchRecordUsageResponse(
            results=[
                usage_pb2.BatchRecordUsageResult(response=self._recorded(each))
                for each in request.requests
            ]
        )

    def _WatchQuota(self, _: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        yield quota_pb2.WatchQuotaResponse(plan="free", cause=quota_pb2.WATCH_CAUSE_SNAPSHOT)
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(30)

    def _recorded(self, request: Any) -> usage_pb2.RecordUsageResponse:
        with self._changed:
            replayed = request.event_id in self.events
            self.repeats += replayed
            self.events[request.event_id] = request
        return usage_pb2.RecordUsageResponse(event_id=request.event_id, replayed=replayed)


class _Routes(grpc.GenericRpcHandler):
    def __init__(self, fake: FakeSidecar) -> None:
        self._fake = fake

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method.rpartition("/")[2]
        method: Any = METHODS[name]

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            return self._fake.answer(name, request, context)

        make: Any = grpc.unary_unary_rpc_method_handler
        if name == "WatchQuota":
            make = grpc.unary_stream_rpc_method_handler
        return make(
            answer,
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )


@contextmanager
def fake_sidecar() -> Iterator[FakeSidecar]:
    """Run one on a port of its own."""
    fake = FakeSidecar()
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()


def refuses(
    code: grpc.StatusCode,
    *,
    reason: str = "",
    fields: Sequence[str] = (),
    retry_s: int | None = None,
) -> Answer:
    """Return an answer that ends with a status, its details as the service packs them."""
    status = status_pb2.Status(code=code.value[0], message="as scripted")
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=reason, domain="tallygate")]
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=each, description="wrong")
        for each in fields
    ]
    details.append(error_details_pb2.BadRequest(field_violations=violations))
    if retry_s is not None:
        delay = duration_pb2.Duration(seconds=retry_s)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for each in details:
        packed = any_pb2.Any()
        packed.Pack(each)
        status.details.append(packed)

    def answer(_: Any, context: grpc.ServicerContext) -> Any:
        # A negative pushback ends gRPC's own retries, which are not what these tests are about.
        trailers: Any = [
            ("grpc-status-details-bin", status.SerializeToString()),
            ("grpc-retry-pushback-ms", "-1"),
        ]
        context.set_trailing_metadata(trailers)
        context.abort(code, "as scripted")

    return answer


def answers(reply: Any) -> Answer:
    """Return an answer that is this reply."""
    return lambda _, __: reply


def item_error(reason: str, code: grpc.StatusCode, *, retry_s: int | None = None) -> Any:
    """Return the result of one item of a list that was not recorded."""
    error = reason_pb2.ItemError(
        reason=reason_pb2.Reason.Value(f"REASON_{reason}"), code=code.value[0], message="no"
    )
    if retry_s is not None:
        error.retry_after.seconds = retry_s
    return usage_pb2.BatchRecordUsageResult(error=error)
