"""An installation that disasters befall: its servers, its archive, its operator's hands.

Owns the deeds that disasters and their cures are made of. Guarantees that what is started instead
of what was lost is ended with the installation. Refuses to know which disaster calls for which.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import asyncpg
from redis.exceptions import RedisError

from tallygate.adapters.embedded import EmbeddedPostgres
from tallygate.adapters.redis import keys
from tests.chaos.emptied import epochs
from tests.chaos.fleet import Worker
from tests.chaos.ground import POSTGRES_SOCKET
from tests.chaos.installation import BACK, Installation, Shape, installation
from tests.chaos.rest import SHARDS, drained
from tests.e2e import forked
from tests.e2e.processes import Finished, environment
from tests.operating.archive import Archive
from tests.operating.load import PATIENT, Load, loaded, us_now
from tests.servers import connection, eventually

BACK_ROLES: Final = ("control", "ingest", "relay")
"""What needs Postgres, and is stopped while it is restored."""

MORE: Final = 300
"""Events before, during and after a disaster: enough that some are always under way."""

PATIENCE_S: Final = 400.0
DRAIN_S: Final = 400.0
NEWEST: Final = "select max(tallygate.microseconds(received_at)) from tallygate.usage_event"


@dataclass(slots=True)
class Scene:
    """One installation over a rehearsal. `done` are the operator's steps, with their seconds."""

    place: Installation
    archive: Archive
    load: Load
    folder: Path
    done: list[tuple[str, float]] = field(default_factory=list)
    struck_s: float = 0.0
    struck_us: int = 0
    _restored: int = 0

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """Note a step and how long it took."""
        began = time.monotonic()
        yield
        self.done.append((name, time.monotonic() - began))

    def struck(self) -> None:
        """Note that the loss happens now."""
        self.struck_s, self.struck_us = time.monotonic(), us_now()

    @property
    def settings(self) -> dict[str, Any]:
        """What a command has to be given to reach the servers."""
        redis = self.place.ground.to_redis[BACK].url
        return {"redis_url": redis, "postgres_dsn": self.place.ground.near_dsn}

    def workers(self, *roles: str) -> list[Worker]:
        """Return the processes of some roles."""
        return [each for role in roles for each in self.place.fleet.named(role)]

    async def command(self, *words: object, codes: Collection[int] = (0,)) -> Finished:
        """Run a command; its exit code must be one of those."""
        given = forked.Command(tuple(map(str, words)), environment(self.settings), str(self.folder))
        async with asyncio.timeout(PATIENCE_S):
            finished = Finished(*await forked.run(given))
        assert finished.code in codes, f"{words}: {finished.err}{finished.out}"
        return finished

    async def more(self, events: int = MORE) -> None:
        """Wait until callers had so many more events accepted."""
        wanted = len(self.load.books.accepted) + events

        def accepted() -> bool:
            return len(self.load.books.accepted) >= wanted

        await eventually(accepted, PATIENCE_S, what=f"{events} more events")

    async def fetch(self, query: str, *arguments: object) -> Any:
        """Return one value of the ledger, None while it cannot be asked."""
        try:
            async with connection(self.place.ground.near_dsn) as opened:
                return await opened.fetchval(query, *arguments)
        except (asyncpg.PostgresError, OSError):
            return None

    async def ledger_goes_on(self, since_us: int) -> None:
        """Wait until the ledger has an event that was accepted since an instant."""

        async def goes_on() -> bool:
            return (await self.fetch(NEWEST) or 0) > since_us

        await eventually(goes_on, PATIENCE_S, what="a ledger that goes on")

    async def drain(self) -> None:
        """Wait until nothing waits anywhere."""
        assert await drained(self.place, DRAIN_S) is not None, "something still waits"

    async def drain_streams(self) -> None:
        """Wait until no stream holds anything; journals may, of what a ledger has forgotten."""
        client = self.place.ground.redis.client()

        async def empty() -> bool:
            lengths = [await client.xlen(keys.stream(shard)) for shard in range(SHARDS)]
            return not any(lengths)

        try:
            await eventually(empty, PATIENCE_S, what="empty streams")
        finally:
            await client.aclose()

    async def stop(self, *roles: str) -> None:
        """End all processes of some roles as a cluster's scaling to nothing would, at once."""
        await asyncio.gather(*(each.kill() for each in self.workers(*roles)))

    async def start(self, *roles: str) -> None:
        """Start them again, and wait until they are ready."""
        for each in self.workers(*roles):
            await each.start()
        for each in self.workers(*roles):
            await each.ready()

    async def lose_redis(self) -> None:
        """Take Redis away with all of its files."""
        server = self.place.ground.redis.primary.server
        await server.kill()
        shutil.rmtree(self.folder / "redis-a" / "appendonlydir", ignore_errors=True)
        (self.folder / "redis-a" / "appendonly.aof").unlink(missing_ok=True)

    async def lose_postgres(self) -> None:
        """Take Postgres away with all of its files."""
        ground = self.place.ground
        await ground.postgres.kill()
        shutil.rmtree(self.folder / self._cluster)
        ground.to_postgres.reset()

    def lose_disk(self, worker: Worker) -> None:
        """Take away the folder that a process keeps."""
        shutil.rmtree(Path(worker.settings["data_dir"]))

    async def restore_postgres(self, point: str = "") -> None:
        """Do what docs/operating/disaster-recovery.md says of the ledger."""
        ground = self.place.ground
        async with self.step("restore the base backup and replay the log"):
            self._restored += 1
            server = await self.archive.restore(self.folder / self._cluster, point)
        self.place.stack.push_async_callback(server.stop)
        self._serve(server)
        async with self.step("`tallygate migrate --roles`, `tallygate outbox rebase`"):
            await self.command("migrate", "--roles")
            await self.command("outbox", "rebase")
        ground.to_postgres.reset()

    async def archive_anew(self) -> None:
        """Archive the server that is there now; what was archived of another one stays as it is."""
        self.archive = Archive(self.folder / f"archive-{self._restored}")
        await self.archive.begin(self.place.ground.postgres)

    async def empty_redis(self) -> None:
        """Have Redis forget all, as a new server would."""
        client = self.place.ground.redis.client()
        try:
            await client.flushall()
        finally:
            await client.aclose()

    async def decides(self, unlike: Collection[bytes] = ()) -> None:
        """Wait until every shard's counters are whole, in other epochs than those."""

        async def open_everywhere() -> bool:
            client = self.place.ground.redis.client()
            try:
                shards = await epochs(client)
            except (RedisError, OSError):
                return False
            finally:
                await client.aclose()
            return all(epoch not in (b"", *unlike) and stage == b"1" for epoch, stage in shards)

        await eventually(open_everywhere, PATIENCE_S, what="every shard's counters")

    async def epochs(self) -> list[bytes]:
        """Return the shards' epochs."""
        client = self.place.ground.redis.client()
        try:
            return [epoch for epoch, _ in await epochs(client)]
        finally:
            await client.aclose()

    @property
    def _cluster(self) -> str:
        return f"postgres-{self._restored}" if self._restored else "postgres"

    def _serve(self, server: EmbeddedPostgres) -> None:
        ground = self.place.ground
        ground.postgres = server
        host = parse_qs(urlsplit(server.dsn).query)["host"][0]
        ground.to_postgres.target = f"{host}/{POSTGRES_SOCKET}"


@asynccontextmanager
async def scene(folder: Path, seed: int, per_s: float) -> AsyncIterator[Scene]:
    """Lend an installation that is archived; the load is not on yet."""
    shape = Shape(relays=1, replica=False, disks=False, settings={**PATIENT})
    async with installation(folder, shape, seed=seed) as place:
        lines = [await place.line(name) for name in sorted(place.sockets)]
        archive = Archive(folder / "archive-0")
        lent = Scene(place, archive, Load(lines, seed, per_s), folder)
        try:
            await archive.begin(place.ground.postgres)
            yield lent
        finally:
            await lent.archive.end()


async def under_load(at: Scene, deed: Callable[[], Awaitable[None]]) -> None:
    """Do something under load, with calls before and after it; return once all are answered."""
    at.load = Load(at.load.lines, at.load.seed + 1, at.load.per_s, at.load.books)
    async with loaded(at.load):
        await at.more()
        await deed()
        await at.more()
