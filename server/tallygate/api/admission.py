"""The admission webhook: `POST /inject/pod` and `/inject/namespace`, AdmissionReview v1 over HTTPS.

Guarantees: bodies, calls and time are bounded; an answer carries the question's uid; what is no
AdmissionReview is answered 400, what cannot be judged now 503, so that `failurePolicy` decides. A
pod is patched, refused with a reason, or left as it is; nothing of it reaches a log.
Refuses to know: which pods get a sidecar, and what it is made of.
"""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from aiohttp import web

from tallygate.api.ops import listen
from tallygate.api.serving_tls import ServingTls
from tallygate.domain.errors import InvalidField, TallygateError
from tallygate.domain.injection import Asked, Outcome, Verdict
from tallygate.domain.json_patch import Json, Object, difference
from tallygate.domain.pod_parts import object_in, objects_in, text_in

VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
# etcd holds objects of 1.5 MiB at most, and an update brings the old one along.
BODY_BYTES_MAX: Final = 8 * 1024 * 1024
# The API server waits 30 s at most.
CALL_TIMEOUT_S: Final = 30.0
# API servers keep some open each; whoever else comes is not to fill the memory.
CONNECTIONS_MAX: Final = 512
# An API server's takes milliseconds.
HANDSHAKE_TIMEOUT_S: Final = 5.0
# What Kubernetes asks webhooks to keep to: longer warnings are cut by some clients.
WARNING_CHARS_MAX: Final = 256
WARNINGS_MAX: Final = 12
MESSAGE_CHARS_MAX: Final = 2_000
UNPROCESSABLE: Final = 422
# By the webhook that calls: one is for pods that ask themselves, one for namespaces that do.
PATHS: Final = {"/inject/pod": False, "/inject/namespace": True}

log = structlog.get_logger(__name__)


class AdmissionObserver(Protocol):
    """Who is told of answers."""

    def answered(self, outcome: str, seconds: float) -> None:
        """A question was answered, or failed."""


@dataclass(frozen=True, slots=True)
class AdmissionOptions:
    """Where the listener is, what it shows, who judges, and how many calls there may be at once."""

    address: str
    tls: ServingTls
    judge: Callable[[Asked], Verdict]
    observer: AdmissionObserver
    calls_max: int = 64
    connections_max: int = CONNECTIONS_MAX


class AdmissionListener:
    """Listens from `start` to `stop`."""

    def __init__(self, options: AdmissionOptions) -> None:
        self._options = options
        self._room = asyncio.Semaphore(options.calls_max)
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises `AddressInUse`."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        for path in PATHS:
            app.router.add_post(path, self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CALL_TIMEOUT_S)
        await self._runner.setup()
        bound = listen(self._options.address)
        if not self._options.address.startswith("unix:"):
            self.port = bound.getsockname()[1]
        self._listener = await asyncio.get_running_loop().create_server(
            self._protocol,
            sock=bound,
            ssl=self._options.tls.context,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
        )

    async def stop(self) -> None:
        """Answer what is under way, and listen no more."""
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _protocol(self) -> asyncio.BaseProtocol:
        """Return what speaks on a new connection: HTTP, or nothing where there are too many."""
        assert self._runner is not None
        server = self._runner.server
        assert server is not None
        if len(server.connections) >= self._options.connections_max:
            return _TooMany()
        return server()

    async def _answer(self, request: web.Request) -> web.Response:
        began = time.monotonic()
        outcome, response = await self._outcome(request)
        self._options.observer.answered(outcome, time.monotonic() - began)
        return response

    async def _outcome(self, request: web.Request) -> tuple[str, web.Response]:
        if self._room.locked():
            return "overloaded", web.Response(status=503, text="too many questions at once")
        try:
            async with self._room, asyncio.timeout(CALL_TIMEOUT_S):
                review = json.loads(await request.read())
                outcome, answer = self._reviewed(review, by_namespace=PATHS[request.path])
        except (InvalidField, ValueError, RecursionError) as error:
            field = error.field if isinstance(error, InvalidField) else ""
            told = error.message if isinstance(error, InvalidField) else "the body is no JSON"
            return "malformed", web.Response(status=400, text=f"{field}: {told}".strip(": "))
        except TimeoutError:
            return "failed", web.Response(status=503, text="the question did not arrive in time")
        except TallygateError as error:
            log.warning("admission_failed", reason=error.reason, detail=error.message)
            return "failed", web.Response(status=503, text="cannot be judged now")
        return outcome, web.json_response(answer)

    def _reviewed(self, review: Json, *, by_namespace: bool) -> tuple[str, Object]:
        """Return what became of the question, and its answer. Raises `InvalidField`."""
        if not isinstance(review, dict):
            raise InvalidField("must be an object", field=KIND)
        if text_in(review, "kind") != KIND or text_in(review, "apiVersion") != VERSION:
            raise InvalidField(f"must be {KIND} of {VERSION}", field="apiVersion, kind")
        asked = object_in(review, "request")
        uid = text_in(asked, "uid")
        if not uid:
            raise InvalidField("is missing", field="request.uid")
        kind = object_in(asked, "kind")
        new_pod = text_in(asked, "operation") == "CREATE" and not text_in(asked, "subResource")
        if not new_pod or (text_in(kind, "group"), text_in(kind, "kind")) != ("", "Pod"):
            return "ignored", _document(uid, {"allowed": True})
        pod = object_in(asked, "object")
        objects_in(object_in(pod, "spec"), "containers")
        verdict = self._options.judge(Asked(pod, text_in(asked, "namespace"), by_namespace))
        self._tell(asked, verdict)
        return verdict.outcome.value, _document(uid, _response(pod, verdict))

    def _tell(self, asked: Object, verdict: Verdict) -> None:
        if verdict.outcome not in (Outcome.REFUSED, Outcome.DECLINED, Outcome.EXCLUDED):
            return
        metadata = object_in(object_in(asked, "object"), "metadata")
        log.info(
            "pod_not_injected",
            outcome=verdict.outcome.value,
            namespace=text_in(asked, "namespace"),
            pod=text_in(metadata, "name") or text_in(metadata, "generateName"),
            why=verdict.message[:MESSAGE_CHARS_MAX],
        )


class _TooMany(asyncio.Protocol):
    """Ends a connection as soon as it is made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Cut it, unread."""
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _response(pod: Object, verdict: Verdict) -> Object:
    found: Object = {"allowed": verdict.outcome is not Outcome.REFUSED}
    warnings = [each[:WARNING_CHARS_MAX] for each in verdict.warnings[:WARNINGS_MAX]]
    if warnings:
        found["warnings"] = [*warnings]
    found["auditAnnotations"] = {"outcome": verdict.outcome.value}
    if verdict.outcome is Outcome.REFUSED:
        message = verdict.message[:MESSAGE_CHARS_MAX]
        found["status"] = {"code": UNPROCESSABLE, "reason": "Invalid", "message": message}
        return found
    operations: list[Json] = [each.document() for each in difference(pod, verdict.pod)]
    if operations:
        found["patchType"] = "JSONPatch"
        found["patch"] = base64.b64encode(json.dumps(operations).encode()).decode()
    return found


def _document(uid: str, response: Object) -> Object:
    return {"apiVersion": VERSION, "kind": KIND, "response": {"uid": uid, **response}}
