"""The usage streams, read by somebody who is no consumer: nothing is given out or acknowledged.

Guarantees: reading changes nothing; one page of entries in memory.
Refuses to know: groups.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import translate
from tallygate.adapters.redis.codec import decode_entry
from tallygate.domain.event import StreamEntry, UsageEvent
from tallygate.domain.ids import EventId, MeterName, OperationId, TenantId
from tallygate.ports.story import Waiting

# An entry holds up to some hundred events: a page is a few megabytes.
PAGE: Final = 200


class RedisStreamSearch:
    """The `EventStreams` port."""

    def __init__(self, client: Redis, shards: int) -> None:
        self._client = client
        self._shards = shards

    async def waiting(self, tenant_id: TenantId | None, event_id: EventId) -> Sequence[Waiting]:
        """Return where an event lies in the streams, all entries of all shards searched."""
        found: list[Waiting] = []
        for shard in range(self._shards):
            async for entry in self.entries(shard):
                found += _of(entry, tenant_id, event_id)
        return found

    async def entries(self, shard: int, until_us: int | None = None) -> AsyncIterator[StreamEntry]:
        """Iterate over a shard's entries, oldest first, up to those of a time."""
        start, end = "-", "+" if until_us is None else str(until_us // 1000)
        while True:
            try:
                page = await self._client.xrange(keys.stream(shard), start, end, count=PAGE)
            except (RedisError, OSError) as error:
                raise translate(error) from error
            rows = cast(list[tuple[bytes, dict[bytes, bytes]]], cast(Any, page))
            for entry_id, fields in rows:
                yield decode_entry(shard, entry_id.decode(), fields)
            if len(rows) < PAGE:
                return
            start = f"({rows[-1][0].decode()}"


def _of(entry: StreamEntry, tenant_id: TenantId | None, event_id: EventId) -> list[Waiting]:
    """Return what an entry holds of an event, accepted or refused."""
    found = [
        Waiting(event, entry.entry_id)
        for event in entry.events
        if event.event_id == event_id and tenant_id in (None, event.tenant_id)
    ]
    for rejected in entry.rejected:
        if rejected.event_id == event_id and tenant_id in (None, rejected.tenant_id):
            refused = UsageEvent(
                event_id=event_id,
                tenant_id=TenantId(rejected.tenant_id),
                meter=MeterName(""),
                amount=0,
                event_time_us=0,
                operation_id=OperationId(""),
            )
            numbered = replace(
                refused,
                received_at_us=rejected.received_at_us,
                source_id=rejected.source_id,
                source_lane=rejected.source_lane,
                source_seq=rejected.source_seq,
            )
            found.append(Waiting(numbered, entry.entry_id, rejected.reason))
    return found
