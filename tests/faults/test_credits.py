"""Prepaid credits over a real Redis and a real Postgres: used, lost, and rebuilt to the unit."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.epochs import RedisCounterEpochs
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.domain.catalog import Tenant
from tallygate.domain.decision import (
    Decided,
    LimitReading,
    Mode,
    Operation,
)
from tallygate.domain.ids import OperationId, SourceId, TenantId, account_of, shard_of
from tallygate.domain.limit import charge
from tallygate.domain.window import Calendar
from tallygate.flow.credit import CreditParts, PublishCredits
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.ports.credit import CreditLedger, CreditQuery
from tallygate.testing.catalog import FakeCatalogStore
from tests.credit_world import BALANCE, PLAN, catalog, grant
from tests.faults.world import SHARDS, SystemClock, World, world
from tests.servers import connection
from tests.usage_events import event

TENANTS: Final = [TenantId(f"tenant-{number}") for number in range(4)]
MEMORY_MS: Final = 60_000


@dataclass(slots=True)
class Place:
    """One Redis, one Postgres, two sidecars' stores and a control."""

    faults: World
    stores: list[RedisQuotaStore]
    credits: CreditLedger
    catalogs: FakeCatalogStore = field(default_factory=FakeCatalogStore)
    operations: int = 0
    ingesters: int = 0

    @property
    def redis(self) -> Redis:
        """The client of all."""
        return self.faults.client

    def publish(self) -> PublishCredits:
        """Return what hands grants over, as a control that has just started."""
        return PublishCredits(
            CreditParts(
                ledger=self.credits,
                store=self.stores[0],
                stream=self.faults.stream("credits"),
                epochs=RedisCounterEpochs(self.redis, SHARDS),
                catalogs=self.catalogs,
                clock=SystemClock(),
                shards=SHARDS,
            )
        )

    async def grant(self, tenant: TenantId, number: int, amount: int, **fields: Any) -> None:
        """Grant credits."""
        asked = grant(number, amount, tenant_id=tenant, **fields)
        await self.credits.grant(asked, BALANCE.overdraft, SystemClock().now_us())

    async def use(self, tenant: TenantId, amount: int, mode: Mode = Mode.CONSUME) -> Decided:
        """Use units of a balance, by one sidecar or the other."""
        self.operations += 1
        name = OperationId(f"use-{self.operations}")
        used = event(self.operations, tenant_id=tenant, amount=max(1, amount), operation_id=name)
        bound = charge(BALANCE, account_of(tenant), Calendar(), amount, 0)
        operation = Operation(
            mode=mode,
            tenant_id=tenant,
            shard=shard_of(tenant, SHARDS),
            operation_id=name,
            charges=(bound,),
            event_count=1,
            payload=ProtobufEventEncoder().encode([used]),
        )
        (outcome,) = await self.stores[self.operations % 2].decide([operation])
        assert isinstance(outcome, Decided), outcome
        return outcome

    async def readings(self) -> list[LimitReading]:
        """Return every tenant's balance as Redis has it."""
        return [(await self.use(each, 0, Mode.CHECK)).readings[0] for each in TENANTS]

    async def drain(self) -> None:
        """Ingest until nothing waits."""
        self.ingesters += 1
        ingest = self.faults.ingest(f"ingester-{self.ingesters}", claim_idle_ms=0)
        while not await self.faults.drained():
            await ingest.run_once()

    async def lose(self) -> None:
        """Have a Redis that lost everything."""
        await self.redis.flushall()


@pytest.fixture
async def place(redis_url: str, postgres_dsn: str) -> AsyncIterator[Place]:
    """The servers with tenants, each on a plan with a balance."""
    async with world(redis_url, postgres_dsn) as faults:
        stores = [
            RedisQuotaStore(faults.client, StoreOptions(SourceId(name), SHARDS, MEMORY_MS))
            for name in ("a", "b")
        ]
        found = Place(faults, stores, PostgresCreditLedger(faults.postgres))
        tenants = tuple(Tenant(each, PLAN.name) for each in TENANTS)
        await found.catalogs.write(CatalogChange(catalog(BALANCE), tenants), 0)
        yield found


async def sums(place: Place) -> dict[str, int]:
    """Return the sum of each account over all balances, from the postings and not the accounts."""
    async with connection(place.faults.dsn) as admin:
        rows = await admin.fetch(
            "select account, sum(units)::bigint as units from ("
            " select from_account as account, -amount as units from tallygate.credit_posting"
            " union all select to_account, amount from tallygate.credit_posting"
            ") as side group by account"
        )
        kept = await admin.fetch(
            "select account, sum(balance)::bigint as units from tallygate.credit_account"
            " group by account"
        )
    found = {row["account"]: row["units"] for row in rows}
    assert found == {row["account"]: row["units"] for row in kept}
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_lost_redis_is_rebuilt_to_the_unit(place: Place, seed: int) -> None:
    """Whatever was granted and used, counters rebuilt from the ledger read as those that were lost.

    Units are conserved: what was issued is left, used up or owed.
    """
    chance = random.Random(seed)
    publish = place.publish()
    granted = 0
    for step in range(120):
        tenant = chance.choice(TENANTS)
        match chance.randrange(10):
            case 0 | 1:
                granted += (amount := chance.randrange(1, 60))
                await place.grant(tenant, step, amount, priority=chance.randrange(-1, 2))
            case 2 | 3:
                await publish.run_once()
            case 4:
                await place.use(tenant, chance.randrange(1, 40), Mode.RECORD)
            case 5:
                await place.faults.ingest(f"step-{step}", claim_idle_ms=0).run_once()
            case _:
                await place.use(tenant, chance.randrange(1, 30))
    await publish.run_once()
    before = await place.readings()
    await place.drain()
    await place.lose()
    while (await publish.run_once()).waiting:
        await place.drain()
    after = await place.readings()
    assert [each.remaining for each in after] == [each.remaining for each in before]
    found = await sums(place)
    assert sum(found.values()) == 0
    assert found["issued"] == -granted
    for tenant, reading in zip(TENANTS, after, strict=True):
        grants = await place.credits.grants(CreditQuery(tenant))
        owed = await place.credits.owed(tenant, BALANCE.limit_id, "")
        assert reading.remaining == sum(each.remaining for each in grants) + 50 - owed


async def test_counters_lost_before_their_stream_wait_for_it(place: Place) -> None:
    """Burns of the older counters that are in the stream still are taken off before a rebuild."""
    tenant = TENANTS[0]
    publish = place.publish()
    await place.grant(tenant, 1, 100)
    await publish.run_once()
    assert (await place.use(tenant, 60)).allowed
    for shard in range(SHARDS):
        await place.redis.delete(keys.meta(shard))
    counts = await publish.run_once()
    assert (counts.given, counts.waiting) == (0, 1)
    # Only the overdraft passes meanwhile.
    assert not (await place.use(tenant, 51)).allowed
    await place.drain()
    assert (await publish.run_once()).given == 1
    assert (await place.use(tenant, 0, Mode.CHECK)).readings[0].remaining == 40 + 50


async def test_controls_that_race_give_each_grant_once(place: Place) -> None:
    """Several controls that publish at once, while others grant and use, add no unit twice."""
    tenant = TENANTS[0]

    async def control() -> None:
        publish = place.publish()
        for _ in range(10):
            await publish.run_once()

    async def operator(first: int) -> None:
        for number in range(first, first + 10):
            await place.grant(tenant, number, 10)
            await place.use(tenant, 3)

    await asyncio.gather(*(control() for _ in range(3)), operator(0), operator(100))
    await place.publish().run_once()
    await place.drain()
    grants = await place.credits.grants(CreditQuery(tenant))
    owed = await place.credits.owed(tenant, BALANCE.limit_id, "")
    (reading, *_) = await place.readings()
    assert reading.remaining == sum(each.remaining for each in grants) + 50 - owed
    assert sum((await sums(place)).values()) == 0


async def test_burns_given_out_again_are_posted_once(place: Place) -> None:
    """An ingester that died between its transaction and its acknowledgement posts nothing twice."""
    tenant = TENANTS[0]
    await place.grant(tenant, 1, 100)
    await place.publish().run_once()
    for _ in range(5):
        await place.use(tenant, 7)
    entries = await place.faults.stream("dies").read(100, 1)
    burns = tuple(burn for entry in entries for burn in entry.burns)
    stored = await PostgresLedger(place.faults.postgres).persist(LedgerBatch((), burns=burns))
    assert stored.burns == 5
    counts = await place.faults.ingest("lives", claim_idle_ms=0).run_once()
    assert (counts.claimed, counts.persisted.events, counts.persisted.burns) == (5, 5, 0)
    (left,) = await place.credits.grants(CreditQuery(tenant))
    assert left.remaining == 65


async def test_low_balances_are_told(place: Place) -> None:
    """A fall to a low mark is kept once, and again after credits have lifted the balance."""
    tenant = TENANTS[0]
    publish = place.publish()
    async with connection(place.faults.dsn) as admin:
        await admin.execute(
            "insert into tallygate.destination (name, kind, url, types)"
            " values ('hook', 'webhook', 'http://127.0.0.1', '{balance.low,credit.granted}')"
        )
        for number in (1, 2):
            await place.grant(tenant, number, 100)
            await publish.run_once()
            await place.use(tenant, 50)
            await place.use(tenant, 35 if number == 1 else 50)
            await place.use(tenant, 1)
            await place.drain()
        rows = await admin.fetch(
            "select threshold, remaining from tallygate.balance_low order by crossed_at"
        )
        assert [tuple(row) for row in rows] == [(20, 15), (20, 14)]
        types = await admin.fetch("select type from tallygate.outbox order by seq")
    assert [row["type"] for row in types] == ["credit.granted", "balance.low"] * 2
