"""Redis gone or hanging, under several sidecars: who is granted what, and that all is counted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.domain.catalog import OnOutage
from tests.builders import window
from tests.faults.fleet import Fleet, fleet, ledger_of, stopped

SIDECARS = 3
BUDGET = 20
REFUSE = window(limit=1_000_000)
ALLOW = window(limit=1_000_000, on_outage=OnOutage.ALLOW)
LOCAL = window(limit=1_000_000, on_outage=OnOutage.LOCAL_BUDGET, local_budget=BUDGET)
CALLERS = 12
CALLS = 15


@asynccontextmanager
async def away(server: EmbeddedRedis, way: str) -> AsyncIterator[None]:
    """Have Redis not answer for the length of a block: ended, killed, or stopped where it is."""
    if way == "hang":
        with stopped(server):
            yield
        return
    await getattr(server, way)()
    try:
        yield
    finally:
        await server.start()


async def call_all(it: Fleet, name: str) -> None:
    """Have every caller make its calls, one after the other, each to its own sidecar."""

    async def caller(number: int) -> None:
        for turn in range(CALLS):
            await it.ask(f"{name}-{number}-{turn}", 1, number)

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["stop", "kill", "hang"])
async def test_refuse_grants_nothing_and_charges_nothing(
    own_redis: EmbeddedRedis, way: str
) -> None:
    """The over-admission is 0: no grant in the outage, and no charge for what was not granted."""
    async with fleet(own_redis.url, [REFUSE], SIDECARS) as it:
        before = it.units
        async with away(own_redis, way):
            await call_all(it, "out")
            assert it.units == before
        await it.settle()
        assert sum((await it.events()).values()) == before


@pytest.mark.slow
@pytest.mark.parametrize("way", ["stop", "kill", "hang"])
async def test_allow_grants_all_and_counts_it(own_redis: EmbeddedRedis, way: str) -> None:
    """Every call of the outage is granted; afterwards counter and events are the grants."""
    async with fleet(own_redis.url, [ALLOW], SIDECARS) as it:
        async with away(own_redis, way):
            await call_all(it, "out")
            assert it.units == SIDECARS + CALLERS * CALLS
            assert it.answers["degraded grant"] == CALLERS * CALLS
        await it.settle()
        assert sum((await it.events()).values()) == it.units


@pytest.mark.slow
@pytest.mark.parametrize("way", ["stop", "kill", "hang"])
async def test_a_local_budget_is_the_bound_of_each_sidecar(
    own_redis: EmbeddedRedis, way: str
) -> None:
    """An outage grants at most the budget times the sidecars, whatever is asked."""
    async with fleet(own_redis.url, [LOCAL], SIDECARS) as it:
        before = it.units
        async with away(own_redis, way):
            await call_all(it, "out")
            assert it.units - before == BUDGET * SIDECARS
            assert it.answers["degraded refusal"] > 0
        await it.settle()
        assert sum((await it.events()).values()) == it.units


async def test_no_call_waits_while_the_circuit_is_open(own_redis: EmbeddedRedis) -> None:
    """After the first wait every call over a hanging Redis is answered, each by the rules."""
    async with fleet(own_redis.url, [ALLOW]) as it:
        with stopped(own_redis):
            await it.ask("first")
            for turn in range(300):
                reply = await it.ask(f"out-{turn}")
                assert reply is not None
                assert reply.degraded
        await it.settle()


@pytest.mark.slow
async def test_a_flapping_redis_loses_and_doubles_nothing(
    own_redis: EmbeddedRedis, postgres_dsn: str
) -> None:
    """Redis goes and comes back again and again under load; ledger, counter and grants agree."""
    async with fleet(own_redis.url, [ALLOW], SIDECARS) as it:
        ended = asyncio.Event()

        async def caller(number: int) -> None:
            turn = 0
            while not ended.is_set():
                turn += 1
                await it.insist(f"{number}-{turn}", number)

        async with asyncio.TaskGroup() as callers:
            for number in range(CALLERS):
                callers.create_task(caller(number))
            for way in ("hang", "stop", "hang", "kill"):
                async with away(own_redis, way):
                    seen = it.answers["degraded grant"]
                    while it.answers["degraded grant"] < seen + 50:
                        await asyncio.sleep(0)
                seen = it.answers["decided grant"]
                while it.answers["decided grant"] < seen + 50:
                    await asyncio.sleep(0)
            ended.set()
        await it.settle()
        assert await ledger_of(own_redis.url, postgres_dsn) == (len(it.granted), it.units)
