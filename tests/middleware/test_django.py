"""The Django middleware, under WSGI and ASGI: limits, headers, failures, streams."""

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace

import django
import httpx
import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import override_settings
from django.urls import path
from tallygate_client import AsyncClient
from tallygate_client.metering import Measured, WebRules

from tests.middleware.world import REQUESTS_MAX, World, read_field, told_at_limit

RULES = WebRules(
    tenant=lambda request: request.native.user.tenant,
    cost=lambda request: {"tokens": 500} if "tokens" in request.path else {"requests": 1},
    response_bytes=Measured("egress_bytes", 10_000),
)


def log_in(get_response: object) -> object:
    """Stand for the middleware that finds out who is there."""

    def called(request: HttpRequest) -> HttpResponseBase:
        request.user = SimpleNamespace(tenant=request.headers.get("x-tenant"))
        return get_response(request)  # type: ignore[operator]  # Django's

    return called


def ok(request: HttpRequest) -> HttpResponse:
    """Answer at once."""
    return HttpResponse(b"x" * 50)


def fails(request: HttpRequest) -> HttpResponse:
    """Raise."""
    raise RuntimeError


def tokens(request: HttpRequest) -> HttpResponse:
    """Say what it came to."""
    request.tallygate.set("tokens", 42)
    return HttpResponse(b"")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Answer bit by bit."""
    return StreamingHttpResponse(b"x" * 100 for _ in range(7))


async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    """Answer bit by bit, asynchronously."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(7):
            yield b"x" * 100

    return StreamingHttpResponse(body())


urlpatterns = [
    path("ok", ok),
    path("fails", fails),
    path("tokens", tokens),
    path("stream", stream),
    path("stream-async", stream_async),
]


@pytest.fixture(scope="module", autouse=True)
def _project(metered_world: World) -> Iterator[None]:
    """A project whose settings are this module."""
    if not settings.configured:
        settings.configure(SECRET_KEY="tests", ALLOWED_HOSTS=["app"], LOGGING_CONFIG=None)
        django.setup()
    middleware = [f"{__name__}.log_in", "tallygate_client.django.MeteringMiddleware"]
    configured = {"client": metered_world.client, "rules": RULES}
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=middleware, TALLYGATE=configured):
        yield


@pytest.fixture
def wsgi() -> Iterator[httpx.Client]:
    """Calls the project as a WSGI server does."""
    transport = httpx.WSGITransport(WSGIHandler())
    with httpx.Client(transport=transport, base_url="http://app") as http:
        yield http


@pytest.fixture
async def asgi(metered_world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Calls the project as an ASGI server does."""
    async with AsyncClient(metered_world.address, timeout=10) as client:
        configured = {**settings.TALLYGATE, "async_client": client}
        with override_settings(TALLYGATE=configured):
            transport = httpx.ASGITransport(ASGIHandler())
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
            yield http


def test_requests_are_served_up_to_the_limit(
    wsgi: httpx.Client, metered_world: World, tenant: str
) -> None:
    """As many pass as the limit allows, each told what is left; the next is a 429 with why."""
    for number in range(1, REQUESTS_MAX + 1):
        served = wsgi.get("/ok", headers={"x-tenant": tenant})
        assert served.status_code == 200
        standing = read_field(served.headers["ratelimit"])["requests-monthly"]
        assert standing["r"] == str(REQUESTS_MAX - number)
    refused = wsgi.get("/ok", headers={"x-tenant": tenant})
    assert refused.status_code == 429
    told_at_limit(refused.headers)
    metered_world.settles(tenant, REQUESTS_MAX)
    metered_world.settles(tenant, REQUESTS_MAX * 50, "egress_bytes")


def test_ends_settle(wsgi: httpx.Client, metered_world: World, tenant: str) -> None:
    """What failed costs nothing, what a view set is charged, what streamed by its bytes."""
    assert wsgi.get("/fails", headers={"x-tenant": tenant}).status_code == 500
    assert wsgi.get("/nowhere", headers={"x-tenant": tenant}).status_code == 404
    metered_world.settles(tenant, 0)
    assert wsgi.get("/tokens", headers={"x-tenant": tenant}).status_code == 200
    metered_world.settles(tenant, 42, "tokens")
    assert len(wsgi.get("/stream", headers={"x-tenant": tenant}).content) == 700
    metered_world.settles(tenant, 700, "egress_bytes")
    assert wsgi.get("/ok").status_code == 400


async def test_ends_settle_under_asgi(
    asgi: httpx.AsyncClient, metered_world: World, tenant: str
) -> None:
    """Under ASGI it is the same, asked by the asynchronous client."""
    # It is settled as Django closes a response, in this loop, which must not be held up.
    settles = metered_world.settles_apart(tenant)
    assert (await asgi.get("/fails", headers={"x-tenant": tenant})).status_code == 500
    await settles(0)
    assert (await asgi.get("/tokens", headers={"x-tenant": tenant})).status_code == 200
    await settles(42, "tokens")
    served = await asgi.get("/stream-async", headers={"x-tenant": tenant})
    assert len(served.content) == 700
    assert "egress_bytes-monthly" in read_field(served.headers["ratelimit"])
    await settles(700, "egress_bytes")
    assert (await asgi.get("/ok")).status_code == 400
