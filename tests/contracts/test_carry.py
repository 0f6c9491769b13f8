"""The contracts of `CounterCarrier` and `PublishedCatalog`, on the fakes and on Redis."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tallygate.adapters.redis.carrier import RedisCounterCarrier
from tallygate.adapters.redis.catalog_publisher import RedisCatalogPublisher
from tallygate.adapters.redis.client import connect
from tallygate.domain.decision import (
    Decided,
    Mode,
    Moved,
    Operation,
)
from tallygate.domain.detail import (
    Hold,
    Portion,
    Refund,
    Settlement,
)
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import EventId, OperationId, ReservationId, TenantId, account_of
from tallygate.ports import CatalogPublisher, QuotaStore, ReservationKey
from tallygate.ports.carry import CounterCarrier, Move, PublishedCatalog
from tallygate.ports.epochs import Stage
from tallygate.testing.carry import FakeCounterCarrier
from tallygate.testing.catalog import FakeCatalogPublisher, Published
from tallygate.testing.quota import FakeQuotaStore
from tests.builders import ACME, charges, check, consume, decided, used, window
from tests.contracts.catalogs import ORG, catalog, tenant
from tests.quota_subjects import FakeSubject, RedisSubject, Subject

OLD, NEW = 3, 9
HELD = ReservationId("03-held")
MOVES = [Move(ACME, OLD, NEW)]
LIMITS = [window(limit=100)]


@dataclass
class Bench:
    """A carrier between the shards of a store."""

    subject: Subject
    carrier: CounterCarrier
    # One that leaves it to others to open what is new.
    shut: CounterCarrier

    @property
    def store(self) -> QuotaStore:
        """The store."""
        return self.subject.store()

    async def use(self, shard: int, amount: int = 7, name: str | None = None) -> object:
        """Charge acme in a shard; return the outcome."""
        (outcome,) = await self.store.decide([consume(LIMITS, amount, name, shard=shard)])
        return outcome


def reserve(amount: int, *accounts: TenantId) -> Operation:
    """Return what holds so much of accounts for acme."""
    bound = tuple(each for account in accounts for each in charges(LIMITS, amount, account))
    return Operation(
        Mode.RESERVE,
        ACME,
        OLD,
        OperationId("held"),
        charges=bound,
        detail=Hold(HELD, 60_000_000),
    )


class CarrierContract:
    """What a carrier does."""

    async def test_counters_go_along(self, bench: Bench) -> None:
        """The new shard counts on from where the old one was."""
        await bench.use(OLD)
        assert await bench.carrier.carry(MOVES, 2) > 0
        assert used(await bench.use(NEW)) == [14]

    async def test_the_old_shard_debits_nothing_more(self, bench: Bench) -> None:
        """Neither a charge, a reservation, a refund nor a reset; what is not remembered passes."""
        await bench.use(OLD, 7, "before")
        await bench.carrier.carry(MOVES, 2)
        taken = consume(
            LIMITS, 1, "back", mode=Mode.REFUND, detail=Refund(EventId("e"), 1, 7), shard=OLD
        )
        reset = consume(LIMITS, 0, "reset", mode=Mode.RESET, event_count=0, shard=OLD)
        asked = [
            consume(LIMITS, 1, "after", shard=OLD),
            consume(LIMITS, 7, "before", shard=OLD),
            reserve(1, ACME),
            taken,
            reset,
            consume([], 1, "without limits", shard=OLD),
        ]
        assert await bench.store.decide(asked) == [Moved()] * len(asked)
        free = [consume([], 1, shard=OLD), check(LIMITS, shard=OLD)]
        assert all(isinstance(each, Decided) for each in await bench.store.decide(free))

    async def test_operations_are_remembered(self, bench: Bench) -> None:
        """A repeat in the new shard is one."""
        await bench.use(OLD, 7, "once")
        await bench.carrier.carry(MOVES, 2)
        again = decided(await bench.use(NEW, 7, "once"))
        assert (again.replayed, used(again)) == (True, [7])

    async def test_others_stay(self, bench: Bench) -> None:
        """A tenant whose name begins alike counts on where it was."""
        other = TenantId("acme2")
        await bench.store.decide([consume(LIMITS, 5, tenant_id=other, shard=OLD)])
        await bench.use(OLD)
        await bench.carrier.carry(MOVES, 2)
        (stays,) = await bench.store.decide([consume(LIMITS, 5, tenant_id=other, shard=OLD)])
        assert used(stays) == [10]

    async def test_holds_of_those_who_stay_are_left_to_them(self, bench: Bench) -> None:
        """The reservation settles in the new shard with the shares of those who came along."""
        await bench.store.decide([reserve(4, ACME, ORG)])
        await bench.carrier.carry(MOVES, 2)
        found = await bench.store.reservation(ReservationKey(NEW, ACME, HELD))
        assert found is not None
        assert [share.account for share in found.shares] == [account_of(ACME)]
        portions = tuple(Portion(share, (1,), (3,)) for share in found.shares)
        settle = Operation(Mode.COMMIT, ACME, NEW, detail=Settlement(HELD, portions))
        (settled,) = await bench.store.decide([settle])
        assert decided(settled).allowed
        assert used(await bench.use(NEW)) == [8]
        (stayed,) = await bench.store.decide([check(LIMITS, shard=OLD, tenant_id=ORG)])
        assert used(stayed) == [4]

    async def test_a_move_is_made_once(self, bench: Bench) -> None:
        """Asked for again, or after a later move, it changes nothing."""
        await bench.use(OLD)
        await bench.carrier.carry(MOVES, 2)
        await bench.use(NEW)
        assert await bench.carrier.carry(MOVES, 2) == 0
        assert used(await bench.use(NEW)) == [21]
        assert await bench.carrier.carry([Move(ACME, NEW, OLD)], 3) > 0
        assert await bench.carrier.carry(MOVES, 2) == 0
        assert used(await bench.use(OLD)) == [28]
        assert await bench.use(NEW, 7, "named") == Moved()

    async def test_holds_are_not_left_behind(self, bench: Bench) -> None:
        """What was resolved elsewhere does not come back a second time on return."""
        await bench.store.decide([reserve(4, ACME)])
        await bench.carrier.carry(MOVES, 2)
        found = await bench.store.reservation(ReservationKey(NEW, ACME, HELD))
        assert found is not None
        portions = tuple(Portion(share, (4,), (0,)) for share in found.shares)
        settle = Operation(Mode.COMMIT, ACME, NEW, detail=Settlement(HELD, portions))
        await bench.store.decide([settle])
        await bench.carrier.carry([Move(ACME, NEW, OLD)], 3)
        bench.subject.time.now_us += 61_000_000
        assert used(await bench.use(OLD, 1)) == [5]

    @pytest.mark.parametrize("lost", [OLD, NEW])
    async def test_nobody_moves_while_counters_are_rebuilt(self, bench: Bench, lost: int) -> None:
        """Neither out of a shard that is not whole nor into it; afterwards, as ever."""
        await bench.use(OLD)
        stages = bench.subject.stages()
        epoch = await stages.renew(lost, (await stages.epochs())[lost])
        with pytest.raises(BackendUnavailable):
            await bench.shut.carry(MOVES, 2)
        assert await stages.advance(lost, epoch, Stage.OPEN)
        await bench.shut.carry(MOVES, 3)
        moved = 0 if lost == OLD else 7
        assert used(await bench.use(NEW)) == [moved + 7]


class TestFakeCounterCarrier(CarrierContract):
    """The fake."""

    @pytest.fixture
    def bench(self) -> Bench:
        """A carrier over the fake store."""
        subject = FakeSubject()
        store = subject.store()
        assert isinstance(store, FakeQuotaStore)
        for shard in (OLD, NEW):
            subject.shared.state(shard)
        # What is lost from now on somebody else has to open.
        subject.shared.opens_new = False
        return Bench(subject, FakeCounterCarrier(store), FakeCounterCarrier(store))


class TestRedisCounterCarrier(CarrierContract):
    """Each Redis."""

    @pytest.fixture
    async def bench(self, redis_url: str) -> AsyncIterator[Bench]:
        """A carrier over Redis."""
        subject = RedisSubject(redis_url)
        client = connect(redis_url, 5_000)
        shut = RedisCounterCarrier(client, opens_new=False)
        yield Bench(subject, RedisCounterCarrier(client), shut)
        for each in (client, *subject.clients.values()):
            await each.aclose()


async def test_an_outage_of_redis_is_told() -> None:
    """What cannot be carried is no success."""
    client = connect("redis://127.0.0.1:1/0", 500)
    with pytest.raises(BackendUnavailable):
        await RedisCounterCarrier(client).carry(MOVES, 2)
    with pytest.raises(BackendUnavailable):
        await RedisCatalogPublisher(client).tenants_named([ACME])
    await client.aclose()


async def _published(publisher: CatalogPublisher, found: PublishedCatalog) -> None:
    assert await found.tenants_named([ACME]) == {}
    await publisher.publish_tenants([tenant("acme", parent="org"), tenant("org")])
    await publisher.publish(catalog(4), None)
    assert await found.published_version() == 4
    asked = [ACME, TenantId("nobody"), ORG]
    wanted = {ACME: tenant("acme", parent="org"), ORG: tenant("org")}
    assert await found.tenants_named(asked) == wanted


async def test_published_tenants_are_read_back(redis_url: str) -> None:
    """Those that are published, whole, and nobody else: by the fake and by Redis."""
    fake = FakeCatalogPublisher(Published())
    await _published(fake, fake)
    client = connect(redis_url, 5_000)
    publisher = RedisCatalogPublisher(client)
    await _published(publisher, publisher)
    await client.aclose()
