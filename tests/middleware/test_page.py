"""docs/middleware.md: its Python runs, and its tables are what the code does."""

import contextlib
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tallygate_client import Client
from tallygate_client.celery import MeteredTask
from tallygate_client.metering.answers import QUOTA_EXCEEDED

from tests.docs.pages import block, blocks, pages
from tests.middleware.world import World, read_field

PAGE = "docs/middleware.md"
ADDRESS = "127.0.0.1:50051"


def run(holding: str, address: str) -> dict[str, Any]:
    """Run a block of the page against a sidecar; return what it made."""
    made: dict[str, Any] = {"__name__": "sample"}
    # It is our own page.
    exec(block(PAGE, "python", holding).replace(ADDRESS, address), made)
    return made


@pytest.fixture
async def fastapi(metered_world: World) -> AsyncIterator[httpx.AsyncClient]:
    """The page's FastAPI app."""
    app = run("StreamingResponse", metered_world.address)["app"]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        yield http


async def test_the_fastapi_sample_serves(
    fastapi: httpx.AsyncClient, metered_world: World, tenant: str
) -> None:
    """Its routes are charged by requests, bytes and tokens."""
    assert (await fastapi.get("/answer", headers={"x-tenant": tenant})).status_code == 200
    streamed = await fastapi.get("/report", headers={"x-tenant": tenant})
    metered_world.settles(tenant, 42, "tokens")
    metered_world.settles(tenant, 2)
    metered_world.settles(tenant, len('"forty-two"') + len(streamed.content), "egress_bytes")


def test_the_other_samples_work(metered_world: World, tenant: str) -> None:
    """Flask's view is charged, the function says what it returns, the rest can be made."""
    app = run("flask.Flask", metered_world.address)["app"]
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://app") as http:
        served = http.get("/pages/3", headers={"x-tenant": tenant})
    assert read_field(served.headers["ratelimit"])["requests-monthly"]["r"] == "2"
    metered_world.settles(tenant, 30, "tokens")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        client: Client = run("shorten", metered_world.address)["client"]
    assert printed.getvalue() == "a lo\n"
    assert client.stats().calls == 2
    assert run("RpcRules", metered_world.address)["server"]
    task = run("MeteredTask", metered_world.address)["render"]
    assert isinstance(task, MeteredTask)


def test_fields_and_types_are_as_shown() -> None:
    """The header fields shown can be read, and the problem types are the code's."""
    (shown,) = [each.text for each in blocks("text") if "RateLimit-Policy" in each.text]
    policy, standing = (line.partition(": ")[2] for line in shown.strip().splitlines())
    assert read_field(policy).keys() == read_field(standing).keys()
    assert QUOTA_EXCEEDED in pages()[PAGE]
