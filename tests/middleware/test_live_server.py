"""The ASGI middleware under a real uvicorn: what streams, who leaves, and WebSockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from tallygate_client import AsyncClient
from tallygate_client.asgi import MeteringMiddleware, cost_of
from tallygate_client.metering import Measured, WebRequest, WebRules

from tests.middleware.world import ABSENT, REQUESTS_MAX, World, read_field

CHUNK = b"y" * 1_000
RULES = WebRules(
    tenant="x-tenant",
    cost=lambda request: {"tokens": 5_000} if "tokens" in request.path else {"requests": 1},
    response_bytes=Measured("egress_bytes", 100_000),
    messages=Measured("messages", 1),
    exempt=lambda request: request.path == "/free",
)


class Served:
    """A running server, and where it is; `go` lets its streams go on."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.go = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket_url(self) -> str:
        """Where it is talked to."""
        return f"ws://127.0.0.1:{self.port}/talk"


@contextlib.asynccontextmanager
async def serving(address: str) -> AsyncIterator[Served]:
    """Serve an app that streams and talks, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = Served(listening.getsockname()[1])

        async def stream(request: Request) -> StreamingResponse:
            async def body() -> AsyncIterator[bytes]:
                for number in range(5):
                    if number == 2:
                        await served.go.wait()
                    if "tokens" in request.url.path:
                        cost_of(request.scope).add("tokens", 10)
                    yield CHUNK

            return StreamingResponse(body())

        async def talk(socket: WebSocket) -> None:
            await socket.accept()
            async for text in socket.iter_text():
                await socket.send_text(f"heard {text}")

        routes = [
            Route("/stream", stream),
            Route("/tokens", stream),
            WebSocketRoute("/talk", talk),
        ]
        async with AsyncClient(address, timeout=10 if address != ABSENT else 0.3) as client:
            app = MeteringMiddleware(Starlette(routes=routes), client=client, rules=RULES)
            config = uvicorn.Config(
                app, lifespan="off", log_level="critical", ws="websockets-sansio"
            )
            server = uvicorn.Server(config)
            running = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                yield served
            finally:
                served.go.set()
                server.should_exit = True
                await running


@pytest.fixture
async def served(metered_world: World) -> AsyncIterator[Served]:
    """A server before the module's sidecar."""
    async with serving(metered_world.address) as running:
        yield running


@contextlib.asynccontextmanager
async def asking(served: Served, path: str, tenant: str) -> AsyncIterator[httpx.Response]:
    """Ask for a path, and leave with the block."""
    http = httpx.AsyncClient(base_url=served.url)
    async with http, http.stream("GET", path, headers={"x-tenant": tenant}) as response:
        yield response


async def test_chunks_are_passed_on_as_they_come(
    served: Served, metered_world: World, tenant: str
) -> None:
    """The first chunks arrive while the app still works at the others; then all are charged."""
    async with asking(served, "/stream", tenant) as response:
        chunks = response.aiter_bytes(len(CHUNK))
        assert await anext(chunks) == CHUNK
        served.go.set()
        rest = [each async for each in chunks]
    assert b"".join(rest) == CHUNK * 4
    await asyncio.to_thread(metered_world.settles, tenant, 5 * len(CHUNK), "egress_bytes")
    assert metered_world.used(tenant) == 1


async def test_who_leaves_is_charged_what_was_sent(
    served: Served, metered_world: World, tenant: str
) -> None:
    """A client that goes away in the middle of a stream pays for the chunks sent till then."""
    async with asking(served, "/tokens", tenant) as response:
        received = b""
        async for each in response.aiter_bytes():
            received += each
            if len(received) == 2 * len(CHUNK):
                break
    settles = metered_world.settles
    await asyncio.to_thread(settles, tenant, 2 * len(CHUNK), "egress_bytes")
    await asyncio.to_thread(settles, tenant, 20, "tokens")


async def test_connections_and_messages_are_charged(
    served: Served, metered_world: World, tenant: str
) -> None:
    """A WebSocket costs a request once it has ended, and each message what the rules say."""
    async with websockets.connect(
        served.websocket_url, additional_headers={"x-tenant": tenant}
    ) as talk:
        for text in ("one", "two"):
            await talk.send(text)
            assert await talk.recv() == f"heard {text}"
        told = talk.response.headers if talk.response else {}
        assert read_field(told["ratelimit"])["requests-monthly"]["r"] == str(REQUESTS_MAX - 1)
    await asyncio.to_thread(metered_world.settles, tenant, 1)
    assert metered_world.used(tenant, "messages") == 2
    assert metered_world.used(tenant, "egress_bytes") == len("heard oneheard two")


async def test_a_message_beyond_the_limit_hangs_up(
    served: Served, metered_world: World, tenant: str
) -> None:
    """A message that is refused never reaches the app; the close says by which limit."""
    limit = metered_world.client.quota(tenant, meters=["messages"]).limits[0]
    metered_world.client.record(tenant, "messages", limit.limit)
    async with websockets.connect(
        served.websocket_url, additional_headers={"x-tenant": tenant}
    ) as talk:
        await talk.send("one more")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await talk.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "messages-monthly")


async def test_a_handshake_is_refused_as_a_request_is(
    served: Served, metered_world: World, tenant: str
) -> None:
    """At the limit the handshake is answered 429, with the headers of any other."""
    metered_world.client.record(tenant, "requests", REQUESTS_MAX)
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websockets.connect(
            served.websocket_url, additional_headers={"x-tenant": tenant}
        ):
            raise AssertionError
    response = refused.value.response
    assert response.status_code == 429
    assert read_field(response.headers["ratelimit"])["requests-monthly"]["r"] == "0"


def test_rules_name_their_faults() -> None:
    """What cannot be measured beforehand cannot be charged beforehand, and a mode is one of two."""
    with pytest.raises(ValueError, match="response_bytes"):
        WebRules(tenant="t", mode="consume", response_bytes=Measured("egress_bytes", 1))
    with pytest.raises(ValueError, match="mode"):
        WebRules(tenant="t", mode="later")  # type: ignore[arg-type]  # what the test is about
    request = WebRequest("GET", "/", {"x-tenant": "acme"}, None)
    assert RULES.tenant_of(request) == "acme"
