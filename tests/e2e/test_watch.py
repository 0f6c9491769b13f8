"""`tallygate usage --watch` as a process, against readings that a test sets and real sidecars."""

import asyncio
import json
import os
import pty
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tallygate.domain.decision import LimitState
from tests.e2e import catalogs
from tests.e2e.calls import consume, quota
from tests.e2e.processes import (
    COMMAND,
    Process,
    Server,
    environment,
    site,
    started,
    tallygate,
)
from tests.servers import eventually
from tests.watches import Rig, Side, serving, standing

STOPS_S = 10.0
NOWHERE = "127.0.0.1:1"


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    """A server with nothing used yet."""
    async with serving(Rig()) as found:
        yield found


async def ended(process: Process, number: signal.Signals = signal.SIGINT) -> int:
    """Tell it to stop; return its exit code."""
    process.send(number)
    async with asyncio.timeout(STOPS_S):
        return await process.ended()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_each_change_is_a_line(side: Side, number: signal.Signals) -> None:
    """Without a terminal, each change is a line; Ctrl-C ends it with 0 and no trace."""
    watching = ("usage", "--watch", "--tenant", "acme", "--grpc-address", side.server.addresses[0])
    async with started(*watching) as process:
        await process.said(r"snapshot acme plan free\n\S+ snapshot acme monthly 0 of 100 ok\n")
        await side.rig.show(standing(7))
        await process.said(r"changed acme monthly 7 of 100 ok\n")
        await side.rig.show(standing(80, LimitState.WARNING))
        await process.said(r"crossed acme monthly 80 of 100 warning\n")
        assert await ended(process, number) == 0
    assert process.err == []
    assert len(process.out) == 4
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \w+ acme ", line) for line in process.out)


async def test_each_message_is_a_json_line(side: Side) -> None:
    """With `--json`, each message is one JSON object on a line of its own."""
    watching = ("usage", "--watch", "--tenant", "acme", "--json")
    async with started(*watching, grpc_address=side.server.addresses[0]) as process:
        await process.said("WATCH_CAUSE_SNAPSHOT")
        await side.rig.show(standing(7))
        await process.said("WATCH_CAUSE_CHANGED")
        assert await ended(process) == 0
    [first, second] = [json.loads(line) for line in process.out]
    assert (first["plan"], first["limits"][0]["used"]) == ("free", "0")
    assert second["limits"][0]["used"] == "7"


async def test_a_sidecar_that_restarts_is_waited_for() -> None:
    """While it is away that is said; then the watch goes on from where the tenant stands."""
    async with serving(Rig()) as first:
        address = first.server.addresses[0]
        watching = ("usage", "--watch", "--tenant", "acme", "--grpc-address", address)
        process_of = started(*watching)
        process = await process_of.__aenter__()
        await process.said("snapshot acme monthly 0 of 100")
    try:
        await process.said(re.escape(f"nothing answers at {address}"))
        rig = Rig()
        rig.readings.result = standing(9)
        async with serving(rig, address):
            await process.said("snapshot acme monthly 9 of 100")
            assert await ended(process) == 0
    finally:
        await process_of.__aexit__(None, None, None)


async def test_a_terminal_shows_a_table_in_place(side: Side) -> None:
    """In a terminal the limits are a table that is drawn over."""
    leader, follower = pty.openpty()
    said = bytearray()
    loop = asyncio.get_running_loop()
    loop.add_reader(leader, lambda: said.extend(os.read(leader, 65_536)))
    settings = {"grpc_address": side.server.addresses[0]}
    child = await asyncio.create_subprocess_exec(
        *(COMMAND, "usage", "--watch", "--tenant", "acme"),
        env=environment(settings) | {"TERM": "xterm", "COLUMNS": "100"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    try:
        await eventually(lambda: b"monthly" in said, 30, what="a table")
        # No time of day that stands above the table holds it.
        await side.rig.show(standing(777))
        await eventually(lambda: b"777" in said, what="the change")
        # Drawn over, not below: the cursor goes up.
        assert re.search(rb"\x1b\[\d*A", bytes(said))
        child.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOPS_S):
            assert await child.wait() == 0
    finally:
        loop.remove_reader(leader)
        os.close(leader)
        os.close(follower)
        if child.returncode is None:
            child.kill()
            await child.wait()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("usage", "--watch"), "--tenant"),
        (("usage", "--watch", "--tenant", "acme", "--grpc-address", NOWHERE), NOWHERE),
    ],
)
async def test_what_cannot_be_watched_is_told(arguments: tuple[str, ...], words: str) -> None:
    """Without a tenant, or a sidecar from the beginning, it fails in a line."""
    finished = await tallygate(*arguments)
    assert finished.code != 0
    assert words in finished.err
    assert "Traceback" not in finished.err


async def test_a_process_serves_watches_and_drains_them(tmp_path: Path, redis_url: str) -> None:
    """What is charged shows in the watch and in the metrics; a stop does not wait for watchers."""
    file = catalogs.write(tmp_path, catalogs.limited(10))
    async with site(tmp_path, redis_url=redis_url, catalog=file, counter_rebuild="none") as place:
        serve = await place.start("serve")
        await eventually(lambda: loaded(serve), what="a catalog")
        watching = ("usage", "--watch", "--tenant", "acme", "--grpc-address", serve.address)
        async with started(*watching) as process:
            await process.said(r"snapshot acme monthly 0 of 10 ok\n")
            async with quota(serve.address) as stub:
                assert (await stub.CheckAndConsume(consume("op-1", 4, "acme"), timeout=10)).allowed
            await process.said(r"changed acme monthly 4 of 10 ok\n")
            file = catalogs.write(tmp_path, catalogs.limited(20))
            await process.said(r"changed acme monthly 4 of 20 ok\n")
            assert await serve.metric("tallygate_watches") == 1
            assert await serve.metric("tallygate_watched_questions") == 1
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await serve.terminate() == 0
            # A third of the grace: it has not waited for the watch to end by itself.
            assert loop.time() - began < 3.3
            await process.said("nothing answers at")
            assert await ended(process) == 0


async def loaded(server: Server) -> bool:
    """Say whether a sidecar is ready."""
    return (await server.page("/readyz"))[0] == 200
