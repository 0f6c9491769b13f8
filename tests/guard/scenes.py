"""The pieces of work whose cost is held, each done as in service.

Owns what is asked and of whom. Guarantees that each scene's work was really done: replies are read.
Refuses to know what is counted.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tallygate.adapters.journal.files import DiskFile, DiskFiles
from tallygate.adapters.journal.journal import JournalOptions, open_journal
from tallygate.adapters.postgres.migrate import migrate
from tallygate.gen.v1 import event_pb2, quota_pb2, usage_pb2
from tallygate.settings_types import SecretUrl
from tallygate.wiring.ingesting import start_ingest
from tests.guard.front import PATIENCE_S
from tests.guard.world import Served, StillHost, served, settings_for
from tests.journal.parts import Heard, placed

CHECK: Final = "tallygate.v1.QuotaService/CheckAndConsume"
CHECKS: Final = "tallygate.v1.QuotaService/BatchCheckAndConsume"
RECORD: Final = "tallygate.v1.UsageService/RecordUsage"
RECORDS: Final = "tallygate.v1.UsageService/BatchRecordUsage"
BATCH: Final = 64
LIST: Final = 100
TENANTS: Final = 16
CARRIED: Final = 16
ENTRIES: Final = 200
EVENTS: Final = 400
HEAT_ROUNDS_MAX: Final = 50

Durability: TypeAlias = "event_pb2.Durability.ValueType"

Round = Callable[[], Awaitable[int]]
"""Does some work, and returns how many pieces it was."""


class Disturbed(Exception):
    """A round was not what it should have been, and is to be done again."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A piece of work. `before` prepares a round, uncounted; `redis` is None where none is used."""

    name: str
    work: Round
    redis: Redis | None = None
    before: Callable[[], Awaitable[None]] | None = None


def _check(tenant: str, operation: str) -> quota_pb2.CheckAndConsumeRequest:
    request = quota_pb2.CheckAndConsumeRequest(tenant_id=tenant, operation_id=operation)
    request.items.add(meter="requests", amount=1)
    return request


def _buffered(reply: bytes) -> bool:
    """Say whether a check was granted from a lease; it must have been granted."""
    found = quota_pb2.CheckAndConsumeResponse.FromString(reply)
    assert found.allowed
    return bool(found.durability == event_pb2.DURABILITY_BUFFERED)


def _usage(tenant: str, event: str, least: Durability) -> usage_pb2.RecordUsageRequest:
    return usage_pb2.RecordUsageRequest(
        tenant_id=tenant, meter="requests", amount=1, event_id=event, min_durability=least
    )


class Calls:
    """Makes rounds of calls to a sidecar, no two of them alike."""

    def __init__(self, sidecar: Served) -> None:
        self._sidecar = sidecar
        self._numbers = count()

    def checks(self, calls: int) -> Round:
        """Return a round of so many checks that come at once, each decided by Redis."""

        async def work() -> int:
            replies = await self._sidecar.front.call(CHECK, requests)
            requests[:] = make()
            assert not any(map(_buffered, replies))
            return calls

        def make() -> list[bytes]:
            return [self.check(f"tenant-{number % TENANTS}") for number in range(calls)]

        requests = make()
        return work

    def leased_checks(self, calls: int) -> Round:
        """Return a round of checks that come at once, each granted from a lease.

        It raises `Disturbed` when the lease does not last.
        """

        async def work() -> int:
            replies = await self._sidecar.front.call(CHECK, requests)
            requests[:] = make()
            if not all(map(_buffered, replies)):
                raise Disturbed
            return calls

        def make() -> list[bytes]:
            return [self.check("hot") for _ in range(calls)]

        requests = make()
        return work

    def listed_checks(self) -> Round:
        """Return a round of one call with a list of checks."""

        async def work() -> int:
            [reply] = await self._sidecar.front.call(CHECKS, requests)
            requests[:] = [make()]
            found = quota_pb2.BatchCheckAndConsumeResponse.FromString(reply)
            assert [each.response.allowed for each in found.results] == [True] * LIST
            return LIST

        def make() -> bytes:
            return quota_pb2.BatchCheckAndConsumeRequest(
                requests=[_check(f"tenant-{each % TENANTS}", self._name()) for each in range(LIST)]
            ).SerializeToString()

        requests = [make()]
        return work

    def records(self, calls: int) -> Round:
        """Return a round of so many records that come at once."""

        async def work() -> int:
            replies = await self._sidecar.front.call(RECORD, requests)
            requests[:] = make()
            for each in replies:
                assert usage_pb2.RecordUsageResponse.FromString(each).event_id
            return calls

        def make() -> list[bytes]:
            return [
                self._usage(number, event_pb2.DURABILITY_UNSPECIFIED).SerializeToString()
                for number in range(calls)
            ]

        requests = make()
        return work

    def listed_records(self) -> Round:
        """Return a round of one call with a list of records for the journal."""

        async def work() -> int:
            [reply] = await self._sidecar.front.call(RECORDS, requests)
            requests[:] = [make()]
            found = usage_pb2.BatchRecordUsageResponse.FromString(reply)
            assert {each.response.durability for each in found.results} == {
                event_pb2.DURABILITY_JOURNAL
            }
            return LIST

        def make() -> bytes:
            least = event_pb2.DURABILITY_JOURNAL
            return usage_pb2.BatchRecordUsageRequest(
                requests=[self._usage(number, least) for number in range(LIST)]
            ).SerializeToString()

        requests = [make()]
        return work

    def check(self, tenant: str) -> bytes:
        """Return a check that no other is like."""
        return _check(tenant, self._name()).SerializeToString()

    def _usage(self, number: int, least: Durability) -> usage_pb2.RecordUsageRequest:
        return _usage(f"tenant-{number % TENANTS}", self._name(), least)

    def _name(self) -> str:
        return f"operation-{next(self._numbers):020d}"


@asynccontextmanager
async def exact_scenes(folder: Path, redis_url: str) -> AsyncIterator[list[Scene]]:
    """Lend what is decided by Redis."""
    async with served(settings_for(folder, redis_url, counter_rebuild="none")) as sidecar:
        calls = Calls(sidecar)
        works = {
            "check, lone": calls.checks(1),
            f"check, {BATCH} at once": calls.checks(BATCH),
            f"check, a list of {LIST}": calls.listed_checks(),
            "record, lone": calls.records(1),
            f"record, {BATCH} at once": calls.records(BATCH),
            f"record, a list of {LIST}": calls.listed_records(),
        }
        yield [Scene(name, work, sidecar.redis, sidecar.tidy) for name, work in works.items()]


@asynccontextmanager
async def carried_scenes(folder: Path, redis_url: str) -> AsyncIterator[list[Scene]]:
    """Lend calls that come over a socket: what carries them, and the edge, come to what they ask.

    The client is in a thread of its own, where nothing is counted.
    """
    socket = f"unix:{folder}/s"
    more = {"grpc_address": socket, "transport": "grpcio"}
    settings = settings_for(folder, redis_url, counter_rebuild="none", **more)
    async with served(settings, listens=True) as sidecar:
        calls = Calls(sidecar)
        with grpc.insecure_channel(socket) as channel:
            method: Any = channel.unary_unary(f"/{CHECK}")

            def send(requests: list[bytes]) -> list[bytes]:
                # One after the other: how many come at once would be chance.
                return [method(request, timeout=PATIENCE_S) for request in requests]

            async def work() -> int:
                requests = [calls.check(f"tenant-{each % TENANTS}") for each in range(CARRIED)]
                replies = await asyncio.to_thread(send, requests)
                assert not any(map(_buffered, replies))
                return CARRIED

            yield [Scene("check over grpcio, lone", work, before=sidecar.tidy)]


@asynccontextmanager
async def leased_scenes(folder: Path, redis_url: str) -> AsyncIterator[list[Scene]]:
    """Lend what is granted from a lease, and what settles it."""
    settings = settings_for(folder, redis_url, counter_rebuild="none", leases="on")
    async with served(settings) as sidecar:
        calls, redis, leases = Calls(sidecar), sidecar.redis, sidecar.leases
        assert leases is not None
        one, many = calls.leased_checks(1), calls.leased_checks(BATCH)

        async def ready() -> None:
            """Settle, and see that there is a lease that lasts for a round."""
            for _ in range(HEAT_ROUNDS_MAX):
                await leases.run_once()
                try:
                    await many()
                except Disturbed:
                    continue
                break
            await leases.run_once()
            await sidecar.tidy()

        async def granted() -> None:
            await ready()
            await many()
            await sidecar.tidy()

        async def settle() -> int:
            await leases.run_once()
            return BATCH

        yield [
            Scene("leased check, lone", one, redis, ready),
            Scene(f"leased check, {BATCH} at once", many, redis, ready),
            Scene(f"settling {BATCH} leased checks", settle, redis, granted),
        ]


class Unsynced(DiskFiles):
    """A folder whose files need no disk: what a sync takes is no count."""

    def create(self, name: str) -> DiskFile:
        """Make a file that is not synced."""
        made = super().create(name)
        return _Unsynced(made)


class _Unsynced(DiskFile):
    def __init__(self, made: DiskFile) -> None:
        super().__init__(made._fd)

    def sync(self) -> None:
        """Do nothing."""


@asynccontextmanager
async def journal_scenes(folder: Path) -> AsyncIterator[list[Scene]]:
    """Lend what the journal's thread does, done by the caller."""
    options = JournalOptions(2**30, threaded=False)
    journal = await open_journal(Unsynced(folder), options, Heard())
    numbers = count(1)

    async def work() -> int:
        marks = [journal.append(replace(entry, first_seq=next(numbers))) for _ in range(ENTRIES)]
        assert await journal.reached(marks[-1], 1.0, synced=True)
        return ENTRIES

    entry = placed(1, payload=bytes(80))
    try:
        yield [Scene("journal", work)]
    finally:
        await journal.close()


@asynccontextmanager
async def ingest_scenes(folder: Path, redis_url: str) -> AsyncIterator[list[Scene]]:
    """Lend what brings a stream into the ledger."""
    async with EmbeddedPostgres(folder / "postgres", unsafe_fast=True) as server:
        dsn = server.dsn_of("tallygate")
        await migrate(dsn)
        settings = settings_for(folder, redis_url, counter_rebuild="none")
        async with served(settings) as sidecar:
            record = Calls(sidecar).listed_records()
            changes = {"postgres_dsn": SecretUrl(dsn), "ingest_block_ms": 1}
            host = StillHost(settings.model_copy(update=changes))
            async with host.connections, host.stack:
                start_ingest(host)
                # A step's own counts are not what loops know of it.
                step: Any = host.loops["ingest"].step

                async def fill() -> None:
                    for _ in range(EVENTS // LIST):
                        await record()

                async def work() -> int:
                    stored = 0
                    while stored < EVENTS:
                        stored += (await step.run_once()).persisted.events
                    return stored

                yield [Scene("ingest", work, sidecar.redis, fill)]


@asynccontextmanager
async def all_scenes(folder: Path) -> AsyncIterator[list[Scene]]:
    """Lend every scene, each on servers of its own."""
    folders = {name: folder / name for name in ("exact", "carried", "leased", "journal", "ingest")}
    for each in folders.values():
        each.mkdir()
    async with (
        EmbeddedRedis(folder / "redis-1") as one,
        EmbeddedRedis(folder / "redis-2") as two,
        EmbeddedRedis(folder / "redis-3") as three,
        EmbeddedRedis(folder / "redis-4") as four,
        exact_scenes(folders["exact"], one.url) as exact,
        carried_scenes(folders["carried"], four.url) as carried,
        leased_scenes(folders["leased"], two.url) as leased,
        journal_scenes(folders["journal"]) as journal,
        ingest_scenes(folders["ingest"], three.url) as ingest,
    ):
        yield [*exact, *carried, *leased, *journal, *ingest]
