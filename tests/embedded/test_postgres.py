"""Facts about the embedded Postgres."""

import os
import shutil
from pathlib import Path

import asyncpg
import pytest

from tallygate.adapters.embedded import (
    EmbeddedPostgres,
    FolderInUse,
    FolderUnusable,
    StartFailed,
)
from tests.servers import connection


async def value(dsn: str, query: str) -> object:
    """Return the only value of a query."""
    async with connection(dsn) as opened:
        return await opened.fetchval(query)


async def write(dsn: str) -> None:
    """Commit a row."""
    async with connection(dsn) as opened:
        await opened.execute("create table kept as select 7 as n")


async def test_it_has_our_database(own_postgres: EmbeddedPostgres) -> None:
    """It serves a UTF-8 database of our name in UTC, without a TCP port."""
    dsn = own_postgres.dsn
    assert await value(dsn, "select current_database()") == "tallygate"
    assert await value(dsn, "show server_encoding") == "UTF8"
    assert await value(dsn, "show timezone") == "UTC"
    assert await value(dsn, "show listen_addresses") == ""
    assert str(await value(dsn, "show server_version")).startswith("18")


async def test_tests_alone_are_unsafe(tmp_path: Path) -> None:
    """Nothing is traded for speed unless it is asked for."""
    async with EmbeddedPostgres(tmp_path) as server:
        assert await value(server.dsn, "show fsync") == "on"
        assert await value(server.dsn, "show synchronous_commit") == "on"


async def test_the_fast_mode_is_fast(own_postgres: EmbeddedPostgres) -> None:
    """The mode of tests does not wait for the disk."""
    assert await value(own_postgres.dsn, "show fsync") == "off"


def owner_of(pid: int) -> int:
    """Return the account that a process runs as."""
    return Path(f"/proc/{pid}").stat().st_uid


async def test_it_never_runs_as_root(own_postgres: EmbeddedPostgres) -> None:
    """The server's process belongs to an ordinary account, whoever starts it."""
    assert owner_of(own_postgres.pid) != 0


async def test_contents_survive_a_restart(own_postgres: EmbeddedPostgres) -> None:
    """What was committed before a restart is there after it, at the same address."""
    dsn = own_postgres.dsn
    await write(dsn)
    await own_postgres.restart()
    assert own_postgres.dsn == dsn
    assert await value(dsn, "select n from kept") == 7


async def test_contents_survive_a_kill(own_postgres: EmbeddedPostgres) -> None:
    """What was committed before a kill is there after the next start, which does not stumble."""
    await write(own_postgres.dsn)
    async with connection(own_postgres.dsn):
        # A session that is open keeps a backend, which outlives the killed server for a moment.
        await own_postgres.kill()
        await own_postgres.restart()
    assert await value(own_postgres.dsn, "select n from kept") == 7


async def test_one_owner_per_folder(tmp_path: Path) -> None:
    """A second start on a folder is refused, and the first goes on."""
    async with EmbeddedPostgres(tmp_path, unsafe_fast=True) as first:
        with pytest.raises(FolderInUse):
            await EmbeddedPostgres(tmp_path).start()
        assert await value(first.dsn, "select 1") == 1


async def test_long_folders_work(tmp_path: Path) -> None:
    """A folder whose path is longer than a socket's may be works."""
    async with EmbeddedPostgres(tmp_path / ("long-" * 30), unsafe_fast=True) as server:
        assert await value(server.dsn, "select 1") == 1


async def test_half_made_folders_are_made_again(tmp_path: Path) -> None:
    """What an interrupted first start left behind is not taken for a cluster."""
    unfinished = tmp_path / "cluster.new"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    async with EmbeddedPostgres(tmp_path, unsafe_fast=True) as server:
        assert await value(server.dsn, "select 1") == 1
    assert not unfinished.exists()


async def test_clusters_of_other_versions_are_refused(tmp_path: Path) -> None:
    """A cluster of another major version is refused, naming both versions."""
    async with EmbeddedPostgres(tmp_path, unsafe_fast=True):
        pass
    (tmp_path / "cluster" / "PG_VERSION").write_text("15\n")
    with pytest.raises(FolderUnusable, match=r"Postgres 15.*18"):
        await EmbeddedPostgres(tmp_path).start()


async def test_a_failed_start_says_why(tmp_path: Path) -> None:
    """A start that fails raises with the server's last words, and gives the folder back."""
    with pytest.raises(StartFailed, match="no_such_setting"):
        await EmbeddedPostgres(tmp_path, unsafe_fast=True, settings=("no_such_setting=1",)).start()
    async with EmbeddedPostgres(tmp_path, unsafe_fast=True) as server:
        assert server.running


async def test_settings_win_over_defaults(tmp_path: Path) -> None:
    """A setting that is given replaces the default of the same name."""
    async with EmbeddedPostgres(tmp_path, unsafe_fast=True, settings=("fsync=on",)) as server:
        assert await value(server.dsn, "show fsync") == "on"


async def test_stop_cuts_sessions(own_postgres: EmbeddedPostgres) -> None:
    """A stop does not wait for open sessions, and may be repeated."""
    opened = await asyncpg.connect(own_postgres.dsn, timeout=10)
    pid = own_postgres.pid
    await own_postgres.stop()
    await own_postgres.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    opened.terminate()


async def test_a_removed_cluster_is_made_anew(own_postgres: EmbeddedPostgres) -> None:
    """Removing the data is a way to start over."""
    await write(own_postgres.dsn)
    await own_postgres.stop()
    shutil.rmtree(own_postgres._cluster)
    await own_postgres.start()
    assert await value(own_postgres.dsn, "select to_regclass('kept')") is None
