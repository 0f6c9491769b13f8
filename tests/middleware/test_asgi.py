"""The ASGI middleware around Starlette and FastAPI: limits, headers, failures, streams."""

from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import Response, StreamingResponse
from tallygate_client import AsyncClient
from tallygate_client.asgi import MeteringMiddleware, cost_of
from tallygate_client.fastapi import Cost, Metered
from tallygate_client.metering import Measured, WebRequest, WebRules

from tests.middleware.world import ABSENT, REQUESTS_MAX, World, read_field, told_at_limit

RULES = WebRules(
    tenant="x-tenant",
    cost={"requests": 1},
    exempt=lambda request: request.path == "/health",
)


def app() -> FastAPI:
    """Return an app with a route for each way to end."""
    made = FastAPI()

    @made.get("/")
    async def root() -> dict[str, str]:
        return {"hello": "world"}

    @made.get("/health")
    async def health() -> str:
        return "ok"

    @made.get("/fails/{status}")
    async def fails(status: int) -> Response:
        return Response(status_code=status)

    @made.get("/raises")
    async def raises() -> None:
        raise RuntimeError

    @made.get("/forbids")
    async def forbids() -> None:
        raise HTTPException(403)

    @made.get("/cancels")
    async def cancels(request: Request) -> str:
        cost_of(request.scope).cancel()
        return "free"

    @made.get("/stream/{chunks}")
    async def stream(chunks: int) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(chunks):
                yield b"x" * 100

        return StreamingResponse(body())

    return made


@pytest.fixture
async def client(metered_world: World) -> AsyncIterator[AsyncClient]:
    """A client of this test's loop."""
    async with AsyncClient(metered_world.address, timeout=10) as opened:
        yield opened


def calling(client: AsyncClient, rules: WebRules, made: FastAPI | None = None) -> httpx.AsyncClient:
    """Return what calls an app behind the middleware."""
    made = made or app()
    made.add_middleware(MeteringMiddleware, client=client, rules=rules)
    transport = httpx.ASGITransport(made, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://app")


async def test_requests_are_served_up_to_the_limit(
    client: AsyncClient, metered_world: World, tenant: str
) -> None:
    """As many pass as the limit allows, each told what is left; the next is a 429 with why."""
    async with calling(client, RULES) as http:
        for number in range(1, REQUESTS_MAX + 1):
            served = await http.get("/", headers={"x-tenant": tenant})
            assert served.status_code == 200
            standing = read_field(served.headers["ratelimit"])["requests-monthly"]
            assert standing["r"] == str(REQUESTS_MAX - number)
        refused = await http.get("/", headers={"x-tenant": tenant})
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["cache-control"] == "no-store"
    told_at_limit(refused.headers)
    problem = refused.json()
    assert problem["type"].endswith("#quota-exceeded")
    assert problem["violated-policies"] == ["requests-monthly"]
    assert tenant not in refused.text
    metered_world.settles(tenant, REQUESTS_MAX)


@pytest.mark.parametrize("path", ["/fails/404", "/fails/500", "/raises", "/forbids", "/cancels"])
async def test_failures_are_not_charged(
    client: AsyncClient, metered_world: World, tenant: str, path: str
) -> None:
    """Whatever is answered with an error, or raised, or cancelled by the app, costs nothing."""
    async with calling(client, RULES) as http:
        await http.get(path, headers={"x-tenant": tenant})
    metered_world.settles(tenant, 0)


async def test_the_app_says_which_statuses_are_charged(
    client: AsyncClient, metered_world: World, tenant: str
) -> None:
    """A predicate on the status decides instead of the default."""
    rules = WebRules(tenant="x-tenant", cost={"requests": 1}, charged=lambda status: status != 500)
    async with calling(client, rules) as http:
        await http.get("/fails/404", headers={"x-tenant": tenant})
        await http.get("/fails/500", headers={"x-tenant": tenant})
    metered_world.settles(tenant, 1)


async def test_no_tenant_is_no_pass(client: AsyncClient) -> None:
    """Who names no tenant is answered 400, or 401 with the app's challenge; never served."""
    async with calling(client, RULES) as http:
        refused = await http.get("/")
        assert (await http.get("/health")).status_code == 200
    assert refused.status_code == 400
    assert refused.json()["type"] == "urn:tallygate:problem:tenant-missing"
    rules = WebRules(tenant="x-tenant", cost={"requests": 1}, challenge="Bearer")
    async with calling(client, rules) as http:
        refused = await http.get("/")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_tenant_that_cannot_be_one_is_the_clients_fault(client: AsyncClient) -> None:
    """A malformed tenant is a 400 that names no more than that."""
    async with calling(client, RULES) as http:
        refused = await http.get("/", headers={"x-tenant": "a b"})
    assert refused.status_code == 400
    assert refused.json()["type"] == "urn:tallygate:problem:tenant-invalid"


async def test_a_wrong_rule_is_no_secret_told(client: AsyncClient, tenant: str) -> None:
    """A meter that the catalog lacks is a 500 for the client, and told to the operator alone."""
    rules = WebRules(tenant="x-tenant", cost={"no_such_meter": 1})
    async with calling(client, rules) as http:
        refused = await http.get("/", headers={"x-tenant": tenant})
    assert refused.status_code == 500
    assert "no_such_meter" not in refused.text


async def test_an_absent_sidecar_closes_or_opens(tenant: str) -> None:
    """Without an answer it is a 503 that says when to come back, or under `open` a pass."""
    absent = AsyncClient(ABSENT, timeout=0.3, retry=False)
    async with absent, calling(absent, RULES) as http:
        refused = await http.get("/", headers={"x-tenant": tenant})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["type"] == "urn:tallygate:problem:metering-unavailable"
    opening = AsyncClient(ABSENT, timeout=0.3, retry=False, on_absent="open")
    async with opening, calling(opening, RULES) as http:
        served = await http.get("/", headers={"x-tenant": tenant})
    assert served.status_code == 200
    assert "ratelimit" not in served.headers


async def test_streams_are_charged_by_their_bytes(
    client: AsyncClient, metered_world: World, tenant: str
) -> None:
    """What was reserved for a response gives way to the bytes that it had."""
    rules = WebRules(tenant="x-tenant", response_bytes=Measured("egress_bytes", 10_000))
    async with calling(client, rules) as http:
        served = await http.get("/stream/7", headers={"x-tenant": tenant})
        assert len(served.content) == 700
        policy = read_field(served.headers["ratelimit-policy"])["egress_bytes-monthly"]
        assert policy["qu"] == '"content-bytes"'
    metered_world.settles(tenant, 700, "egress_bytes")


async def test_consume_refunds_what_failed(
    client: AsyncClient, metered_world: World, tenant: str
) -> None:
    """Charged before, in one call; a failure is given back by a refund."""
    rules = WebRules(tenant="x-tenant", cost={"requests": 1}, mode="consume")
    async with calling(client, rules) as http:
        await http.get("/", headers={"x-tenant": tenant})
        await http.get("/raises", headers={"x-tenant": tenant})
    metered_world.settles(tenant, 1)


async def test_routes_ask_for_themselves(
    client: AsyncClient, metered_world: World, tenant: str
) -> None:
    """A FastAPI dependency asks for its route, gives the cost, and refuses as the middleware."""
    made = FastAPI()

    @made.get("/tokens/{count}")
    async def tokens(
        count: int,
        cost: Annotated[Cost, Depends(Metered({"requests": 1, "tokens": 500}))],
    ) -> int:
        cost.add("tokens", count)
        return count

    rules = WebRules(tenant="x-tenant", response_bytes=Measured("egress_bytes", 1_000))
    async with calling(client, rules, made) as http:
        for count in (10, 20, 30):
            served = await http.get(f"/tokens/{count}", headers={"x-tenant": tenant})
            assert served.status_code == 200
            told = read_field(served.headers["ratelimit"])
            assert set(told) == {"egress_bytes-monthly", "requests-monthly", "tokens-monthly"}
        refused = await http.get("/tokens/40", headers={"x-tenant": tenant})
        assert refused.status_code == 429
        told_at_limit(refused.headers)
        nobody = await http.get("/tokens/40")
        assert nobody.status_code == 400
    metered_world.settles(tenant, 60, "tokens")
    metered_world.settles(tenant, 3 * len("10"), "egress_bytes")


async def test_tenant_and_cost_may_be_awaited(
    client: AsyncClient, metered_world: World, tenant: str
) -> None:
    """Who pays and what it costs may be looked up asynchronously."""

    async def payer(request: WebRequest) -> str:
        return request.headers["x-tenant"]

    async def cost(request: WebRequest) -> dict[str, int]:
        return {"tokens": len(request.path)}

    async with calling(client, WebRules(tenant=payer, cost=cost)) as http:
        assert (await http.get("/", headers={"x-tenant": tenant})).status_code == 200
    metered_world.settles(tenant, 1, "tokens")


async def test_an_answer_of_the_apps_own(client: AsyncClient, tenant: str) -> None:
    """The app may write the body of a refusal; status and headers stay."""
    rules = WebRules(
        tenant="x-tenant",
        cost={"requests": REQUESTS_MAX + 1},
        answer=lambda request, status, members: ("text/plain", f"no: {status}".encode()),
    )
    async with calling(client, rules) as http:
        refused = await http.get("/", headers={"x-tenant": tenant})
    assert (refused.status_code, refused.text) == (429, "no: 429")
    # It asks for more than there ever is.
    assert "retry-after" not in refused.headers
