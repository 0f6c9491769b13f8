"""Redis stalled for four seconds under clients that wait one: nobody is charged for nothing."""

import asyncio
import time

import pytest

from tallygate.adapters.embedded import EmbeddedRedis
from tests.builders import window
from tests.faults.fleet import Fleet, fleet, ledger_of, stopped
from tests.servers import eventually

STALL_S = 4.0
SIDECARS = 2
CLIENTS = 20
LIMIT = window(limit=1_000_000)


async def patient(it: Fleet, number: int, until: float) -> None:
    """Make call after call, each by its id until it is answered."""
    turn = 0
    while time.monotonic() < until:
        turn += 1
        await it.insist(f"patient-{number}-{turn}", number)


async def fickle(it: Fleet, number: int, until: float) -> None:
    """Make call after call, and never ask again for one that was not answered."""
    turn = 0
    while time.monotonic() < until:
        turn += 1
        if await it.ask(f"fickle-{number}-{turn}", 1, number) is None:
            # A client's own back-off: nothing is waited for.
            await asyncio.sleep(0.01 * (1 + number % 5))


@pytest.mark.slow
async def test_what_was_given_up_is_never_charged(own_redis: EmbeddedRedis) -> None:
    """Calls sent to a stalled Redis wait in its sockets; when it wakes it leaves them alone."""
    async with fleet(own_redis.url, [LIMIT], SIDECARS) as it:
        before = it.units
        with stopped(own_redis):
            until = time.monotonic() + STALL_S
            async with asyncio.TaskGroup() as clients:
                for number in range(CLIENTS):
                    clients.create_task(fickle(it, number, until))
        assert it.answers["unanswered"] > CLIENTS
        assert it.units == before
        # An answer shows that Redis is through with all that had waited in its sockets.
        await it.insist("after")
        await it.settle()
        assert len(await it.events()) == len(it.granted)


@pytest.mark.slow
async def test_the_counter_is_what_was_answered_with_a_grant(
    own_redis: EmbeddedRedis, postgres_dsn: str
) -> None:
    """Under load through the stall, retries by the same id find each charge: none is for nothing.

    Counter, ledger and the grants that clients were told of are one number.
    """
    async with fleet(own_redis.url, [LIMIT], SIDECARS) as it:
        load = asyncio.create_task(everyone(it, time.monotonic() + STALL_S + 2.0))
        while it.answers["decided grant"] < 10 * CLIENTS:
            await asyncio.sleep(0)
        with stopped(own_redis):
            awake = time.monotonic() + STALL_S
            await eventually(
                lambda: it.answers["unanswered"] > CLIENTS and time.monotonic() >= awake,
                10 * STALL_S,
                what="the stall has been felt, and is over",
            )
        await load
        assert it.answers["unanswered"] > CLIENTS
        await it.settle()
        assert await ledger_of(own_redis.url, postgres_dsn) == (len(it.granted), it.units)


async def everyone(it: Fleet, until: float) -> None:
    """Run all clients, each patient."""
    async with asyncio.TaskGroup() as clients:
        for number in range(CLIENTS):
            clients.create_task(patient(it, number, until))
