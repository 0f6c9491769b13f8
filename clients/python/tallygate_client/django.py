"""Django, under WSGI and ASGI: middleware that sees who is logged in.

    MIDDLEWARE = [..., "tallygate_client.django.MeteringMiddleware"]
    TALLYGATE = {"client": Client(), "async_client": AsyncClient, "rules": WebRules(...)}

Guarantees that a response is settled as it is closed, or when it is thrown away without. Refuses to
know views.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from .errors import TallygateError
from .metering.answers import answer_of, standing
from .metering.cost import Cost, Ending
from .metering.rules import Question, TenantMissing, WebRequest, WebRules
from .metering.till import AsyncTill, Till

SETTING = "TALLYGATE"


class MeteringMiddleware:
    """Charges the requests of a Django project; views find their `Cost` as `request.tallygate`."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._rules: WebRules = _configured("rules")
        self._asynchronous = iscoroutinefunction(get_response)
        self._settling: set[asyncio.Task[None]] = set()
        if self._asynchronous:
            markcoroutinefunction(self)
            self._async_till = AsyncTill(_configured("async_client"))
        else:
            self._till = Till(_configured("client"))

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request."""
        return self._serve_async(request) if self._asynchronous else self._serve(request)

    def _serve(self, request: HttpRequest) -> HttpResponseBase:
        asked = request_of(request)
        try:
            question = self._question(asked)
            cost = self._till.open(question) if question is not None else None
        except (TallygateError, TenantMissing) as error:
            return self._refusal(error, asked)
        if cost is None:
            return _response(self._get_response(request))
        request.tallygate = cost
        try:
            response = _response(self._get_response(request))
        except BaseException:
            self._till.settle(cost, Ending.FAILED, charged=None)
            raise
        charged = self._rules.charged(response.status_code)
        return self._told(response, asked, cost, lambda ending: self._till.settle(
            cost, ending, charged))  # fmt: skip

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        asked, cost = request_of(request), None
        try:
            question = await self._question_async(asked)
            cost = await self._async_till.open(question) if question is not None else None
        except (TallygateError, TenantMissing) as error:
            return self._refusal(error, asked)
        if cost is None:
            return _response(await self._get_response(request))
        request.tallygate = cost
        loop, settle = asyncio.get_running_loop(), self._async_till.settle
        try:
            response = _response(await self._get_response(request))
        except BaseException as error:
            left = isinstance(error, asyncio.CancelledError)
            ending = Ending.LEFT if left else Ending.FAILED
            await asyncio.shield(self._begin(settle(cost, ending, charged=None)))
            raise
        charged = self._rules.charged(response.status_code)

        def settling(ending: Ending) -> None:
            # Django closes responses in a thread of their own.
            loop.call_soon_threadsafe(lambda: self._begin(settle(cost, ending, charged)))

        return self._told(response, asked, cost, settling)

    def _begin(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    def _question(self, asked: WebRequest) -> Question | None:
        rules = self._rules
        if rules.exempt is not None and rules.exempt(asked):
            return None
        return rules.question(asked, rules.tenant_of(asked), rules.cost_of(asked))

    async def _question_async(self, asked: WebRequest) -> Question | None:
        rules = self._rules
        if rules.exempt is not None and rules.exempt(asked):
            return None
        tenant, cost = rules.tenant_of(asked), rules.cost_of(asked)
        tenant = await tenant if inspect.isawaitable(tenant) else tenant
        return rules.question(asked, tenant, await cost if inspect.isawaitable(cost) else cost)

    def _refusal(self, error: BaseException, asked: WebRequest) -> HttpResponse:
        answer = answer_of(error, asked, self._rules)
        return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))

    def _told(
        self,
        response: HttpResponseBase,
        asked: WebRequest,
        cost: Cost,
        settling: Callable[[Ending], None],
    ) -> HttpResponseBase:
        """Have the response say where the tenant stands, be counted, and settle as it is closed."""
        for name, value in standing([cost.decision], self._rules):
            response[name] = value
        cost.measure(0)
        ending = _Ending(settling)
        if response.streaming:
            _count(response, cost, ending)
        else:
            content: bytes = getattr(response, "content", b"")
            cost.measure(0 if asked.method == "HEAD" else len(content))
            ending.kind = Ending.COMPLETE
        close = response.close

        def closed() -> None:
            close()
            ending()

        response.close = closed  # what servers call at the end
        # Middleware outside of this may answer otherwise, and never close this response.
        weakref.finalize(response, ending).atexit = False
        return response


class _Ending:
    """How a response ended, told once."""

    def __init__(self, settling: Callable[[Ending], None]) -> None:
        self.kind = Ending.LEFT
        self._settling: Callable[[Ending], None] | None = settling

    def __call__(self) -> None:
        settling, self._settling = self._settling, None
        if settling is not None:
            settling(self.kind)


def _count(response: Any, cost: Cost, ending: _Ending) -> None:
    """Count what streams, chunk by chunk as each is asked for the next."""
    content = response.streaming_content

    def counted() -> Iterator[bytes]:
        ending.kind = Ending.FAILED
        for chunk in content:
            # Until the next is asked for, it is only the client that can end this.
            ending.kind = Ending.LEFT
            yield chunk
            ending.kind = Ending.FAILED
            cost.measure(len(chunk))
        ending.kind = Ending.COMPLETE

    async def counted_async() -> AsyncIterator[bytes]:
        ending.kind = Ending.FAILED
        try:
            async for chunk in content:
                ending.kind = Ending.LEFT
                yield chunk
                ending.kind = Ending.FAILED
                cost.measure(len(chunk))
        except asyncio.CancelledError:
            ending.kind = Ending.LEFT
            raise
        ending.kind = Ending.COMPLETE

    response.streaming_content = counted_async() if response.is_async else counted()


def request_of(request: HttpRequest) -> WebRequest:
    """Return a request as the rules see it; Django's own is its `native`."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return WebRequest(request.method or "GET", request.path, headers, request)


def _response(value: Any) -> HttpResponseBase:
    assert isinstance(value, HttpResponseBase)
    return value


def _configured(name: str) -> Any:
    """Return a part of the setting: the object, or what a dotted path names."""
    found = getattr(settings, SETTING, {}).get(name)
    if found is None:
        raise ImproperlyConfigured(f"the setting {SETTING} has no {name!r}")
    return import_string(found) if isinstance(found, str) else found
