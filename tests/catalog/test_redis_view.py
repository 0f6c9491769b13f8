"""What a sidecar's catalog does when Redis is emptied, behind, trimmed, broken or slow."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from unittest.mock import patch

import pytest
from redis.asyncio import Redis

from tallygate.adapters.catalog_codec import catalog_to_json
from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.redis import catalog_view, keys, tenant_reads
from tallygate.adapters.redis.catalog_publisher import RedisCatalogPublisher, bucket_of
from tallygate.adapters.redis.catalog_view import RedisCatalogView
from tallygate.adapters.redis.client import connect
from tallygate.domain.errors import (
    BackendUnavailable,
    Overloaded,
    StorageFault,
    UnknownTenant,
)
from tallygate.domain.ids import PlanName, TenantId
from tests.contracts.catalogs import ACME, FREE, ORG, PRO, catalog, tenant


@dataclass
class Sidecar:
    """A view, the publisher that feeds it, and the Redis between them."""

    redis: Redis
    publisher: RedisCatalogPublisher
    view: RedisCatalogView

    async def calls(self) -> int:
        """Return how many commands this Redis has served."""
        return int((await self.redis.info("stats"))["total_commands_processed"])


@pytest.fixture
async def sidecar(redis_url: str) -> AsyncIterator[Sidecar]:
    """A sidecar that has version 5, with acme below org, and holds acme."""
    client = connect(redis_url, 5_000)
    found = Sidecar(client, RedisCatalogPublisher(client), RedisCatalogView(client))
    await found.publisher.publish_tenants([tenant("org"), tenant("acme", parent="org")])
    await found.publisher.publish(catalog(5, default_plan=FREE), None)
    await found.view.refresh()
    await found.view.lineage(ACME)
    yield found
    await found.view.close()
    await client.aclose()


async def test_an_emptied_redis_takes_nothing_away(sidecar: Sidecar) -> None:
    """The last good catalog and the tenants held outlive what Redis forgot."""
    await sidecar.redis.flushall()
    assert await sidecar.view.refresh() == 0
    assert sidecar.view.version == 5
    assert sidecar.view.lineage_held(ACME) is not None


async def test_an_emptied_redis_proves_nobody_unknown(sidecar: Sidecar) -> None:
    """A declared tenant must not fall to the default plan because Redis forgot it."""
    await sidecar.redis.flushall()
    with pytest.raises(BackendUnavailable):
        await sidecar.view.lineage(ORG)
    await sidecar.publisher.publish_tenants([tenant("org", PRO)])
    await sidecar.publisher.publish(catalog(5, default_plan=FREE), None)
    assert (await sidecar.view.lineage(ORG))[0].plan == PRO


async def test_an_emptied_redis_is_taken_over_when_it_is_filled(sidecar: Sidecar) -> None:
    """The same version published again makes the view read everyone again."""
    await sidecar.redis.flushall()
    await sidecar.view.refresh()
    await sidecar.publisher.publish_tenants([tenant("acme", PRO)])
    await sidecar.publisher.publish(catalog(5, default_plan=FREE), None)
    assert await sidecar.view.refresh() == 1
    assert (await sidecar.view.lineage(ACME))[0].plan == PRO


async def test_a_redis_whose_clock_is_behind_is_taken_over(sidecar: Sidecar) -> None:
    """After Redis was lost, stream ids may begin below the one seen last."""
    snapshot = catalog_to_json(catalog(6))
    await sidecar.redis.flushall()
    await sidecar.redis.set(keys.catalog_snapshot(), snapshot)
    await sidecar.redis.xadd(keys.catalog_changes(), {"version": "6", "tenants": "*"}, id="1-1")
    await sidecar.view.refresh()
    assert sidecar.view.version == 6


async def test_an_old_copy_of_redis_is_not_taken_over(sidecar: Sidecar) -> None:
    """A replica that lagged comes with an older version: the newer one stays in use."""
    await sidecar.redis.flushall()
    await sidecar.publisher.publish(catalog(4), None)
    assert await sidecar.view.refresh() == 0
    assert sidecar.view.version == 5
    assert sidecar.view.lineage_held(ACME) is not None
    await sidecar.publisher.publish(catalog(6), [])
    assert await sidecar.view.refresh() == 1
    assert sidecar.view.version == 6


async def test_trimmed_history_loses_no_change(sidecar: Sidecar) -> None:
    """Who slept through the history reads everyone again."""
    await sidecar.publisher.publish_tenants([tenant("org", PRO)])
    await sidecar.publisher.publish(catalog(6, default_plan=FREE), [ORG])
    await sidecar.publisher.publish(catalog(7, default_plan=FREE), [])
    await sidecar.redis.xtrim(keys.catalog_changes(), maxlen=1)
    await sidecar.view.refresh()
    assert (await sidecar.view.lineage(ACME))[1].plan == PRO


async def test_history_is_bounded(sidecar: Sidecar) -> None:
    """However many versions there are, Redis keeps a thousand changes."""
    for version in range(6, 1_206):
        await sidecar.publisher.publish(catalog(version), [])
    assert await sidecar.redis.xlen(keys.catalog_changes()) == 1_000


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b"{}", b"\xff", b'{"version": "x"}'])
async def test_rubbish_is_told_and_not_taken(sidecar: Sidecar, rubbish: bytes) -> None:
    """A snapshot that cannot be read leaves the last good one, until a good one comes."""
    await sidecar.publisher.publish(catalog(6), [])
    await sidecar.redis.set(keys.catalog_snapshot(), rubbish)
    for _ in range(2):
        with pytest.raises(StorageFault):
            await sidecar.view.refresh()
    assert sidecar.view.version == 5
    assert await sidecar.publisher.published_version() == 0
    await sidecar.publisher.publish(catalog(6), [])
    await sidecar.view.refresh()
    assert sidecar.view.version == 6


async def test_a_tenant_that_is_rubbish_is_told(sidecar: Sidecar) -> None:
    """A tenant that cannot be read is an error, not an unknown tenant."""
    await sidecar.redis.hset(keys.tenant(bucket_of(ORG)), ORG, "{}")
    with pytest.raises(StorageFault):
        await sidecar.view.lineage(ORG)


async def test_an_endless_lineage_is_told(sidecar: Sidecar) -> None:
    """A circle that got past the rules ends in an error, not in a loop."""
    await sidecar.publisher.publish_tenants([tenant("a", parent="b"), tenant("b", parent="a")])
    with pytest.raises(StorageFault):
        await sidecar.view.lineage(TenantId("a"))


async def test_a_tenant_never_comes_without_its_plan(sidecar: Sidecar) -> None:
    """A tenant on a plan not yet published would be without limits; it is refused for a moment."""
    new = PlanName("new")
    await sidecar.publisher.publish_tenants([tenant("late", new)])
    with pytest.raises(BackendUnavailable):
        await sidecar.view.lineage(TenantId("late"))
    await sidecar.publisher.publish(catalog(6, plans=(FREE, PRO, new)), [TenantId("late")])
    assert (await sidecar.view.lineage(TenantId("late")))[0].plan == new
    assert sidecar.view.version == 6


async def test_a_plan_that_goes_takes_those_held_along(sidecar: Sidecar) -> None:
    """Whoever is held on a plan that goes is read again."""
    await sidecar.publisher.publish_tenants([tenant("acme", PRO)])
    # As if the change had not named acme.
    await sidecar.publisher.publish(catalog(6, plans=(PRO,)), [])
    await sidecar.view.refresh()
    assert sidecar.view.lineage_held(ACME) is None
    assert (await sidecar.view.lineage(ACME))[0].plan == PRO


async def test_a_refresh_without_news_is_one_command(sidecar: Sidecar) -> None:
    """The steady state costs Redis one command."""
    before = await sidecar.calls()
    await sidecar.view.refresh()
    # One is the second count itself.
    assert await sidecar.calls() - before == 2


async def test_lookups_that_come_together_share_one_read(sidecar: Sidecar) -> None:
    """A thousand calls for ten tenants read ten tenants, in one pipeline."""
    names = [TenantId(f"t{n % 10}") for n in range(1_000)]
    before = await sidecar.calls()
    found = await asyncio.gather(*(sidecar.view.lineage(name) for name in names))
    assert [lineage[0].tenant_id for lineage in found] == names
    # Ten tenants, one look for the catalog, one count.
    assert await sidecar.calls() - before == 12
    assert sidecar.view.reads_waiting == 0


async def test_a_caller_that_leaves_takes_no_answer_along(sidecar: Sidecar) -> None:
    """Of two callers for one tenant, one is cancelled and the other is answered."""
    first = asyncio.create_task(sidecar.view.lineage(ORG))
    second = asyncio.create_task(sidecar.view.lineage(ORG))
    await asyncio.sleep(0)
    assert sidecar.view.reads_waiting == 1
    first.cancel()
    assert (await second)[0].tenant_id == ORG
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_memory_is_bounded(redis_url: str) -> None:
    """Of many tenants, the ones used lately are held; made-up names do not drive them out."""
    client = connect(redis_url, 5_000)
    view = RedisCatalogView(client, held_max=10)
    await RedisCatalogPublisher(client).publish_tenants([tenant(f"t{n}") for n in range(30)])
    await RedisCatalogPublisher(client).publish(catalog(1), None)
    await view.refresh()
    for number in range(30):
        await view.lineage(TenantId("t0"))
        await view.lineage(TenantId(f"t{number}"))
    assert view.tenants_held == 10
    assert view.lineage_held(TenantId("t0")) is not None
    assert view.lineage_held(TenantId("t1")) is None
    for number in range(100):
        with pytest.raises(UnknownTenant):
            await view.lineage(TenantId(f"made-up-{number}"))
    assert view.lineage_held(TenantId("t29")) is not None
    await view.close()
    await client.aclose()


async def test_reads_that_wait_are_bounded(sidecar: Sidecar) -> None:
    """More tenants at once than can wait are refused, the others are answered."""
    with patch.object(tenant_reads, "WAITING_MAX", 3):
        found = await asyncio.gather(
            *(sidecar.view.lineage(TenantId(f"t{n}")) for n in range(5)), return_exceptions=True
        )
    assert [isinstance(each, Overloaded) for each in found] == [False] * 3 + [True] * 2


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_closing_leaves_nobody_waiting(sidecar: Sidecar, steps: int) -> None:
    """Who waits for a tenant when the sidecar stops is answered or gets an error, at once."""
    with patch.object(tenant_reads, "READ_TOGETHER_MAX", 1):
        waiting = [
            asyncio.create_task(sidecar.view.lineage(name)) for name in (ORG, TenantId("other"))
        ]
        for _ in range(steps):
            await asyncio.sleep(0)
        await sidecar.view.close()
        _, last = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(last, BackendUnavailable)
    assert sidecar.view.reads_waiting == 0
    with pytest.raises(BackendUnavailable):
        await sidecar.view.lineage(TenantId("third"))


async def test_what_was_read_before_a_change_is_not_held(sidecar: Sidecar) -> None:
    """A tenant read while its change arrives is used once, and read again."""
    view = sidecar.view
    org = tenant("org", PRO)
    read = view._reads.read

    async def read_and_change(tenant_id: TenantId) -> object:
        found = await read(tenant_id)
        await sidecar.publisher.publish_tenants([org])
        await sidecar.publisher.publish(catalog(6, default_plan=FREE), [ORG])
        await view.refresh()
        return found

    with patch.object(view._reads, "read", read_and_change):
        assert (await view.lineage(ORG))[0].plan == FREE
    assert view.lineage_held(ORG) is None
    assert await view.lineage(ORG) == (org,)


async def test_a_redis_that_is_killed_and_comes_back(own_redis: EmbeddedRedis) -> None:
    """While Redis is away the catalog stays in use; when it is back, changes arrive again."""
    client = connect(own_redis.url, 1_000)
    publisher, view = RedisCatalogPublisher(client), RedisCatalogView(client)
    await publisher.publish_tenants([tenant("acme")])
    await publisher.publish(catalog(1), None)
    await view.refresh()
    await view.lineage(ACME)
    await own_redis.kill()
    with pytest.raises(BackendUnavailable):
        await view.refresh()
    assert view.version == 1
    assert view.lineage_held(ACME) is not None
    await own_redis.start()
    await publisher.publish_tenants([tenant("acme", PRO)])
    await publisher.publish(catalog(2), [ACME])
    await view.refresh()
    assert (await view.lineage(ACME))[0].plan == PRO
    await view.close()
    await client.aclose()


async def test_a_long_sleep_is_caught_up_with(sidecar: Sidecar) -> None:
    """More changes than one look reads are all taken over in the end."""
    with patch.object(catalog_view, "CHANGES_READ_MAX", 2):
        for version in range(6, 12):
            await sidecar.publisher.publish(catalog(version, default_plan=FREE), [])
        await sidecar.publisher.publish_tenants([replace(tenant("acme"), plan=PRO)])
        await sidecar.publisher.publish(catalog(12, default_plan=FREE), [ACME])
        while await sidecar.view.refresh():
            assert sidecar.view.version == 12
    assert (await sidecar.view.lineage(ACME))[0].plan == PRO
