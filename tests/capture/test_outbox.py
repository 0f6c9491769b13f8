"""The contract of the `CaptureOutbox` port, on the fake and on Postgres."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from tallygate.adapters.capture.outbox import PostgresCapture, query
from tallygate.adapters.prometheus.capture import CaptureMetrics
from tallygate.domain.captured import Settled
from tallygate.domain.errors import BackendUnavailable, StorageFault
from tallygate.domain.recording import Refused
from tallygate.flow.capture import DrainCapture
from tallygate.ports.capture import CaptureOutbox
from tallygate.settings_sources import load_settings
from tallygate.testing.capture import FakeCaptureOutbox, FakeRecorder
from tallygate.wiring.capturing import capture_outbox
from tests.capture.world import TABLE, App, app

NOBODY = "postgresql://127.0.0.1:1/nobody"
LEASE_MS = 60_000
START_US = 1_700_000_000_000_000


class Bench(Protocol):
    """An outbox under test, and what its contract needs beside it."""

    outbox: CaptureOutbox

    async def put(self, tenant: str, amount: int) -> None:
        """Capture a use."""
        ...

    async def change(self, tenant: str, units: int) -> None:
        """Change a level."""
        ...

    async def pass_time(self, passed_ms: int) -> None:
        """Let time pass."""
        ...


class FakeBench:
    """The fake."""

    def __init__(self) -> None:
        self.now_us = START_US
        self.fake = FakeCaptureOutbox(lambda: self.now_us)
        self.outbox: CaptureOutbox = self.fake

    async def put(self, tenant: str, amount: int) -> None:
        """Capture a use."""
        self.fake.put(tenant, "rows", amount)

    async def change(self, tenant: str, units: int) -> None:
        """Change a level."""
        self.fake.change(tenant, "storage", units)

    async def pass_time(self, passed_ms: int) -> None:
        """Let time pass."""
        self.now_us += passed_ms * 1_000


class PostgresBench:
    """Postgres, with triggers on a table."""

    def __init__(self, world: App, outbox: PostgresCapture) -> None:
        self.world = world
        self.outbox: CaptureOutbox = outbox

    async def put(self, tenant: str, amount: int) -> None:
        """Write a document of so many bytes' size, and no body."""
        await self.world.sql.execute(
            f"insert into {TABLE} (org_id, size) values ($1, $2)", tenant, amount
        )

    async def change(self, tenant: str, units: int) -> None:
        """Write or delete that much of a body."""
        if units > 0:
            await self.world.insert(tenant, "x" * units)
        else:
            await self.world.sql.execute(f"delete from {TABLE} where org_id = $1", tenant)

    async def pass_time(self, passed_ms: int) -> None:
        """Have every row be due so much earlier."""
        await self.world.sql.execute(
            "update tallygate.captured set due_at = due_at - $1 * interval '1 millisecond',"
            " captured_at = captured_at - $1 * interval '1 millisecond'",
            passed_ms,
        )


@pytest.fixture(params=["fake", "postgres"])
async def bench(request: pytest.FixtureRequest, empty_postgres_dsn: str) -> AsyncIterator[Bench]:
    """Each implementation in turn."""
    if request.param == "fake":
        yield FakeBench()
        return
    async with app(empty_postgres_dsn) as world:
        await world.capture("rows", "size")
        await world.level("storage")
        outbox = PostgresCapture(empty_postgres_dsn)
        yield PostgresBench(world, outbox)
        await outbox.close()


async def test_rows_are_claimed_once(bench: Bench) -> None:
    """What is claimed is nobody else's until its lease ends, and then counts another attempt."""
    await bench.put("acme", 3)
    await bench.put("beta", 4)
    first = await bench.outbox.claim(1, LEASE_MS)
    second = await bench.outbox.claim(10, LEASE_MS)
    assert [(each.tenant_id, each.amount) for each in first.uses] == [("acme", 3)]
    assert [(each.tenant_id, each.amount) for each in second.uses] == [("beta", 4)]
    assert (await bench.outbox.claim(10, LEASE_MS)).uses == []
    await bench.pass_time(LEASE_MS + 1)
    again = await bench.outbox.claim(10, LEASE_MS)
    assert [each.event_id for each in again.uses] == [
        each.event_id for each in (*first.uses, *second.uses)
    ]
    assert {each.attempts for each in again.uses} == {2}


async def test_what_is_settled_is_gone(bench: Bench) -> None:
    """Accepted rows go, refused ones are kept aside, others come due later."""
    for amount in (1, 2, 3):
        await bench.put("acme", amount)
    claimed = await bench.outbox.claim(10, LEASE_MS)
    one, two, three = (each.captured_id for each in claimed.uses)
    refused = Refused("UNKNOWN_METER", "the catalog has no such meter", "meter")
    settled = Settled([one], {two: refused}, {three: 1_000})
    assert await bench.outbox.settle(claimed.lease, settled) == 3
    backlog = await bench.outbox.backlog()
    assert (backlog.waiting, backlog.rejected) == (1, 1)
    assert (await bench.outbox.claim(10, LEASE_MS)).uses == []
    await bench.pass_time(1_001)
    assert [each.amount for each in (await bench.outbox.claim(10, LEASE_MS)).uses] == [3]


async def test_a_late_word_changes_nothing(bench: Bench) -> None:
    """Whoever comes back after its lease was taken over settles no row."""
    await bench.put("acme", 1)
    early = await bench.outbox.claim(10, LEASE_MS)
    await bench.pass_time(LEASE_MS + 1)
    late = await bench.outbox.claim(10, LEASE_MS)
    number = early.uses[0].captured_id
    assert await bench.outbox.settle(early.lease, Settled([number])) == 0
    assert await bench.outbox.settle(late.lease, Settled([number])) == 1


async def test_levels_are_folded_into_rows(bench: Bench) -> None:
    """Changes are added up, and each level that differs is a row of its own."""
    await bench.change("acme", 3)
    await bench.change("acme", 4)
    await bench.change("beta", 5)
    assert (await bench.outbox.backlog()).unfolded == 3
    assert await bench.outbox.fold(100) == 3
    claimed = await bench.outbox.claim(10, LEASE_MS)
    assert sorted((each.tenant_id, each.amount) for each in claimed.uses) == [
        ("acme", 7), ("beta", 5),
    ]  # fmt: skip
    assert {each.meter for each in claimed.uses} == {"storage"}
    await bench.change("beta", -5)
    await bench.outbox.fold(100)
    assert [each.amount for each in (await bench.outbox.claim(10, LEASE_MS)).uses] == [0]


async def test_the_backlog_has_an_age(bench: Bench) -> None:
    """The age is that of the oldest row; of none it is 0."""
    assert (await bench.outbox.backlog()).oldest_s == 0
    await bench.put("acme", 1)
    await bench.pass_time(90_000)
    assert 90 <= (await bench.outbox.backlog()).oldest_s < 150


async def test_what_was_refused_can_be_sent_again(empty_postgres_dsn: str) -> None:
    """Under its own id, for one reason or for all."""
    async with app(empty_postgres_dsn) as world:
        await world.capture("rows", dimensions=json.dumps({"kind": "kind"}))
        await world.insert("acme", "a")
        outbox = PostgresCapture(empty_postgres_dsn)
        claimed = await outbox.claim(10, LEASE_MS)
        (use,) = claimed.uses
        assert use.dimensions == {"kind": "note"}
        refused = {use.captured_id: Refused("UNKNOWN_METER", "no such meter")}
        await outbox.settle(claimed.lease, Settled(refused=refused))
        shown = await outbox.rejected(10)
        assert [(each["reason"], each["events"]) for each in shown] == [("UNKNOWN_METER", 1)]
        assert await outbox.retry("OTHER") == 0
        assert await outbox.retry("UNKNOWN_METER") == 1
        (again,) = (await outbox.claim(10, LEASE_MS)).uses
        assert again.event_id == use.event_id
        await outbox.close()


async def test_a_database_without_the_package_says_so(empty_postgres_dsn: str) -> None:
    """The command that makes it is named; an address where nobody answers is said to be one."""
    outbox = PostgresCapture(empty_postgres_dsn)
    with pytest.raises(StorageFault, match="tallygate capture install"):
        await outbox.check()
    await outbox.install(roles=True)
    await outbox.check()
    await outbox.close()
    with pytest.raises(BackendUnavailable):
        await PostgresCapture(NOBODY).check()


async def test_the_role_has_what_draining_needs(empty_postgres_dsn: str) -> None:
    """As the group role every query of the drainer runs, and no row of the app can be read."""
    async with app(empty_postgres_dsn, roles=True) as world:
        await world.capture("rows")
        await world.level()
        await world.insert("acme", "abc")
        await world.insert("acme", "d", "e")
        await world.sql.execute("set role tallygate_capture")
        assert await world.fold() == 2
        lease = uuid.uuid4()
        rows = await world.sql.fetch(query("claim"), 10, lease, LEASE_MS)
        one, two, three, *_ = (row["captured_id"] for row in rows)
        assert await world.sql.fetchval(query("accepted"), [one], lease) == 1
        refused = ([two], ["UNKNOWN_METER"], ["none"])
        assert await world.sql.fetchval(query("refused"), *refused, lease) == 1
        assert await world.sql.fetchval(query("later"), [three], [1], lease) == 1
        assert await world.sql.fetchval(query("retry"), "") == 1
        for name in ("backlog", "captures"):
            await world.sql.fetch(query(name))
        await world.sql.fetch(query("rejected"), 10)
        assert await world.sql.fetchval("select max(version) from tallygate.capture_version") == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await world.sql.fetch(f"select * from {TABLE}")
        await world.sql.execute("reset role")


async def test_a_new_password_is_taken_from_its_file(
    empty_postgres_dsn: str, tmp_path: Path
) -> None:
    """What the address's file has is read for each connection."""
    path = tmp_path / "dsn"
    path.write_text(empty_postgres_dsn)
    settings = load_settings({}, environ={"TALLYGATE_CAPTURE_DSN_FILE": str(path)})
    async with capture_outbox(settings) as outbox:
        assert await outbox.version() == 0
        path.write_text(NOBODY)
        await outbox.close()
        with pytest.raises(BackendUnavailable):
            await outbox.version()
        path.write_text(empty_postgres_dsn)
        assert await outbox.version() == 0


async def test_many_drainers_share_an_outbox(empty_postgres_dsn: str) -> None:
    """While rows are written and levels change, each row is handed on by one of them, once."""
    async with app(empty_postgres_dsn) as world:
        await world.capture("rows", "size")
        await world.level()
        recorder = FakeRecorder()
        outboxes = [PostgresCapture(empty_postgres_dsn) for _ in range(4)]
        silent = CaptureMetrics(CollectorRegistry())
        drains = [DrainCapture(each, recorder, silent) for each in outboxes]
        for _ in range(5):
            await world.sql.execute(
                f"insert into {TABLE} (org_id, body, size)"
                " select 'org-' || g % 3, 'x', 1 from generate_series(1, 900) as g"
            )
            await asyncio.gather(*(each.run_once() for each in drains))
        while (await world.sql.fetchval("select count(*) from tallygate.captured")) > 0:
            await asyncio.gather(*(each.run_once() for each in drains))
        told = [use.event_id for call in recorder.calls for use in call]
        assert len(told) == len(set(told)) == len(recorder.known)
        rows = [use for use in recorder.known.values() if use.meter == "rows"]
        assert len(rows) == 4_500
        last = {use.tenant_id: use.amount for call in recorder.calls for use in call
                if use.meter == "storage" and use.amount > 1_400}  # fmt: skip
        await world.fold()
        assert last == await world.levels() == await world.lying()
        for each in outboxes:
            await each.close()
