"""Events over HTTP: `POST /v1/events` and `/api/v1/events`, CloudEvents as OpenMeter takes them.

Guarantees: 204 only when a sidecar holds all of it; every other answer is a problem (RFC 9457) that
names each event at fault, and says whether to send the same again. Bodies, calls, connections and
time are bounded; who sends proves himself as callers of control do. No body reaches a log.
Refuses to know: what events mean.
"""

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus
from importlib import resources
from typing import Any, Final, NoReturn, Protocol, cast
from urllib.parse import unquote

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from tallygate.api.caller import LOCAL_PEER
from tallygate.api.door import TOKEN_KEY, Door
from tallygate.api.edge import Context
from tallygate.api.status import CODES, shown
from tallygate.domain.cloudevent import Json, is_json
from tallygate.domain.errors import InvalidField, TallygateError
from tallygate.flow.take_events import EventFault, TakeEvents, Taken, Understood
from tallygate.gen.v1 import usage_pb2

PATHS: Final = ("/v1/events", "/api/v1/events")
OPENAPI_PATH: Final = "/v1/openapi.json"
METHOD: Final = "SendEvents"
PROBLEM: Final = "application/problem+json"
STRUCTURED: Final = ("application/cloudevents+json", "application/cloudevents-batch+json")
# What a body without a kind is taken for.
UNSAID: Final = "application/octet-stream"
HEADER_PREFIX: Final = "ce-"
# What an event carries at most beside its data; more are extensions, which mean nothing here.
ATTRIBUTES: Final = ("id", "source", "type", "subject", "time", "specversion", "datacontenttype")
ERRORS_SHOWN: Final = 100
RETRY_AFTER_S: Final = 1
SPIFFE_SCHEME: Final = "spiffe://"

STATUSES: Final[Mapping[str, HTTPStatus]] = {
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
    "OUT_OF_RANGE": HTTPStatus.UNPROCESSABLE_ENTITY,
    "NOT_FOUND": HTTPStatus.BAD_REQUEST,
    "FAILED_PRECONDITION": HTTPStatus.UNPROCESSABLE_ENTITY,
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
    "PERMISSION_DENIED": HTTPStatus.FORBIDDEN,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "RESOURCE_EXHAUSTED": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}

log = structlog.get_logger(__name__)


class EventsObserver(Protocol):
    """Hears of calls and of what they brought."""

    def called(self, status: int, seconds: float) -> None:
        """A call was answered."""
        ...

    def taken(self, outcome: str, events: int) -> None:
        """So many became that: recorded, replayed, refused, ignored."""
        ...


@dataclass(frozen=True, slots=True)
class EventsOptions:
    """How much and how long."""

    body_bytes_max: int = 1024 * 1024
    calls_max: int = 64
    timeout_s: float = 15.0


class Problem(Exception):
    """What is answered instead of 204."""

    def __init__(
        self,
        status: HTTPStatus,
        reason: str,
        detail: str,
        faults: tuple[EventFault, ...] = (),
        **more: int,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.document: dict[str, Any] = {
            "type": f"urn:tallygate:problem:{reason.lower().replace('_', '-')}",
            "title": status.phrase,
            "status": status.value,
            "detail": detail,
            "reason": reason,
            **more,
        }
        if faults:
            self.document["errors"] = [_error(each) for each in faults[:ERRORS_SHOWN]]
            self.document["errors_count"] = len(faults)

    def response(self) -> web.Response:
        """Return it as it is sent."""
        headers = {}
        if self.status is HTTPStatus.SERVICE_UNAVAILABLE:
            seconds = -(-self.document.get("retry_after_ms", 1_000 * RETRY_AFTER_S) // 1_000)
            headers["Retry-After"] = str(seconds)
        if self.status is HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return web.Response(
            status=self.status.value,
            text=json.dumps(self.document),
            content_type=PROBLEM,
            headers=headers,
        )


class EventsApi:
    """Answers calls."""

    def __init__(
        self, take: TakeEvents, door: Door, observer: EventsObserver, options: EventsOptions
    ) -> None:
        self._take = take
        self._door = door
        self._observer = observer
        self._options = options
        self._room = asyncio.Semaphore(options.calls_max)

    def app(self) -> web.Application:
        """Return what speaks HTTP."""
        app = web.Application(client_max_size=self._options.body_bytes_max, middlewares=[_typed])
        for path in PATHS:
            app.router.add_post(path, self._answer)
        app.router.add_get(OPENAPI_PATH, self._document)
        return app

    async def _document(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text=openapi(), content_type="application/json")

    async def _answer(self, request: web.Request) -> web.Response:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            response = await self._taken(request)
        except Problem as problem:
            response = problem.response()
        self._observer.called(response.status, loop.time() - began)
        return response

    async def _taken(self, request: web.Request) -> web.Response:
        """Return the answer where all is well. Raises `Problem`."""
        if self._room.locked():
            _unavailable("OVERLOADED", "too many calls at once")
        try:
            async with self._room, asyncio.timeout(self._options.timeout_s):
                await self._served(request)
        except TimeoutError:
            _unavailable("DEADLINE_TOO_SHORT", "the call took too long: send the same again")
        except web.HTTPRequestEntityTooLarge:
            detail = f"the body has more than {self._options.body_bytes_max} bytes: send fewer"
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "MESSAGE_TOO_LARGE", detail
            ) from None
        except TallygateError as error:
            raise _problem_of(error) from error
        except Problem:
            raise
        except Exception as error:
            unexpected = shown(error)
            log.exception("events_failed", reference=getattr(unexpected, "reference", ""))
            raise Problem(
                HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL", unexpected.message
            ) from error
        return web.Response(status=HTTPStatus.NO_CONTENT.value)

    async def _served(self, request: web.Request) -> None:
        visitor = await self._door.enter(cast(Context, HttpContext(request)))
        understood = self._take.understand(await _body(request))
        # Before faults are told: nobody learns by them what he may not ask for.
        for tenant in understood.tenants():
            visitor.allow(METHOD, usage_pb2.RecordUsageRequest(tenant_id=tenant))
        if understood.faults:
            self._observer.taken("refused", len(understood.faults))
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                understood.faults[0].reason,
                f"{len(understood.faults)} of the events cannot be taken; none was recorded",
                tuple(understood.faults),
                recorded=0,
            )
        self._told(understood, await self._take.record(understood))

    def _told(self, understood: Understood, taken: Taken) -> None:
        """Return if all was recorded. Raises `Problem`."""
        self._observer.taken("ignored", understood.ignored)
        self._observer.taken("recorded", taken.recorded)
        self._observer.taken("replayed", taken.replayed)
        self._observer.taken("refused", len(taken.faults))
        held = taken.recorded + taken.replayed
        if taken.later_ms:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "BACKEND_UNAVAILABLE",
                f"not all can be recorded now: send the same again, nothing counts twice"
                f" ({taken.why})",
                tuple(taken.faults),
                recorded=held,
                retry_after_ms=taken.later_ms,
            )
        if taken.faults:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                taken.faults[0].reason,
                f"{len(taken.faults)} were refused and {held} recorded: do not send these again",
                tuple(taken.faults),
                recorded=held,
            )


class HttpContext:
    """A call over HTTP as doors see calls: what it carries, and what its connection has proven."""

    def __init__(self, request: web.Request) -> None:
        self._request = request

    def invocation_metadata(self) -> list[tuple[str, str]]:
        """Return the token's header, each time that it is there."""
        return [(TOKEN_KEY, each) for each in self._request.headers.getall(TOKEN_KEY, [])]

    def peer(self) -> str:
        """Return what kind of connection it is, as gRPC begins to spell it.

        Who is gone already is nobody: only a Unix socket that is seen to be one proves anything.
        """
        transport = self._request.transport
        bound = transport.get_extra_info("socket") if transport is not None else None
        local = bound is not None and bound.family == socket.AF_UNIX
        return LOCAL_PEER if local else "tcp:"

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """Return the SPIFFE id of a verified certificate that has one such id."""
        transport = self._request.transport
        held = transport.get_extra_info("peercert") if transport is not None else None
        names = (held or {}).get("subjectAltName", ())
        found = [value for kind, value in names if kind == "URI"]
        if len(found) != 1 or not found[0].startswith(SPIFFE_SCHEME):
            return {}
        return {"peer_spiffe_id": [found[0].encode()]}


@web.middleware
async def _typed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Have what no path answers answered as a problem too."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        status, detail = HTTPStatus.METHOD_NOT_ALLOWED, f"this takes {allowed}"
        response = Problem(status, "UNKNOWN_METHOD", detail).response()
        response.headers["Allow"] = allowed
        return response
    except web.HTTPNotFound:
        detail = f"events go to {PATHS[0]}"
        return Problem(HTTPStatus.NOT_FOUND, "NOT_FOUND", detail).response()


def openapi() -> str:
    """Return the description of this interface, in OpenAPI 3.1."""
    return resources.files(__package__).joinpath("events_openapi.json").read_text()


async def _body(request: web.Request) -> "Json":
    """Return the events of a call, in any of the three ways. Raises `InvalidField`."""
    kind = request.content_type
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise InvalidField("is not offered", field="Content-Encoding")
    attributes = _attributes(request)
    binary = kind not in STRUCTURED and "specversion" in attributes
    # Senders leave out what kind their data are; then it is seen whether they are JSON.
    if kind not in STRUCTURED and not is_json(kind) and not (binary and kind == UNSAID):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "INVALID_FIELD",
            f"must be one of {', '.join((*STRUCTURED, 'application/json'))}",
        )
    body = await request.read()
    if binary:
        # Binary mode: the attributes are headers, and the body is the data.
        document: dict[str, Json] = {**attributes}
        document["data"] = parsed(body) if body else None
        return document
    document_or_list = parsed(body)
    if kind == STRUCTURED[1] and not isinstance(document_or_list, list):
        raise InvalidField("must be a list of events", field="body")
    if kind == STRUCTURED[0] and isinstance(document_or_list, list):
        raise InvalidField("must be one event", field="body")
    return document_or_list


def parsed(body: bytes) -> "Json":
    """Return JSON in which no number has lost a digit. Raises `InvalidField`."""
    try:
        return cast("Json", json.loads(body, parse_float=Decimal, parse_constant=_no_number))
    except (ValueError, RecursionError):
        raise InvalidField("is no JSON", field="body") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _attributes(request: web.Request) -> dict[str, str]:
    found = {}
    for name in ATTRIBUTES:
        value = request.headers.get(f"{HEADER_PREFIX}{name}")
        if value is not None:
            found[name] = unquote(value)
    return found


def _error(fault: EventFault) -> dict[str, object]:
    named = {"id": fault.id, "source": fault.source, "field": fault.field}
    return {
        "index": fault.index,
        "reason": fault.reason,
        "detail": fault.message,
        **{name: value for name, value in named.items() if value},
    }


def _unavailable(reason: str, detail: str) -> NoReturn:
    raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, reason, detail)


def _problem_of(error: TallygateError) -> Problem:
    told = shown(error)
    status = STATUSES.get(CODES[told.reason].name, HTTPStatus.INTERNAL_SERVER_ERROR)
    detail = f"{told.field}: {told.message}" if told.field else told.message
    return Problem(status, told.reason, detail)
