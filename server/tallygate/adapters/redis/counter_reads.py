"""Counters as they stand, with what reservations hold of them, many of a shard in one moment.

Guarantees: a page is of one instant of Redis' own time, between two calls of the script; reading
changes nothing. A page of some hundred accounts keeps others waiting for a few milliseconds.
Refuses to know: what counters should hold.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import translate
from tallygate.adapters.redis.states import state_from_text
from tallygate.adapters.redis.stream_search import RedisStreamSearch
from tallygate.domain.detail import Share
from tallygate.domain.event import StreamEntry
from tallygate.domain.hold import Account, pieces_from_text
from tallygate.domain.ids import AccountId, TenantId, tenant_of
from tallygate.ports.audit import CounterPage
from tallygate.ports.epochs import ShardState, Stage

SCAN_COUNT: Final = 1_000
# An account's own fields, beside its counters: when it ends, when a hold does, that it is rebuilt.
_OWN: Final = frozenset({b"x", b"h", b"b"})


class RedisCounterReads:
    """The `CounterReads` port, over a Redis whose epochs `states` tells."""

    def __init__(self, client: Redis, shards: int) -> None:
        self._client = client
        self._shards = shards
        self._streams = RedisStreamSearch(client, shards)

    async def accounts(
        self, states: Sequence[ShardState]
    ) -> Mapping[int, Mapping[TenantId, set[AccountId]]]:
        """Return the accounts there are in these epochs, by shard and tenant: names alone."""
        found: dict[int, dict[TenantId, set[AccountId]]] = {each.shard: {} for each in states}
        try:
            for state in states:
                prefix = keys.account_prefix(state.shard, state.epoch)
                pattern = f"{_literal(prefix)}*"
                async for name in self._client.scan_iter(match=pattern, count=SCAN_COUNT):
                    account = AccountId(cast(bytes, name).decode().removeprefix(prefix))
                    found[state.shard].setdefault(tenant_of(account), set()).add(account)
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return found

    async def page(self, state: ShardState, accounts: Sequence[AccountId]) -> CounterPage:
        """Return these accounts of a shard as they stand at one instant."""
        shard, epoch = state.shard, state.epoch
        try:
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.time()
                pipeline.hmget(keys.meta(shard), [keys.EPOCH_FIELD, keys.OPEN_FIELD])
                for account in accounts:
                    pipeline.hgetall(keys.account(shard, epoch, account))
                    pipeline.zrange(keys.holds(shard, epoch, account), 0, -1, withscores=True)
                (seconds, microseconds), meta, *found = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise translate(error) from error
        opened = meta == [epoch.encode(), Stage.OPEN.value.encode()]
        return CounterPage(
            at_us=int(seconds) * 1_000_000 + int(microseconds),
            open=opened,
            accounts={
                account: _account(fields, holds)
                for account, fields, holds in zip(accounts, found[::2], found[1::2], strict=True)
            },
        )

    def entries(self, shard: int, until_us: int) -> AsyncIterator[StreamEntry]:
        """Iterate over what a shard's stream holds up to a time, oldest first."""
        return self._streams.entries(shard, until_us)


def _account(fields: Mapping[bytes, bytes], holds: Sequence[tuple[bytes, float]]) -> Account:
    account = Account()
    for name, value in fields.items():
        state = None if name in _OWN else state_from_text(value.decode())
        if state is not None:
            account.counters[name.decode()] = state
    for text, ends in cast(Any, holds):
        pieces, _, _ = text.decode().partition("|")
        account.holds[text.decode()] = (int(ends), Share(AccountId(""), pieces_from_text(pieces)))
    return account


def _literal(text: str) -> str:
    return "".join(f"\\{each}" if each in "*?[]\\^-" else each for each in text)
