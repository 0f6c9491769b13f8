"""The WSGI middleware around Flask: limits, headers, failures, streams, views by themselves."""

from collections.abc import Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

import flask
import httpx
import pytest
from tallygate_client import Client
from tallygate_client.flask import current_cost, meter, metered
from tallygate_client.metering import Measured, WebRules
from tallygate_client.wsgi import MeteringMiddleware

from tests.middleware.world import ABSENT, REQUESTS_MAX, World, read_field, told_at_limit

RULES = WebRules(tenant="x-tenant", cost={"requests": 1})
STREAMS = WebRules(tenant="x-tenant", response_bytes=Measured("egress_bytes", 10_000))


def app() -> flask.Flask:
    """Return an app with a view for each way to end."""
    made = flask.Flask("tests")

    @made.get("/")
    def root() -> str:
        return "hello"

    @made.get("/fails/<int:status>")
    def fails(status: int) -> flask.Response:
        return flask.Response(status=status)

    @made.get("/raises")
    def raises() -> str:
        raise RuntimeError

    @made.get("/stream/<int:chunks>")
    def stream(chunks: int) -> flask.Response:
        return flask.Response(b"x" * 100 for _ in range(chunks))

    return made


def calling(client: Client, rules: WebRules, made: flask.Flask | None = None) -> httpx.Client:
    """Return what calls an app behind the middleware, through WSGI alone."""
    made = made or app()
    meter(made, client=client, rules=rules)
    transport = httpx.WSGITransport(made)
    return httpx.Client(transport=transport, base_url="http://app")


def test_requests_are_served_up_to_the_limit(metered_world: World, tenant: str) -> None:
    """As many pass as the limit allows, each told what is left; the next is a 429 with why."""
    with calling(metered_world.client, RULES) as http:
        for number in range(1, REQUESTS_MAX + 1):
            served = http.get("/", headers={"x-tenant": tenant})
            assert served.status_code == 200
            standing = read_field(served.headers["ratelimit"])["requests-monthly"]
            assert standing["r"] == str(REQUESTS_MAX - number)
        refused = http.get("/", headers={"x-tenant": tenant})
    assert refused.status_code == 429
    told_at_limit(refused.headers)
    assert refused.json()["violated-policies"] == ["requests-monthly"]
    metered_world.settles(tenant, REQUESTS_MAX)


@pytest.mark.parametrize("path", ["/fails/404", "/fails/500", "/raises", "/nowhere"])
def test_failures_are_not_charged(metered_world: World, tenant: str, path: str) -> None:
    """Whatever is answered with an error, or raised, costs nothing."""
    with calling(metered_world.client, RULES) as http:
        assert http.get(path, headers={"x-tenant": tenant}).status_code >= 400
    metered_world.settles(tenant, 0)


def test_streams_are_charged_by_their_bytes(metered_world: World, tenant: str) -> None:
    """What was reserved for a response gives way to the bytes that it had, of HEAD none."""
    with calling(metered_world.client, STREAMS) as http:
        assert len(http.get("/stream/7", headers={"x-tenant": tenant}).content) == 700
        metered_world.settles(tenant, 700, "egress_bytes")
        http.head("/stream/7", headers={"x-tenant": tenant})
    metered_world.settles(tenant, 700, "egress_bytes")


def test_who_leaves_is_charged_what_was_sent(metered_world: World, tenant: str) -> None:
    """A response that a server closes before its end is charged by what it had handed over."""
    http = calling(metered_world.client, STREAMS)
    with http, http.stream("GET", "/stream/7", headers={"x-tenant": tenant}) as response:
        chunks = response.iter_raw()
        # Asked for the third, it has handed over two.
        for _ in range(3):
            next(chunks)
    metered_world.settles(tenant, 200, "egress_bytes")


def test_a_stream_that_breaks_is_not_charged(metered_world: World, tenant: str) -> None:
    """An app that raises in the middle of its response has not served it."""

    def breaks(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"x" * 100
        raise RuntimeError

    wrapped = MeteringMiddleware(breaks, client=metered_world.client, rules=STREAMS)
    http = httpx.Client(transport=httpx.WSGITransport(wrapped), base_url="http://app")
    with http, pytest.raises(RuntimeError):
        http.get("/", headers={"x-tenant": tenant})
    metered_world.settles(tenant, 0, "egress_bytes")


def test_views_ask_for_themselves(metered_world: World, tenant: str) -> None:
    """A view that is decorated asks with its URL's values, and is refused as by the middleware."""
    made = flask.Flask("tests")

    @made.get("/tokens/<int:count>")
    @metered(lambda count: {"requests": 1, "tokens": 10 * count})
    def tokens(count: int) -> str:
        current_cost().set("tokens", count)
        return "done"

    with calling(metered_world.client, WebRules(tenant="x-tenant"), made) as http:
        for count in (1, 2, 3):
            assert http.get(f"/tokens/{count}", headers={"x-tenant": tenant}).status_code == 200
        refused = http.get("/tokens/4", headers={"x-tenant": tenant})
        assert refused.status_code == 429
        told_at_limit(refused.headers)
        assert http.get("/tokens/4").status_code == 400
    metered_world.settles(tenant, 6, "tokens")


def test_an_absent_sidecar_closes(tenant: str) -> None:
    """Without an answer it is a 503 that says when to come back."""
    with Client(ABSENT, timeout=0.3, retry=False) as absent, calling(absent, RULES) as http:
        refused = http.get("/", headers={"x-tenant": tenant})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["type"] == "urn:tallygate:problem:metering-unavailable"
