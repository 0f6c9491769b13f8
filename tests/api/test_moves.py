"""A tenant under another parent: what it used and holds goes along, whatever dies meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.carrier import RedisCounterCarrier
from tallygate.domain.ids import TenantId, shard_of
from tallygate.flow.carry import Carry
from tallygate.flow.publish import Publish
from tallygate.gen.v1 import quota_pb2
from tallygate.ports.carry import Move
from tests.builders import SHARDS
from tests.live import Live, document, live, monthly
from tests.sidecar import failure

COMMITTED = quota_pb2.RESERVATION_OUTCOME_COMMITTED
RELEASED = quota_pb2.RESERVATION_OUTCOME_RELEASED
HERE = shard_of(TenantId("old"), SHARDS)
THERE = shard_of(TenantId("next"), SHARDS)
LIMIT = 100
SCOPED = {**monthly(50), "id": "user", "per": "user_id"}
AT_ONCE = {"id": "at-once", "meter": "requests", "kind": "concurrency", "limit": 20}


def family(parent: str | None, limit: int = LIMIT) -> str:
    """Return a catalog in which acme has a project, and perhaps a parent, old or new."""
    acme: dict[str, Any] = {"plan": "free"}
    if parent is not None:
        acme["parent"] = parent
    tenants: Mapping[str, Any] = {
        "old": {"plan": "org"},
        "next": {"plan": "org"},
        "acme": acme,
        "project": {"plan": "free", "parent": "acme"},
    }
    plans = {"org": {"limits": [monthly(1_000)]}}
    return document(monthly(limit), AT_ONCE, tenants=tenants, plans=plans)


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Live]:
    """Two families in different shards, and acme with its project in the old one."""
    assert HERE != THERE
    async with live(redis_url, family("old")) as found:
        yield found


async def test_counters_go_along_and_parents_keep_theirs(site: Live) -> None:
    """What acme and its project used is theirs; the old parent's stays, the new one's begins."""
    (caller,) = site.sidecars
    await caller.consume(7)
    await caller.consume(5, "project")
    await site.apply(family("next"))
    assert (await caller.consume(1, "project")).allowed
    assert await caller.limits("project") == {
        "project/monthly": (6, 100),
        "project/at-once": (0, 20),
        "acme/monthly": (13, 100),
        "acme/at-once": (0, 20),
        "next/monthly": (1, 1_000),
    }
    assert await caller.limits("old") == {"old/monthly": (12, 1_000)}


async def test_a_retry_after_the_move_is_a_repeat(site: Live) -> None:
    """An operation that was granted in the old family is not charged in the new one."""
    (caller,) = site.sidecars
    first = await caller.consume(7, name="once")
    await caller.record(2, name="event")
    await site.apply(family("next"))
    again = await caller.consume(7, name="once")
    await caller.record(2, name="event")
    assert (first.replayed, again.replayed) == (False, True)
    assert (await caller.limits())["acme/monthly"] == (9, 100)
    refund = quota_pb2.RefundRequest(tenant_id="acme", event_id="once:0", operation_id="back")
    assert (await caller.quota.Refund(refund)).amount == 7
    assert (await caller.limits())["acme/monthly"] == (2, 100)


async def test_reservations_resolve_after_the_move(site: Live) -> None:
    """Each by its old id, once; the parent at that time is charged, the old one gets units back."""
    (caller,) = site.sidecars
    held = [await caller.reserve(4, "project") for _ in range(3)]
    await site.apply(family("next"))
    assert (await caller.limits("project"))["acme/at-once"] == (12, 20)
    settled = await caller.commit(held[0].reservation_id, 3, tenant="project")
    assert (settled.outcome, len(settled.event_ids)) == (COMMITTED, 1)
    assert (await caller.release(held[1].reservation_id, "project")).outcome == RELEASED
    twice = await caller.commit(held[0].reservation_id, 3, tenant="project")
    assert twice.replayed or twice.outcome != COMMITTED
    assert await caller.limits("project") == {
        "project/monthly": (7, 100),
        "project/at-once": (4, 20),
        "acme/monthly": (7, 100),
        "acme/at-once": (4, 20),
        "next/monthly": (3, 1_000),
    }
    assert [(each.tenant_id, each.amount) for each in await site.events()] == [("project", 3)]


async def test_a_sidecar_that_has_not_heard_is_turned_away(site: Live) -> None:
    """It can neither grant nor settle by the old family; its callers retry, and pass."""
    (caller,) = site.sidecars
    held = await caller.reserve(4)
    await site.write(family("next"))
    await site.publish()
    for call in (
        caller.consume(1, name="again"),
        caller.reserve(1),
        caller.commit(held.reservation_id),
        caller.record(1),
    ):
        failed = await failure(call)
        assert (failed.code, failed.pushback_ms is not None) == (grpc.StatusCode.UNAVAILABLE, True)
    await site.take_over()
    assert (await caller.consume(1, name="again")).allowed
    assert (await caller.commit(held.reservation_id)).outcome == COMMITTED
    assert (await caller.limits())["acme/monthly"] == (5, 100)


async def test_there_and_back_again(site: Live) -> None:
    """A tenant that returns brings what it did meanwhile, and finds nothing of before."""
    (caller,) = site.sidecars
    held = [await caller.reserve(10) for _ in range(2)]
    await site.apply(family("next"))
    await caller.release(held[0].reservation_id)
    await caller.consume(5)
    await site.apply(family("old"))
    assert await caller.limits() == {
        "acme/monthly": (15, 100),
        "acme/at-once": (10, 20),
        "old/monthly": (20, 1_000),
    }
    await caller.release(held[1].reservation_id)
    assert (await caller.limits())["acme/monthly"] == (5, 100)
    assert (await caller.limits())["acme/at-once"] == (0, 20)


async def test_a_tenant_of_its_own_moves_too(site: Live) -> None:
    """Leaving all parents, and being declared below one for the first time, are moves."""
    (caller,) = site.sidecars
    await caller.consume(7)
    await site.apply(family(None))
    assert await caller.limits() == {"acme/monthly": (7, 100), "acme/at-once": (0, 20)}
    await caller.consume(3, "newcomer")
    declared = {"newcomer": {"plan": "free", "parent": "next"}, "next": {"plan": "org"}}
    plans = {"org": {"limits": [monthly(1_000)]}}
    await site.apply(document(monthly(LIMIT), tenants=declared, plans=plans))
    assert (await caller.limits("newcomer"))["newcomer/monthly"] == (3, 100)


async def test_counters_per_dimension_go_along(redis_url: str) -> None:
    """Accounts of a dimension's values are the tenant's as well, whatever signs they hold."""
    tenants: dict[str, Any] = {each: {"plan": "free"} for each in ("old", "next", "ac*[m]e")}
    texts = []
    for parent in ("old", "next"):
        tenants = {**tenants, "ac*[m]e": {"plan": "free", "parent": parent}}
        texts.append(document(SCOPED, tenants=tenants))
    async with live(redis_url, texts[0]) as site:
        (caller,) = site.sidecars

        async def consume(user: str) -> int:
            item = quota_pb2.Item(meter="requests", amount=3, dimensions={"user_id": user})
            request = quota_pb2.CheckAndConsumeRequest(tenant_id="ac*[m]e", items=[item])
            return int((await caller.quota.CheckAndConsume(request)).limits[0].used)

        users = ("ann", "b: c\n", "ümläut")
        assert [await consume(user) for user in users] == [3, 3, 3]
        await site.apply(texts[1])
        assert [await consume(user) for user in users] == [6, 6, 6]


async def test_others_are_served_throughout(site: Live) -> None:
    """Whoever does not move is never refused, in either shard."""
    (caller,) = site.sidecars
    granted: list[bool] = []
    over = asyncio.Event()

    async def serve(tenant: str) -> None:
        while not over.is_set():
            granted.append((await caller.consume(1, tenant)).allowed)

    async def move() -> None:
        for parent in ("next", "old", "next"):
            await site.apply(family(parent))
        over.set()

    await asyncio.gather(move(), serve("old"), serve("next"))
    assert all(granted)


class Crash(Exception):
    """The process dies here."""


class Dying(RedisCounterCarrier):
    """A carrier whose process dies after so many commands that write."""

    def __init__(self, client: Redis, after: int) -> None:
        super().__init__(client)
        self._left = after

    async def _mark(self, moves: Sequence[Move], version: int, step: str) -> None:
        self._spend()
        await super()._mark(moves, version, step)

    async def _eval(self, names: Sequence[bytes], arguments: Sequence[str | bytes | int]) -> int:
        self._spend()
        return await super()._eval(names, arguments)

    def _spend(self) -> None:
        if self._left == 0:
            raise Crash
        self._left -= 1


@pytest.mark.parametrize("after", range(7))
async def test_a_crash_on_the_way_is_gone_on_from(site: Live, after: int) -> None:
    """Wherever the process dies, nobody is granted anything until another has gone on, exactly."""
    (caller,) = site.sidecars
    await caller.consume(7)
    held = await caller.reserve(4, "project")
    await site.write(family("next"))
    dying = Carry(site.store, site.publisher, Dying(site.redis, after), SHARDS)
    clock = type("Now", (), {"now_us": lambda _: 2**52, "monotonic": lambda _: 0.0})()
    with pytest.raises(Crash):
        await Publish(site.store, site.publisher, clock, dying).run_once()
    if after > 1:
        assert (await failure(caller.consume(1))).code is grpc.StatusCode.UNAVAILABLE
    assert await site.publish() == 1
    await site.take_over()
    settled = await caller.commit(held.reservation_id, 4, tenant="project")
    assert settled.outcome == COMMITTED
    assert (await caller.limits())["acme/monthly"] == (11, 100)
    assert (await caller.limits("next"))["next/monthly"] == (4, 1_000)


async def test_a_slow_second_process_does_no_harm(site: Live) -> None:
    """Who comes to the same move after it was made, and used, changes nothing any more."""
    (caller,) = site.sidecars
    await caller.consume(7)
    await site.apply(family("next"))
    await caller.consume(5)
    carrier = RedisCounterCarrier(site.redis)
    move = Move(TenantId("acme"), HERE, THERE)
    version = (await site.store.newest()).version
    assert await carrier.carry([move], version) == 0
    assert (await caller.limits())["acme/monthly"] == (12, 100)
    await site.apply(family("old"))
    assert await carrier.carry([move], version) == 0
    assert (await caller.consume(1)).limits[0].used == 13


async def test_two_processes_may_carry_at_once(site: Live) -> None:
    """Their copies are the same, and the first to end ends it."""
    (caller,) = site.sidecars
    for number in range(150):
        await caller.consume(1, name=f"op-{number}")
    await site.write(family("next"))
    await asyncio.gather(*(site.publish() for _ in range(3)))
    await site.take_over()
    used = (await caller.limits())["acme/monthly"][0]
    assert used == LIMIT
    assert (await caller.consume(1, name="op-3")).replayed


async def test_nothing_is_granted_twice_under_load(site: Live) -> None:
    """Callers that retry get exactly the limit over several moves, by sidecars that lag."""
    second = await site.start()
    granted: list[str] = []
    codes: set[grpc.StatusCode] = set()

    async def call(number: int) -> None:
        caller = site.sidecars[number % 2]
        for turn in range(40):
            name = f"{number}-{turn}"
            for _ in range(500):
                try:
                    reply = await caller.consume(1, "project", name)
                except grpc.aio.AioRpcError as error:
                    codes.add(error.code())
                    await asyncio.sleep(0)
                else:
                    if reply.allowed:
                        granted.append(name)
                    break

    async def move() -> None:
        for parent in ("next", "old", "next"):
            await site.write(family(parent))
            await site.publish()
            await site.sidecars[0].view.refresh()
            await second.view.refresh()

    await asyncio.gather(move(), *(call(number) for number in range(6)))
    await site.take_over()
    assert codes <= {grpc.StatusCode.UNAVAILABLE}
    assert len(granted) == len(set(granted)) == LIMIT
    assert (await second.limits("project"))["project/monthly"] == (LIMIT, LIMIT)
    assert (await second.limits("acme"))["acme/monthly"] == (LIMIT, LIMIT)
    assert len(await site.events()) == LIMIT


async def test_within_a_shard_nothing_is_carried(site: Live) -> None:
    """A new parent whose family shares the shard finds the counters where they are."""
    other = next(
        name for name in map(str, range(1_000)) if shard_of(TenantId(name), SHARDS) == HERE
    )
    (caller,) = site.sidecars
    await caller.consume(7)
    text = family("old").replace("parent: old", f"parent: '{other}'")
    text = text.replace("tenants:\n", f"tenants:\n  '{other}': {{plan: org}}\n")
    await site.apply(text)
    assert await caller.limits() == {
        "acme/monthly": (7, 100),
        "acme/at-once": (0, 20),
        f"{other}/monthly": (0, 1_000),
    }
    assert not await site.redis.exists(keys.moves(HERE), keys.moves(THERE))
