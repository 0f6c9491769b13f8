"""The stream goes back in time, as after a failover: all of it is delivered again, none is lost."""

import asyncio
from typing import Any, cast

import pytest

from tallygate.adapters.redis import keys
from tests.faults.test_ingest import drain
from tests.faults.world import SHARDS, World, expected, world

INGESTERS = ("a", "b", "c")
STORMS = 4
Copy = dict[str, bytes]


async def copy(on: World) -> Copy:
    """Return the streams with their groups, as a replica that falls behind from now on has them."""
    names = [keys.stream(shard) for shard in range(SHARDS)]
    return {name: cast(bytes, await on.client.dump(name)) for name in names}


async def put_back(on: World, streams: Copy) -> None:
    """Have Redis serve an old copy."""
    for name, value in streams.items():
        await on.client.restore(name, 0, cast(Any, value), replace=True)


@pytest.mark.parametrize("read", [False, True], ids=["unread", "pending"])
async def test_a_storm_of_redeliveries_adds_nothing(
    redis_url: str, postgres_dsn: str, *, read: bool
) -> None:
    """What was stored, acknowledged and trimmed comes again, for three ingesters at once."""
    async with world(redis_url, postgres_dsn) as on:
        await on.fill(1, 100)
        if read:
            # In the copy they are another consumer's, that never comes back.
            assert await on.stream("dead").read(30, 1)
        before = await copy(on)
        for _ in range(STORMS):
            async with asyncio.TaskGroup() as group:
                for name in INGESTERS:
                    group.create_task(drain(on, name, claim_idle_ms=0, entries_max=16))
            assert await on.sums() == expected(100)
            await put_back(on, before)
        await on.fill(101, 120)
        await drain(on, "a", claim_idle_ms=0)
        assert await on.sums() == expected(120)


async def test_a_group_whose_place_goes_back_reads_again(redis_url: str, postgres_dsn: str) -> None:
    """Its last id is an older one's: what is still there is read again, and what is new as well."""
    async with world(redis_url, postgres_dsn) as on:
        await on.fill(1, 40)
        held = await on.stream("holds").read(10, 1)
        ingest = on.ingest("a", entries_max=8, reads_max=1)
        await ingest.run_once()
        for shard in range(SHARDS):
            await on.client.xgroup_setid(keys.stream(shard), "ledger", "0")
        await on.fill(41, 60)
        await drain(on, "a", claim_idle_ms=0)
        assert len(held) == 10
        assert await on.sums() == expected(60)
