"""A catalog's way from an operator's file to a sidecar's decisions."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tallygate.gen.v1 import quota_pb2
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, Ledger, consume, quota
from tests.e2e.processes import Finished, Server, Site, rows_of, site, tallygate
from tests.servers import connection, eventually

TAKEN_OVER_S = 1.0
"""What is promised of a change to be in use, counted from the end of the command."""

SETTLE_S = 15.0


@dataclass(frozen=True, slots=True)
class Parts:
    """One process for each role."""

    serve: Server
    control: Server
    ingest: Server
    folder: Path

    async def apply(self, text: str, *flags: str) -> Finished:
        """Apply a catalog by the command."""
        file = catalogs.write(self.folder, text)
        return await tallygate(
            "apply", "-f", file, "--json", "--control-address", self.control.address, *flags
        )


async def read_quota(address: str, tenant: str = "acme") -> quota_pb2.GetQuotaResponse:
    """Return what a sidecar says of a tenant."""
    async with quota(address) as stub:
        return await stub.GetQuota(
            quota_pb2.GetQuotaRequest(tenant_id=tenant), timeout=CALL_TIMEOUT_S
        )


@pytest.fixture
async def place(tmp_path: Path, redis_url: str) -> AsyncIterator[Site]:
    """An installation on the suite's Redis."""
    async with site(tmp_path, redis_url=redis_url, counter_rebuild="none") as place:
        yield place


@pytest.fixture
async def parts(place: Site, postgres_dsn: str) -> Parts:
    """A sidecar, an ingester and a control, each a process of its own."""
    control = await place.start("control", postgres_dsn=postgres_dsn)
    ingest = await place.start("ingest", postgres_dsn=postgres_dsn)
    return Parts(await place.start("serve"), control, ingest, place.folder)


async def test_faults_are_listed(parts: Parts) -> None:
    """Every fault of a catalog comes with its line and what was meant; exit 1, nothing applied."""
    finished = await parts.apply(catalogs.FAULTY)
    assert finished.code == 1
    faults = {row["line"]: row["did you mean"] for row in rows_of(finished, "faults")}
    assert faults == {2: "open?", 4: "sum?", 8: "requests?"}
    good = rows_of(await parts.apply(catalogs.OPEN), "catalog")[0]
    assert (good["version"], good["applied"]) == (1, True)


async def test_change_is_taken_over_within_a_second(parts: Parts) -> None:
    """A change is shown, gets a version, and decides in every sidecar within a second."""
    first = await parts.apply(catalogs.OPEN)
    assert first.code == 0, first.err
    assert rows_of(first, "catalog")[0]["applied"]
    version = rows_of(first, "catalog")[0]["version"]

    async def ready() -> bool:
        return (await parts.serve.page("/readyz"))[0] == 200

    await eventually(ready, SETTLE_S, what="a sidecar with a catalog")
    dry = await parts.apply(catalogs.limited(5), "--dry-run")
    assert not rows_of(dry, "catalog")[0]["applied"]
    second = await parts.apply(catalogs.limited(5))
    (change,) = rows_of(second, "changes")
    assert change[""] == "~"
    assert "monthly" in change["path"]
    newer = rows_of(second, "catalog")[0]["version"]
    assert newer == version + 1

    async def taken_over() -> bool:
        return bool((await read_quota(parts.serve.address)).catalog_version == newer)

    await eventually(taken_over, TAKEN_OVER_S, what=f"version {newer} in the sidecar")
    async with quota(parts.serve.address) as stub:
        assert (await stub.CheckAndConsume(consume("a", 5, "acme"))).allowed
        refused = await stub.CheckAndConsume(consume("b", 1, "acme"))
    assert (refused.allowed, refused.refused_by) == (False, "monthly")
    same = await parts.apply(catalogs.limited(5))
    assert not same.json().get("changes")
    assert rows_of(same, "catalog")[0]["version"] == newer


async def test_a_time_to_take_effect_is_told(parts: Parts, postgres_dsn: str) -> None:
    """A first catalog may be older, another one later; what is no time, or too old, is refused."""
    old, new = datetime.now(UTC) - timedelta(days=30), datetime.now(UTC) + timedelta(days=30)
    unread = await parts.apply(catalogs.OPEN, "--effective-at", "tomorrow")
    assert (unread.code, "--effective-at" in unread.err) == (1, True)
    for at in (old, new):
        applied = await parts.apply(
            catalogs.limited(at.month + 1), "--effective-at", at.isoformat(timespec="seconds")
        )
        assert applied.code == 0, applied.err
    late = await parts.apply(catalogs.OPEN, "--effective-at", old.isoformat(timespec="seconds"))
    assert (late.code, "must not be in the past" in late.err) == (1, True), late.err
    async with connection(postgres_dsn) as admin:
        rows = await admin.fetch(
            "select effective_at from tallygate.catalog_version order by version"
        )
    assert [row["effective_at"] for row in rows] == [
        each.replace(microsecond=0) for each in (old, new)
    ]


async def test_separate_processes_make_one_chain(parts: Parts, postgres_dsn: str) -> None:
    """What one process accepts, another writes to the ledger, and a third shows."""
    assert (await parts.apply(catalogs.OPEN)).code == 0

    async def ready() -> bool:
        return (await parts.serve.page("/readyz"))[0] == 200

    await eventually(ready, SETTLE_S, what="a sidecar with a catalog")
    async with quota(parts.serve.address) as stub:
        for number in range(3):
            assert (await stub.CheckAndConsume(consume(f"call-{number}", 7, "acme"))).allowed
    ledger = Ledger(postgres_dsn)

    async def stored() -> bool:
        return await ledger.count() == 3

    await eventually(stored, SETTLE_S, what="three events")
    finished = await tallygate(
        *("usage", "--tenant", "acme", "--json", "--control-address", parts.control.address)
    )
    (row,) = rows_of(finished, "usage")
    assert (row["tenant"], row["meter"], row["events"], row["sum"]) == ("acme", "requests", 3, 21)
    for server in (parts.serve, parts.ingest, parts.control):
        assert await server.terminate() == 0


async def test_file_is_reloaded_and_the_last_good_one_kept(place: Site) -> None:
    """`serve --catalog` needs no Postgres, follows its file, and outlives a broken one."""
    file = catalogs.write(place.folder, catalogs.limited(100))
    serve = await place.start("serve", "--catalog", file)

    async def limit() -> int:
        return (await read_quota(serve.address)).limits[0].limit

    async def loaded() -> bool:
        return (await serve.page("/readyz"))[0] == 200

    await eventually(loaded, SETTLE_S, what="the file in use")
    assert await limit() == 100
    catalogs.write(place.folder, catalogs.limited(200))

    async def changed() -> bool:
        return (await limit()) == 200

    await eventually(changed, TAKEN_OVER_S, what="the changed file in use")
    catalogs.write(place.folder, catalogs.FAULTY)
    told = await serve.process.said(r'.*"loop": ?"catalog".*|.*catalog.*fault.*')
    assert "Traceback" not in told[0]
    assert await limit() == 200
    assert (await serve.page("/readyz"))[0] == 200
    file.unlink()
    assert await limit() == 200
    catalogs.write(place.folder, catalogs.limited(300))

    async def mended() -> bool:
        return await limit() == 300

    await eventually(mended, SETTLE_S, what="the mended file in use")
    assert await serve.terminate() == 0


async def test_sidecar_does_not_start_on_a_broken_file(place: Site) -> None:
    """A sidecar whose first catalog file is broken stays up, is not ready, and says why."""
    file = catalogs.write(place.folder, catalogs.FAULTY)
    serve = await place.start("serve", "--catalog", file)
    status, text = await serve.page("/readyz?verbose")
    assert status == 503
    assert "catalog: not loaded" in text
    catalogs.write(place.folder, catalogs.OPEN)

    async def ready() -> bool:
        return (await serve.page("/readyz"))[0] == 200

    await eventually(ready, SETTLE_S, what="the mended file in use")


async def test_broken_file_is_told_until_mended(place: Site) -> None:
    """While its file is broken, a sidecar's log has each fault, and calls nothing recovered."""
    file = catalogs.write(place.folder, catalogs.FAULTY)
    serve = await place.start("serve", "--catalog", file)
    rounds = re.compile(r'tallygate_loop_iterations_total\{.*"catalog".*\} (\S+)')

    async def looked_again() -> bool:
        _, metrics = await serve.page("/metrics")
        return sum(float(found) for found in rounds.findall(metrics)) >= 3

    await eventually(looked_again, SETTLE_S, what="three looks at the broken file")
    log = "".join(serve.process.err)
    assert [word for word in ("opne", "summ", "plans.open") if word not in log] == []
    assert "loop_recovered" not in log
