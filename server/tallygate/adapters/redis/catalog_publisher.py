"""The catalog on its way to the sidecars: one snapshot, tenants in buckets, a stream of changes.

Guarantees: tenants are written before the snapshot that needs them, and the change is told last, so
that a sidecar that hears of a version finds all of it.
Refuses to know: where catalogs come from.

Measured on Redis 7.0 with 500,000 tenants: with a plan alone, 72 bytes each in buckets, 148 as keys
of their own; with calendar, currency and customer, 275 and 292.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.catalog_codec import (
    catalog_from_json,
    catalog_to_json,
    tenant_from_json,
    tenant_to_json,
)
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import translate
from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.errors import StorageFault
from tallygate.domain.ids import TenantId

# Up to two million tenants, a bucket of small ones stays in Redis's compact form of 128 fields.
BUCKETS: Final = 16_384
# Sidecars look several times a second: what is older than this many versions nobody waits for.
CHANGES_KEPT: Final = 1_000
# A change of more tenants than this is told as a change of all. Sidecars read the newest change at
# every look, so it must stay small: at most 26 KB, and 4 KB with ids of usual length.
CHANGED_MAX: Final = 200
PIPELINE_MAX: Final = 500


def bucket_of(tenant: TenantId) -> int:
    """Return the bucket of a tenant."""
    return zlib.crc32(tenant.encode()) % BUCKETS


class RedisCatalogPublisher:
    """The `CatalogPublisher` port."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def published_version(self) -> int:
        """Return the version that sidecars are given, 0 for none."""
        try:
            snapshot = await self._client.get(keys.catalog_snapshot())
        except (RedisError, OSError) as error:
            raise translate(error) from error
        if snapshot is None:
            return 0
        try:
            return catalog_from_json(snapshot).version
        except (ValueError, KeyError, TypeError):
            return 0

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are published. Raises `StorageFault`."""
        found: dict[TenantId, Tenant] = {}
        try:
            for start in range(0, len(ids), PIPELINE_MAX):
                some = ids[start : start + PIPELINE_MAX]
                async with self._client.pipeline(transaction=False) as pipeline:
                    for each in some:
                        pipeline.hget(keys.tenant(bucket_of(each)), each)
                    replies = await pipeline.execute()
                found |= {
                    each: tenant_from_json(reply)
                    for each, reply in zip(some, replies, strict=True)
                    if reply is not None
                }
        except (RedisError, OSError) as error:
            raise translate(error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise StorageFault("a published tenant cannot be read") from error
        return found

    async def publish_tenants(self, tenants: Sequence[Tenant]) -> None:
        """Write tenants where sidecars look them up."""
        try:
            for start in range(0, len(tenants), PIPELINE_MAX):
                async with self._client.pipeline(transaction=False) as pipeline:
                    for tenant in tenants[start : start + PIPELINE_MAX]:
                        pipeline.hset(
                            keys.tenant(bucket_of(tenant.tenant_id)),
                            tenant.tenant_id,
                            tenant_to_json(tenant).decode(),
                        )
                    await pipeline.execute()
        except (RedisError, OSError) as error:
            raise translate(error) from error

    async def publish(self, catalog: Catalog, changed: Sequence[TenantId] | None) -> None:
        """Make `catalog` the one that sidecars use; they forget `changed`, or all for None."""
        few = changed is not None and len(changed) <= CHANGED_MAX
        names = "\n".join(changed or ()) if few else "*"
        try:
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.set(keys.catalog_snapshot(), catalog_to_json(catalog))
                pipeline.xadd(
                    keys.catalog_changes(),
                    {"version": str(catalog.version), "tenants": names},
                    maxlen=CHANGES_KEPT,
                    approximate=False,
                )
                await pipeline.execute()
        except (RedisError, OSError) as error:
            raise translate(error) from error
