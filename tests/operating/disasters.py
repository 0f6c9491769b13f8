"""The disasters of docs/operating/disaster-recovery.md, each struck and cured as that page says.

Owns what is lost and what is done about it. Guarantees that a cure uses what the page says is left,
and nothing else. Refuses to judge what came of it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.chaos.installation import document
from tests.e2e import catalogs
from tests.operating.load import Sold, hand_in
from tests.operating.scene import BACK_ROLES, MORE, PATIENCE_S, Scene
from tests.servers import connection, eventually

POINT: Final = "before_the_deploy"
WRONG: Final = "limit: 1000000000000\n"
STORED: Final = "select count(*) from tallygate.usage_event"


@dataclass(frozen=True, slots=True)
class Disaster:
    """One disaster: what is `gone`, and how much of what was accepted may be `lost` by it.

    `strike` does it and its cure, under load. Where events may be lost, `tell` has the ledger know
    them again from their callers' books; it is called at rest.
    """

    name: str
    gone: str
    lost: str
    strike: Callable[[Scene], Awaitable[None]]
    tell: Callable[[Scene, Mapping[str, Sold]], Awaitable[None]] | None = None


async def disk(at: Scene) -> None:
    """A sidecar's node goes, with its disk; another takes its place on an empty one."""
    async with at.step("start the sidecar on an empty folder"):
        [worker] = at.workers("serve-0")
        at.struck()
        await worker.kill()
        at.lose_disk(worker)
        await at.start("serve-0")


async def redis(at: Scene) -> None:
    """Redis goes with its files; an empty one takes its place, and fills by itself."""
    before = await at.epochs()
    at.struck()
    await at.lose_redis()
    async with at.step("start an empty Redis"):
        await at.place.ground.redis.primary.server.start()
    async with at.step("counters are made anew, by themselves"):
        await at.decides(before)


async def primary(at: Scene) -> None:
    """Postgres goes with its disk; base backup and log are elsewhere, and have every commit."""
    at.struck()
    await at.lose_postgres()
    # Decisions go on meanwhile, and what is accepted waits in the streams.
    await at.more()
    async with at.step("stop what needs Postgres"):
        await at.stop(*BACK_ROLES)
    await at.restore_postgres()
    async with at.step("start ingest, relay, control"):
        await at.start(*BACK_ROLES)
    await at.archive_anew()


async def deploy_that_destroys(at: Scene) -> None:
    """A deploy drops the schema; the ledger goes back to the point that was named before it."""
    async with connection(at.place.ground.near_dsn) as admin:
        await admin.execute("select pg_create_restore_point($1)", POINT)
        stored = await admin.fetchval(STORED)

        async def gone_on() -> bool:
            return bool(await admin.fetchval(STORED) > stored + MORE)

        await eventually(gone_on, PATIENCE_S, what="usage after the restore point")
        await at.stop(*BACK_ROLES)
        at.struck()
        await admin.execute("drop schema tallygate cascade")
    await at.restore_postgres(POINT)
    async with at.step("start ingest, relay, control"):
        await at.start(*BACK_ROLES)
    await at.archive_anew()


async def region(at: Scene) -> None:
    """Everything goes but the archive and what callers know; another region takes over."""
    at.struck()
    await at.stop(*BACK_ROLES, "serve")
    await at.lose_redis()
    await at.lose_postgres()
    for worker in at.workers("serve"):
        at.lose_disk(worker)
    await at.restore_postgres()
    async with at.step("start an empty Redis, and every process"):
        await at.place.ground.redis.primary.server.start()
        await at.start(*BACK_ROLES, "serve")
    async with at.step("counters are made anew, by themselves"):
        await at.decides()
    await at.archive_anew()


async def catalog(at: Scene) -> None:
    """A catalog that cannot be is refused; one that refuses every call is taken back."""
    books, text = at.load.books, document(at.place.receiver.url)
    control = (await at.workers("control")[0].ready())["grpc"]
    to = ("--control-address", control)
    folder = at.place.fleet.folder
    broken = catalogs.write(folder, text.replace("plan: open", "plan: opne"), "broken.yaml")
    await at.command("apply", "-f", broken, *to, codes=(1,))
    assert WRONG in text
    at.struck()
    wrong = catalogs.write(folder, text.replace(WRONG, "limit: 1\n"), "wrong.yaml")
    await at.command("apply", "-f", wrong, *to)
    refused = books.refused

    def hurts() -> bool:
        return books.refused > refused + MORE

    await eventually(hurts, PATIENCE_S, what="calls that are refused by mistake")
    async with at.step("apply the catalog before it"):
        await at.command("apply", "-f", catalogs.write(folder, text), *to)


async def deploy_that_does_not_start(at: Scene) -> None:
    """Every ingester is replaced by one that ends as it starts; the old ones are put back."""
    at.struck()
    await at.stop("ingest")
    bad = {**at.workers("ingest-0")[0].settings, "postgres_dsn": "postgresql://nowhere.invalid/x"}
    bad["data_dir"] = at.folder / "next-0"
    worker = await at.place.fleet.start("next-0", "ingest", **bad)
    await at.more()
    await worker.kill()
    del at.place.fleet.workers["next-0"]
    async with at.step("put the version before it back"):
        await at.start("ingest")


async def tell(at: Scene, events: Mapping[str, Sold]) -> None:
    """Hand in what the ledger lacks, under the ids that it had."""
    async with at.step("hand in again what callers have on their books"):
        await hand_in(at.load.lines[0], events)
        await at.drain()
    async with at.step("settle the numbers that they had"):
        reason = ("--reason", "handed in again from the callers' books")
        await at.command("completeness", "settle", *reason, "--apply")
        await at.drain()


async def forget_and_tell(at: Scene, events: Mapping[str, Sold]) -> None:
    """The same where Redis still knows the operations, and would only answer them again."""
    before = await at.epochs()
    async with at.step("empty Redis once nothing waits in it; counters are made anew"):
        await at.empty_redis()
        await at.decides(before)
    await tell(at, events)


DISASTERS: Final = (
    Disaster("disk", "a sidecar's disk", "none", disk),
    Disaster("redis", "Redis, all of it", "none", redis),
    Disaster("primary", "the Postgres primary and its disk", "none", primary),
    Disaster("catalog", "a catalog that refuses everybody", "none", catalog),
    Disaster("deploy", "ingesters that do not start", "none", deploy_that_does_not_start),
    Disaster(
        "point", "the ledger, back to a restore point", "what was ingested since",
        deploy_that_destroys, forget_and_tell,
    ),
    Disaster(
        "region", "Redis, Postgres and all sidecars at once", "what was not ingested yet",
        region, tell,
    ),
)  # fmt: skip
