"""Reading published tenants: those asked for together are read together, each of them once.

Guarantees: a bounded number waits; whoever asks is answered or gets an error, also when the reader
is stopped; a Redis without a catalog is an outage, not a proof that a tenant does not exist.
Refuses to know: what tenants are for.
"""

import asyncio
from collections.abc import Mapping
from itertools import islice
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.catalog_codec import tenant_from_json
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.catalog_publisher import bucket_of
from tallygate.adapters.redis.client import translate
from tallygate.domain.catalog import Tenant
from tallygate.domain.errors import BackendUnavailable, Overloaded, StorageFault
from tallygate.domain.ids import TenantId

# One reply of some 100 KB: larger ones would hold up the calls that share the connection.
READ_TOGETHER_MAX: Final = 500
# Some seconds of reading; more would only answer callers who have given up.
WAITING_MAX: Final = 10_000

_Answer = asyncio.Future[Tenant | None]


class TenantReads:
    """Reads tenants, one pipeline at a time, fed by what was asked for meanwhile."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: dict[TenantId, _Answer] = {}
        self._in_flight = 0
        self._closed = False
        self._reader: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many tenants wait to be read, or are being read."""
        return len(self._waiting) + self._in_flight

    async def read(self, tenant_id: TenantId) -> Tenant | None:
        """Return the tenant, None when it is not published.

        Raises `BackendUnavailable`, `Overloaded`, and `StorageFault` for one that is unreadable.
        """
        if self._closed:
            raise BackendUnavailable("tenants are no longer read")
        answer = self._waiting.get(tenant_id)
        if answer is None:
            if len(self._waiting) >= WAITING_MAX:
                raise Overloaded("too many tenants wait to be read")
            answer = self._waiting[tenant_id] = asyncio.get_running_loop().create_future()
            # Whoever asked may be gone by then; an error nobody looks at is no fault of ours.
            answer.add_done_callback(_look)
            if self._reader is None:
                self._reader = asyncio.create_task(self._run(), name="tenant reads")
        # Others may wait for the same answer: who leaves must not take it along.
        return await asyncio.shield(answer)

    async def close(self) -> None:
        """End with the read that is under way; whoever waits beyond gets `BackendUnavailable`."""
        self._closed = True
        if self._reader is not None:
            await self._reader

    async def _run(self) -> None:
        try:
            while self._waiting and not self._closed:
                # Taken out before it is read: a later question wants a later answer.
                batch = dict(islice(self._waiting.items(), READ_TOGETHER_MAX))
                for tenant_id in batch:
                    del self._waiting[tenant_id]
                self._in_flight = len(batch)
                try:
                    await self._answer(batch)
                finally:
                    self._in_flight = 0
                    _give_up(batch)
        finally:
            _give_up(self._waiting)
            self._waiting.clear()
            self._reader = None

    async def _answer(self, batch: dict[TenantId, _Answer]) -> None:
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for tenant_id in batch:
                    pipeline.hget(keys.tenant(bucket_of(tenant_id)), tenant_id)
                # Asked last: what was read before is then of a Redis that has a catalog.
                pipeline.exists(keys.catalog_snapshot())
                *found, filled = await pipeline.execute()
        except (RedisError, OSError) as error:
            for answer in batch.values():
                answer.set_exception(translate(error))
            return
        for answer, content in zip(batch.values(), found, strict=True):
            if content is None and not filled:
                answer.set_exception(BackendUnavailable("Redis has lost the published catalog"))
            else:
                _settle(answer, content)


def _settle(answer: _Answer, content: bytes | None) -> None:
    try:
        answer.set_result(tenant_from_json(content) if content is not None else None)
    except (ValueError, KeyError, TypeError) as error:
        fault = StorageFault("a published tenant cannot be read")
        fault.__cause__ = error
        answer.set_exception(fault)


def _give_up(batch: Mapping[TenantId, _Answer]) -> None:
    for answer in batch.values():
        if not answer.done():
            answer.set_exception(BackendUnavailable("tenants are no longer read"))


def _look(answer: _Answer) -> None:
    if not answer.cancelled():
        answer.exception()
