"""Row 50: what Envoy asks, in every shape that it may have, of a real sidecar over a real Redis."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.gen.envoy import rate_limit_pb2 as pb
from tests.envoy.world import DECIDE, catalog, sidecar
from tests.servers import eventually
from tests.sidecar import failure

OVER = pb.RATE_LIMIT_CODE_OVER_LIMIT
NO_LIMIT = 2**32 - 1
BUDGET_S = 0.02
# Not decided within the budget: the caller gave up, or was told that it would have to.
LATE = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)

BY_TENANT = {"match": [{"key": "tenant"}], "tenant": {"entry": "tenant"}, "meter": "requests"}
BY_PATH = {
    "match": [{"key": "tenant"}, {"key": "path"}],
    "tenant": {"entry": "tenant"},
    "meter": "calls",
    "dimensions": {"path": {"entry": "path"}},
}
FREE = {"match": [{"key": "internal"}], "pass": True}


def limits(*found: Mapping[str, Any], rules: Sequence[Any] = (), **domain: Any) -> dict[str, Any]:
    """Return a catalog of these limits and rules."""
    usual = {"kind": "window", "period": "day"}
    return catalog(
        meters={"requests": {}, "calls": {}},
        plans={"free": {"limits": [{**usual, **each} for each in found]}},
        envoy={"domains": {"edge": {"rules": [*(rules or (BY_TENANT,))], **domain}}},
    )


DAILY = {"id": "daily", "meter": "requests", "limit": 3}
PER_PATH = {"id": "per-path", "meter": "calls", "limit": 2, "per": "path"}


def codes(response: pb.RateLimitResponse) -> list[bool]:
    """Return whether the whole is over its limit, and then each descriptor."""
    return [response.overall_code == OVER, *(each.code == OVER for each in response.statuses)]


def headers(response: pb.RateLimitResponse) -> dict[str, str]:
    """Return the headers that Envoy is told to add."""
    return {each.key: each.value for each in response.response_headers_to_add}


async def test_exactly_so_many(tmp_path: Path, redis_url: str) -> None:
    """So many calls pass as the plan allows; each is told where its limit stands."""
    async with sidecar(tmp_path, redis_url, limits(DAILY)) as envoy:
        answers = [await envoy.ask({"tenant": "acme"}) for _ in range(5)]
        assert [codes(each)[0] for each in answers] == [False] * 3 + [True] * 2
        (status,) = answers[0].statuses
        assert status.current_limit.name == "daily"
        assert (status.current_limit.requests_per_unit, status.current_limit.unit) == (
            3,
            pb.RATE_LIMIT_UNIT_DAY,
        )
        assert [each.statuses[0].limit_remaining for each in answers] == [2, 1, 0, 0, 0]
        assert 0 < status.duration_until_reset.seconds < 86_400
        assert headers(answers[0])["ratelimit-policy"] == '"daily";q=3'
        assert headers(answers[0])["ratelimit"].startswith('"daily";r=2;t=')
        assert "retry-after" not in headers(answers[0])
        assert int(headers(answers[3])["retry-after"]) > 0
        assert envoy.count("envoy_descriptors_total", outcome="ok") == 3
        assert envoy.count("envoy_descriptors_total", outcome="over_limit") == 2


async def test_hits(tmp_path: Path, redis_url: str) -> None:
    """Hits of the call are 1 where it says 0; a descriptor's own count instead, and 0 means 0."""
    async with sidecar(tmp_path, redis_url, limits({**DAILY, "limit": 10})) as envoy:
        first = await envoy.ask({"tenant": "acme"}, hits=0)
        assert first.statuses[0].limit_remaining == 9
        second = await envoy.ask({"tenant": "acme"}, hits=4)
        assert second.statuses[0].limit_remaining == 5
        request = pb.RateLimitRequest(domain="edge", hits_addend=9)
        descriptor = request.descriptors.add()
        descriptor.entries.add(key="tenant", value="acme")
        descriptor.hits_addend.value = 5
        third = await envoy.decide(request)
        assert (codes(third), third.statuses[0].limit_remaining) == ([False, False], 0)
        descriptor.hits_addend.value = 0
        fourth = await envoy.decide(request)
        assert (codes(fourth), fourth.statuses[0].limit_remaining) == ([False, False], 0)
        assert fourth.statuses[0].current_limit.name == "daily"
        assert codes(await envoy.ask({"tenant": "acme"}))[0]


async def test_together(tmp_path: Path, redis_url: str) -> None:
    """A call is over if any descriptor is; of one tenant's, all are charged or none."""
    parts = limits(DAILY, PER_PATH, rules=[BY_TENANT, BY_PATH])
    async with sidecar(tmp_path, redis_url, parts) as envoy:
        both = ({"tenant": "acme"}, {"tenant": "acme", "path": "/a"})
        answers = [await envoy.ask(*both) for _ in range(3)]
        assert [codes(each) for each in answers[:2]] == [[False] * 3] * 2
        assert codes(answers[2]) == [True, False, True]
        assert answers[2].statuses[1].current_limit.name == "per-path"
        # The third call was refused by its path: the tenant's one left is there still.
        assert codes(await envoy.ask({"tenant": "acme"})) == [False, False]
        assert codes(await envoy.ask({"tenant": "acme"})) == [True, True]
        # Another value has a counter of its own.
        assert codes(await envoy.ask({"tenant": "acme", "path": "/b"})) == [False, False]


async def test_each(tmp_path: Path, redis_url: str) -> None:
    """Where each descriptor is charged by itself, one that fits is, whatever the others say."""
    parts = limits(DAILY, PER_PATH, rules=[BY_TENANT, BY_PATH], charge="each", headers="legacy")
    async with sidecar(tmp_path, redis_url, parts) as envoy:
        both = ({"tenant": "acme"}, {"tenant": "acme", "path": "/a"})
        answers = [await envoy.ask(*both) for _ in range(3)]
        assert codes(answers[2]) == [True, False, True]
        assert codes(await envoy.ask({"tenant": "acme"})) == [True, True]
        found = headers(answers[0])
        assert (found["ratelimit-limit"], found["ratelimit-remaining"]) == ("2", "1")
        assert int(found["ratelimit-reset"]) > 0


async def test_nothing_to_limit(tmp_path: Path, redis_url: str) -> None:
    """A domain or descriptor that no rule is for passes, and a rule that says so without bound."""
    parts = limits(DAILY, rules=[BY_TENANT, FREE])
    async with sidecar(tmp_path, redis_url, parts) as envoy:
        unknown = await envoy.ask({"tenant": "acme"}, {"a": "b"}, domain="nowhere")
        assert codes(unknown) == [False] * 3
        assert not unknown.statuses[0].HasField("current_limit")
        deeper = await envoy.ask({"tenant": "acme", "path": "/"}, {"internal": "x"})
        assert codes(deeper) == [False] * 3
        assert [each.limit_remaining for each in deeper.statuses] == [0, NO_LIMIT]
        assert headers(deeper) == {}


async def test_bad_requests(tmp_path: Path, redis_url: str) -> None:
    """What breaks Envoy's own rules is INVALID_ARGUMENT naming the field; nothing is charged."""
    async with sidecar(tmp_path, redis_url, limits(DAILY)) as envoy:
        request = pb.RateLimitRequest(domain="edge")
        descriptor = request.descriptors.add()
        descriptor.entries.add(key="tenant", value="acme")
        descriptor.limit.requests_per_unit = 1_000
        told = await failure(envoy.decide(request))
        assert (told.code, told.fields) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            ["descriptors[0].limit"],
        )
        for asked, fields in (
            (pb.RateLimitRequest(), ["domain"]),
            (pb.RateLimitRequest(domain="edge"), ["descriptors"]),
            (
                json_format.ParseDict({"domain": "edge", "descriptors": [{}]}, request.__class__()),
                0,
            ),
            (
                json_format.ParseDict(
                    {"domain": "edge", "descriptors": [{"entries": [{"value": "x"}]}]},
                    request.__class__(),
                ),
                ["descriptors[0].entries[0].key"],
            ),
        ):
            told = await failure(envoy.decide(asked))
            assert told.code is grpc.StatusCode.INVALID_ARGUMENT
            assert told.fields == (fields or ["descriptors[0].entries"])
        assert (await envoy.ask({"tenant": "acme"})).statuses[0].limit_remaining == 2


async def test_who_cannot_be_charged(tmp_path: Path, redis_url: str) -> None:
    """Who is unknown, suspended or not readable is over his limit, and the reason is told."""
    parts = limits(DAILY, metadata=True)
    del parts["default_plan"]
    parts["tenants"] = {"acme": {"plan": "free"}, "late": {"plan": "free", "suspended": True}}
    async with sidecar(tmp_path, redis_url, parts) as envoy:
        for tenant, reason in (
            ("nobody", "UNKNOWN_TENANT"),
            ("late", "TENANT_SUSPENDED"),
            ("", "INVALID_FIELD"),
        ):
            # Of a call that is refused, nobody else is charged.
            answer = await envoy.ask({"tenant": tenant})
            assert codes(answer) == [True, True]
            assert headers(answer)["x-tallygate-reason"] == reason
            assert answer.dynamic_metadata["reason"] == reason
        assert codes(await envoy.ask({"tenant": ""}, {"tenant": "acme"}))[0]
        good = await envoy.ask({"tenant": "acme"})
        assert good.statuses[0].limit_remaining == 2
        assert json_format.MessageToDict(good.dynamic_metadata)["tenants"] == ["acme"]
        assert envoy.count("envoy_descriptors_total", outcome="refused") == 4


async def test_shadow(tmp_path: Path, redis_url: str) -> None:
    """A rule that only observes passes what is over, and refuses none of the others."""
    shadow = {**BY_PATH, "shadow": True}
    parts = limits(DAILY, PER_PATH, rules=[BY_TENANT, shadow], metadata=True)
    async with sidecar(tmp_path, redis_url, parts) as envoy:
        both = ({"tenant": "acme"}, {"tenant": "acme", "path": "/a"})
        answers = [await envoy.ask(*both) for _ in range(4)]
        assert [codes(each)[0] for each in answers] == [False, False, False, True]
        assert envoy.count("envoy_descriptors_total", outcome="shadowed") == 2
        assert codes(await envoy.ask({"tenant": "", "path": "/"})) == [False, False]
        assert answers[2].dynamic_metadata["refused_by"] == ""


async def test_units_of_rates(tmp_path: Path, redis_url: str) -> None:
    """A token bucket is shown by its rate, and what has no such unit without one."""
    rate = {"id": "rate", "meter": "requests", "kind": "rate", "period": "minute", "limit": 60}
    sliding = {"id": "trailing", "meter": "calls", "kind": "sliding", "duration": "1h", "limit": 9}
    parts = limits({**rate, "burst": 2}, rules=[BY_TENANT, BY_PATH])
    parts["plans"]["free"]["limits"].append(sliding)
    async with sidecar(tmp_path, redis_url, parts) as envoy:
        answer = await envoy.ask({"tenant": "acme"}, {"tenant": "acme", "path": "/"})
        shown = [each.current_limit for each in answer.statuses]
        assert [(each.requests_per_unit, each.unit) for each in shown] == [
            (60, pb.RATE_LIMIT_UNIT_MINUTE),
            (9, pb.RATE_LIMIT_UNIT_UNSPECIFIED),
        ]
        assert [each.limit_remaining for each in answer.statuses] == [1, 8]


async def test_within_the_budget(tmp_path: Path, redis_url: str) -> None:
    """Of fifty calls with Envoy's own deadline of 20 ms, none passes it.

    A machine that others keep busy may have to be asked again.
    """
    async with sidecar(tmp_path, redis_url, limits({**DAILY, "limit": 1_000_000})) as envoy:

        async def kept() -> bool:
            for _ in range(50):
                try:
                    await envoy.ask({"tenant": "acme"}, timeout=BUDGET_S)
                except grpc.aio.AioRpcError as error:
                    assert error.code() in LATE  # noqa: PT017
                    return False
            return True

        await eventually(kept, timeout_s=60)


async def test_redis_away(tmp_path: Path, own_redis: EmbeddedRedis) -> None:
    """While Redis is away each limit's own rule decides, or Envoy where the domain says so."""
    rules = [BY_TENANT, BY_PATH]
    parts = limits({**DAILY, "on_outage": "allow"}, PER_PATH, rules=rules)
    strict = {"rules": rules, "on_outage": "error"}
    parts["envoy"]["domains"]["strict"] = strict
    settings = {"breaker_hang_ms": 100, "redis_timeout_ms": 100, "outage_records": "accept"}
    async with sidecar(tmp_path, own_redis.url, parts, **settings) as envoy:
        assert codes(await envoy.ask({"tenant": "acme"})) == [False, False]
        await own_redis.stop()
        allowed = await envoy.ask({"tenant": "acme"})
        assert codes(allowed) == [False, False]
        refused = await envoy.ask({"tenant": "acme", "path": "/"})
        assert codes(refused) == [True, True]
        assert headers(refused)["x-tallygate-reason"] == "BACKEND_UNAVAILABLE"
        told = await failure(envoy.ask({"tenant": "acme", "path": "/"}, domain="strict"))
        assert told.code is grpc.StatusCode.UNAVAILABLE
        await own_redis.start()


async def test_many_at_once(tmp_path: Path, redis_url: str) -> None:
    """Of many calls at once exactly so many pass as there are units left."""
    async with sidecar(tmp_path, redis_url, limits({**DAILY, "limit": 40})) as envoy:
        answers = await asyncio.gather(*(envoy.ask({"tenant": "acme"}) for _ in range(100)))
        assert sum(not codes(each)[0] for each in answers) == 40


async def test_rules_for_callers(tmp_path: Path, redis_url: str) -> None:
    """Where there are rules for callers, nothing is charged for tenants that are not theirs."""
    rules = tmp_path / "identities.yaml"
    rules.write_text(
        "version: 1\nidentities:\n  - {id: unix, services: [envoy], tenants: [team-*]}\n"
    )
    address = f"unix:{tmp_path}/envoy.sock"
    settings = {
        "tls_identities": rules,
        "envoy_address": (address,),
        "grpc_address": (f"unix:{tmp_path}/grpc.sock",),
        # The native transport cannot tell who calls.
        "transport": "auto",
    }
    async with sidecar(tmp_path, redis_url, limits(DAILY), **settings) as envoy:
        assert codes(await envoy.ask({"tenant": "team-a"})) == [False, False]
        told = await failure(envoy.ask({"tenant": "acme"}))
        assert told.code is grpc.StatusCode.PERMISSION_DENIED


async def test_no_other_listener(tmp_path: Path, redis_url: str) -> None:
    """Callers of the data plane cannot ask as Envoy does: that is another listener's."""
    async with (
        sidecar(tmp_path, redis_url, limits(DAILY)) as envoy,
        grpc.aio.insecure_channel(envoy.process.grpc_addresses[0]) as channel,
    ):
        ask: Any = channel.unary_unary(DECIDE)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
