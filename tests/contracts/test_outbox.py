"""The contract of the `Outbox` port, on the fake and on Postgres."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

import asyncpg
import pytest

from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.trace import packed, place
from tallygate.ports import Outbox, OutboxDepth
from tallygate.testing.outbox import FakeOutbox
from tests.servers import connection

HOOK = "hook"
OTHER = "other"
KIND = "usage.batch"
LEASE_MS = 60_000
START_US = 1_700_000_000_000_000
NOBODY = "postgresql://127.0.0.1:1/nobody"


class Bench(Protocol):
    """An outbox under test, and what its contract needs beside it."""

    outbox: Outbox

    async def put(self, destination: str, payload: bytes, trace: bytes = b"") -> str:
        """Write a message for a destination; return its id."""
        ...

    async def reason(self, message_id: str) -> tuple[str, str]:
        """Return the state and the reason of a message's only delivery."""
        ...

    async def pass_time(self, passed_ms: int) -> None:
        """Let time pass for every delivery."""
        ...


class FakeBench:
    """The fake, with a clock of its own."""

    def __init__(self) -> None:
        self.now_us = START_US
        self.fake = FakeOutbox(lambda: self.now_us)
        self.outbox: Outbox = self.fake

    async def put(self, destination: str, payload: bytes, trace: bytes = b"") -> str:
        """Write a message for a destination; return its id."""
        self.now_us += 1
        return self.fake.put(destination, KIND, payload, trace=trace)

    async def reason(self, message_id: str) -> tuple[str, str]:
        """Return the state and the reason of a message's only delivery."""
        row = next(row for row in self.fake.rows if row.message_id == message_id)
        return row.state, row.reason

    async def pass_time(self, passed_ms: int) -> None:
        """Let time pass for every delivery."""
        self.now_us += passed_ms * 1000


class PostgresBench:
    """Postgres; time passes by moving what is due into the past."""

    def __init__(self, postgres: Postgres, admin: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.outbox: Outbox = PostgresOutbox(postgres)
        self.admin = admin

    async def put(self, destination: str, payload: bytes, trace: bytes = b"") -> str:
        """Write a message as a ledger transaction does; return its id."""
        await self.admin.execute(
            "insert into tallygate.destination (name, kind, url, types) "
            "values ($1, 'webhook', 'http://localhost', array[$1]) on conflict do nothing",
            destination,
        )
        message_id = uuid.uuid4()
        columns = ([message_id], ["usage"], ["batch"], [destination], [payload], [trace or None])
        await self.admin.execute(query("outbox_insert"), *columns)
        return str(message_id)

    async def reason(self, message_id: str) -> tuple[str, str]:
        """Return the state and the reason of a message's only delivery."""
        row = await self.admin.fetchrow(
            "select state, reason from tallygate.delivery where message_id = $1",
            uuid.UUID(message_id),
        )
        assert row is not None
        return row["state"], row["reason"]

    async def pass_time(self, passed_ms: int) -> None:
        """Let time pass for every delivery."""
        await self.admin.execute(
            "update tallygate.delivery set due_at = due_at - $1::bigint * interval '1 ms', "
            "leased_until = leased_until - $1::bigint * interval '1 ms'",
            passed_ms,
        )


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of a database, None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def bench(dsn: str | None) -> AsyncIterator[Bench]:
    """Each outbox in turn, empty."""
    if dsn is None:
        yield FakeBench()
        return
    postgres = Postgres(dsn)
    async with connection(dsn) as admin:
        yield PostgresBench(postgres, admin)
    await postgres.close()


async def test_claim_returns_what_was_written(bench: Bench) -> None:
    """A claimed delivery has the message's id and bytes unchanged, its first attempt counted."""
    payload = '{"type":"usage.batch","data":"é"}\n'.encode()
    message_id = await bench.put(HOOK, payload)
    [delivery] = await bench.outbox.claim(HOOK, 10, LEASE_MS)
    assert (delivery.message_id, delivery.payload) == (message_id, payload)
    assert (delivery.destination, delivery.attempt) == (HOOK, 1)
    assert delivery.created_at_us >= START_US


async def test_a_delivery_says_where_its_calls_were(bench: Bench) -> None:
    """What was written of traces comes along unchanged, at each attempt; else there is nothing."""
    trace = packed([place(1, 2), place(3, 4)])
    traced = await bench.put(HOOK, b"{}", trace)
    plain = await bench.put(HOOK, b"{}")
    for _ in range(2):
        found = await bench.outbox.claim(HOOK, 10, LEASE_MS)
        assert {each.message_id: each.trace for each in found} == {traced: trace, plain: b""}
        await bench.pass_time(LEASE_MS + 1)


async def test_claim_takes_one_destination_in_order(bench: Bench) -> None:
    """A claim takes at most its count, oldest first, and nothing of another destination."""
    ids = [await bench.put(HOOK, b"{}") for _ in range(3)]
    await bench.put(OTHER, b"{}")
    first = await bench.outbox.claim(HOOK, 2, LEASE_MS)
    rest = await bench.outbox.claim(HOOK, 2, LEASE_MS)
    assert [delivery.message_id for delivery in first] == ids[:2]
    assert [delivery.message_id for delivery in rest] == ids[2:]


async def test_claims_at_once_share_nothing(bench: Bench) -> None:
    """Relays that claim at the same time never hold the same delivery."""
    ids = {await bench.put(HOOK, b"{}") for _ in range(20)}
    claims = await asyncio.gather(*(bench.outbox.claim(HOOK, 5, LEASE_MS) for _ in range(4)))
    taken = [delivery.message_id for claim in claims for delivery in claim]
    assert len(taken) == len(set(taken))
    assert set(taken) <= ids


async def test_delivered_is_final(bench: Bench) -> None:
    """A delivered message is counted once and never claimed again."""
    message_id = await bench.put(HOOK, b"{}")
    claimed = await bench.outbox.claim(HOOK, 10, LEASE_MS)
    assert await bench.outbox.delivered(claimed) == 1
    assert await bench.outbox.delivered(claimed) == 0
    await bench.pass_time(2 * LEASE_MS)
    assert await bench.outbox.claim(HOOK, 10, LEASE_MS) == []
    assert await bench.reason(message_id) == ("delivered", "")


async def test_retry_waits_its_delay(bench: Bench) -> None:
    """A delivery given back is due after its delay, not before, with its attempts counted on."""
    message_id = await bench.put(HOOK, b"{}")
    [first] = await bench.outbox.claim(HOOK, 1, LEASE_MS)
    assert await bench.outbox.retry(first, 30_000, "HTTP 503")
    assert await bench.reason(message_id) == ("pending", "HTTP 503")
    assert await bench.outbox.claim(HOOK, 1, LEASE_MS) == []
    await bench.pass_time(31_000)
    [second] = await bench.outbox.claim(HOOK, 1, LEASE_MS)
    assert second.attempt == 2
    assert second.lease_token != first.lease_token


async def test_park_keeps_the_reason(bench: Bench) -> None:
    """A parked delivery is not claimed again and keeps why."""
    message_id = await bench.put(HOOK, b"{}")
    [delivery] = await bench.outbox.claim(HOOK, 1, LEASE_MS)
    assert await bench.outbox.park(delivery, "HTTP 410: gone")
    await bench.pass_time(2 * LEASE_MS)
    assert await bench.outbox.claim(HOOK, 1, LEASE_MS) == []
    assert await bench.reason(message_id) == ("parked", "HTTP 410: gone")


async def test_lease_that_ran_out_is_taken_over(bench: Bench) -> None:
    """When a lease runs out, another relay gets the delivery under the same message id."""
    message_id = await bench.put(HOOK, b"{}")
    await bench.outbox.claim(HOOK, 1, LEASE_MS)
    assert await bench.outbox.claim(HOOK, 1, LEASE_MS) == []
    await bench.pass_time(LEASE_MS + 1_000)
    [taken] = await bench.outbox.claim(HOOK, 1, LEASE_MS)
    assert (taken.message_id, taken.attempt) == (message_id, 2)


async def test_late_finish_is_refused_by_its_token(bench: Bench) -> None:
    """After a take-over, whatever the first relay reports changes nothing."""
    message_id = await bench.put(HOOK, b"{}")
    [late] = await bench.outbox.claim(HOOK, 1, LEASE_MS)
    await bench.pass_time(LEASE_MS + 1_000)
    [taken] = await bench.outbox.claim(HOOK, 1, LEASE_MS)
    assert await bench.outbox.delivered([late]) == 0
    assert not await bench.outbox.retry(late, 0, "late")
    assert not await bench.outbox.park(late, "late")
    assert await bench.reason(message_id) == ("pending", "")
    assert await bench.outbox.delivered([taken]) == 1


async def test_late_finish_counts_while_nobody_took_over(bench: Bench) -> None:
    """A delivery that ended after its lease, but before any take-over, is delivered."""
    await bench.put(HOOK, b"{}")
    claimed = await bench.outbox.claim(HOOK, 1, LEASE_MS)
    await bench.pass_time(LEASE_MS + 1_000)
    assert await bench.outbox.delivered(claimed) == 1


async def test_finish_takes_exactly_those_claimed(bench: Bench) -> None:
    """Of several deliveries, those whose token is not ours are left alone."""
    await bench.put(HOOK, b"{}")
    await bench.put(HOOK, b"{}")
    first, second = await bench.outbox.claim(HOOK, 2, LEASE_MS)
    stranger = replace(second, lease_token=str(uuid.uuid4()))
    assert await bench.outbox.delivered([first, stranger]) == 1
    assert await bench.outbox.delivered([second]) == 1


async def test_depths_count_what_is_left(bench: Bench) -> None:
    """The depth counts pending and parked messages, and dates the oldest pending one."""
    for _ in range(3):
        await bench.put(HOOK, b"{}")
    delivered, parked, leased = await bench.outbox.claim(HOOK, 3, LEASE_MS)
    await bench.outbox.delivered([delivered])
    await bench.outbox.park(parked, "no")
    assert await bench.outbox.depths() == [OutboxDepth(HOOK, 1, 1, leased.created_at_us)]


async def test_unreachable_fake_raises_what_unreachable_postgres_raises() -> None:
    """An outbox that does not answer raises `BackendUnavailable`, real or not."""
    fake = FakeOutbox(lambda: START_US)
    fake.down = True
    postgres = Postgres(NOBODY, PoolOptions(connect_timeout_ms=1_000))
    for outbox in (fake, PostgresOutbox(postgres)):
        with pytest.raises(BackendUnavailable):
            await outbox.claim(HOOK, 1, LEASE_MS)
    await postgres.close()
