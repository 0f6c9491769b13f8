"""What is recorded without waiting arrives, once, through outages, forks and the process's end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_sidecar import FakeSidecar, answers, item_error, refuses

import tallygate_client as tg
from conformance_words import now
from tallygate_client.gen.v1 import usage_pb2

Make = Callable[..., Any]
PROGRAM_S = 60
FAST = tg.BufferOptions(flush_ms=0)


async def test_events_go_together(make: Make, fake: FakeSidecar) -> None:
    """Events that wait go in one request, in order, each with its id and its time."""
    client = make(buffer=tg.BufferOptions(flush_ms=60_000))
    ids = [client.buffer.record("a", "requests", each) for each in (1, 2, 3)]
    assert await now(client.buffer.flush(20))
    (request,) = fake.seen["BatchRecordUsage"]
    assert [each.event_id for each in request.requests] == ids
    assert all(each.HasField("event_time") for each in request.requests)
    stats = client.stats()
    assert (stats.recorded, stats.sent, stats.pending) == (3, 3, 0)


async def test_a_full_request_waits_for_nobody(make: Make, fake: FakeSidecar) -> None:
    """A full request goes at once, without a flush."""
    client = make(buffer=tg.BufferOptions(flush_ms=60_000, batch=2))
    for each in (1, 2, 3):
        client.buffer.record("a", "requests", each)
    await asyncio.to_thread(fake.wait_for, "BatchRecordUsage", 1)
    assert len(fake.seen["BatchRecordUsage"][0].requests) == 2


async def test_a_full_buffer_refuses(make: Make, fake: FakeSidecar) -> None:
    """Beyond its bound the buffer refuses and counts; what it has taken it keeps."""
    client = make(buffer=tg.BufferOptions(max_events=2, flush_ms=60_000))
    client.buffer.record("a", "requests", 1)
    client.buffer.record("a", "requests", 2)
    with pytest.raises(tg.BufferFull):
        client.buffer.record("a", "requests", 3)
    assert client.stats().refused_full == 1
    assert await now(client.buffer.flush(20))
    assert len(fake.events) == 2


async def test_an_outage_is_outlived(make: Make, fake: FakeSidecar) -> None:
    """While nobody answers nothing is dropped, and all arrives once afterwards."""
    client = make(buffer=FAST)
    fake.stop()
    ids = {client.buffer.record("a", "requests", each) for each in range(1, 8)}
    assert not await now(client.buffer.flush(0.05))
    fake.start()
    assert await now(client.buffer.flush(30))
    assert set(fake.events) == ids
    assert fake.repeats == client.stats().replayed


async def test_what_is_refused_for_good_is_told(make: Make, fake: FakeSidecar) -> None:
    """What can never be recorded goes to the hook with its reason, the rest goes on."""
    told: list[Any] = []
    pending: list[int] = []
    hooks = tg.Hooks(on_rejected=lambda *each: told.append(each), on_buffer=pending.append)
    client = make(buffer=tg.BufferOptions(flush_ms=60_000), hooks=hooks)
    accepted = usage_pb2.BatchRecordUsageResult(response=usage_pb2.RecordUsageResponse())
    refused = item_error("UNKNOWN_METER", grpc.StatusCode.NOT_FOUND)
    later = item_error("OVERLOADED", grpc.StatusCode.UNAVAILABLE, retry_s=0)
    reply = usage_pb2.BatchRecordUsageResponse(results=[accepted, refused, later])
    fake.script("BatchRecordUsage", answers(reply))
    ids = [client.buffer.record("a", "requests", each) for each in (1, 2, 3)]
    assert await now(client.buffer.flush(20))
    ((event, error),) = told
    assert (event.event_id, error.reason) == (ids[1], "UNKNOWN_METER")
    assert list(fake.events) == [ids[2]]
    stats = client.stats()
    assert (stats.sent, stats.rejected, stats.retries) == (2, 1, 1)
    assert pending[:3] == [1, 2, 3]
    assert pending[-1] == 0


async def test_closing_sends_what_is_left(make: Make, fake: FakeSidecar) -> None:
    """Closing sends what waits, and takes nothing more."""
    client = make(buffer=tg.BufferOptions(flush_ms=60_000))
    client.buffer.record("a", "requests", 1)
    assert await now(client.close(20))
    assert len(fake.events) == 1
    with pytest.raises(tg.Closed):
        client.buffer.record("a", "requests", 1)


async def test_closing_tells_what_could_not_be_sent(make: Make, fake: FakeSidecar) -> None:
    """Without a spool, what could not be sent in time is told to the hook as rejected."""
    told: list[Any] = []
    hooks = tg.Hooks(on_rejected=lambda *each: told.append(each))
    client = make(buffer=FAST, hooks=hooks)
    fake.stop()
    name = client.buffer.record("a", "requests", 1)
    assert not await now(client.close(0.05))
    ((event, error),) = told
    assert (event.event_id, type(error)) == (name, tg.Closed)
    assert client.stats().rejected == 1


async def test_a_spool_outlives_its_client(make: Make, fake: FakeSidecar, tmp_path: Path) -> None:
    """What could not be sent is in the spool, and the next client of the directory sends it."""
    spooled = tg.BufferOptions(flush_ms=0, spool_dir=tmp_path)
    fake.stop()
    client = make(buffer=spooled)
    ids = {client.buffer.record("a", "requests", each) for each in (1, 2)}
    assert client.stats().spool_bytes > 0
    assert not await now(client.close(0.05))
    assert client.stats().rejected == 0
    fake.start()
    again = make(buffer=spooled)
    assert await now(again.buffer.flush(30))
    assert set(fake.events) == ids
    assert again.stats().spool_bytes == 0
    assert os.listdir(tmp_path) == ["lock"]  # noqa: PTH208


async def test_a_spool_is_one_clients(make: Make, tmp_path: Path) -> None:
    """A second client of the same directory is refused when it is made."""
    spooled = tg.BufferOptions(spool_dir=tmp_path)
    make(buffer=spooled)
    with pytest.raises(tg.SpoolInUse):
        make(buffer=spooled)


async def test_a_spool_that_cannot_be_is_said(make: Make, tmp_path: Path) -> None:
    """A directory that cannot be made is a typed error when the client is made."""
    (tmp_path / "file").write_text("")
    with pytest.raises(tg.SpoolFailed):
        make(buffer=tg.BufferOptions(spool_dir=tmp_path / "file"))


async def test_any_thread_may_record(make: Make, fake: FakeSidecar) -> None:
    """Threads record into either kind of client, and nothing of it is lost."""
    client = make(buffer=FAST)
    await now(client.check("a", {"requests": 1}))

    def work() -> None:
        for each in range(1, 51):
            client.buffer.record("a", "requests", each)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        await asyncio.to_thread(each.join)
    assert await now(client.buffer.flush(30))
    assert len(fake.events) == 200
    assert fake.repeats == 0


def test_a_loop_may_end_and_another_go_on(fake: FakeSidecar) -> None:
    """A client for asyncio goes on in another loop once its own has ended, its buffer as well."""
    options = tg.BufferOptions(flush_ms=60_000)
    client = tg.AsyncClient(fake.address, buffer=options, timeout=20)
    asked = threading.Event()
    fake.script("BatchRecordUsage", lambda _, __: asked.wait(30) and None)

    async def first() -> None:
        await client.check("a", {"requests": 1})
        client.buffer.record("a", "requests", 1, event_id="e1")
        assert not await client.buffer.flush(0)
        await asyncio.to_thread(fake.wait_for, "BatchRecordUsage", 1)

    async def second() -> None:
        await client.check("a", {"requests": 1})
        assert await client.close(20)

    asyncio.run(first())
    asked.set()
    asyncio.run(second())
    assert list(fake.events) == ["e1"]


async def test_an_answer_of_nonsense_loses_nothing(make: Make, fake: FakeSidecar) -> None:
    """A reply that has not one result per event says nothing of them: they are sent again."""
    told: list[Any] = []
    hooks = tg.Hooks(on_rejected=lambda _, error: told.append(error))
    client = make(buffer=tg.BufferOptions(flush_ms=60_000), hooks=hooks)
    fake.script("BatchRecordUsage", answers(usage_pb2.BatchRecordUsageResponse()))
    client.buffer.record("a", "requests", 1, event_id="one")
    assert await now(client.buffer.flush(20))
    assert (told, list(fake.events)) == ([], ["one"])


async def test_no_buffer_is_said(make: Make) -> None:
    """A client that was made without a buffer says how to have one."""
    with pytest.raises(RuntimeError, match="buffer=True"):
        _ = make().buffer


KILLED = """
import os, signal, sys, tallygate_client as tg
options = tg.BufferOptions(flush_ms=0, spool_dir=sys.argv[2])
client = tg.Client(sys.argv[1], buffer=options, timeout=20)
held = client.reserve("a", {"requests": 5}, operation_id="op")
print("ready", flush=True)
sys.stdin.readline()
for each in range(100):
    print(client.buffer.record("a", "requests", 1), flush=True)
print(held.commit(timeout=0.2).buffered, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_in_an_outage_and_started_again(fake: FakeSidecar, tmp_path: Path) -> None:
    """What a process had recorded when it was killed arrives from the next, all of it, once."""
    with _program(KILLED, fake.address, str(tmp_path)) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        fake.stop()
        out, _ = program.communicate("go\n", timeout=PROGRAM_S)
    *ids, buffered = out.split()
    assert buffered == "True"
    assert program.returncode == -9
    fake.start()
    options = tg.BufferOptions(spool_dir=tmp_path)
    with tg.Client(fake.address, buffer=options, timeout=20) as client:
        assert client.buffer.flush(30)
        assert client.stats().spool_torn == 0
    assert set(fake.events) == set(ids)
    assert fake.repeats == 0
    assert [each.operation_id for each in fake.seen["Commit"]][-1] == "01-op#c"


FORKED = """
import os, sys, tallygate_client as tg
options = tg.BufferOptions(flush_ms=60_000)
client = tg.Client(sys.argv[1], buffer=options, timeout=20)
client.check("a", {"requests": 1})
client.buffer.record("a", "requests", 1, event_id="parent")
child = os.fork()
if child == 0:
    assert client.check("a", {"requests": 1}).allowed
    assert client.stats().pending == 0
    client.buffer.record("a", "requests", 1, event_id="child")
    assert client.buffer.flush(20)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert client.check("a", {"requests": 1}).allowed
"""


def test_a_fork_and_an_exit(fake: FakeSidecar) -> None:
    """A client made and used before a fork works in both; what waits is sent at the exit, once."""
    with _program(FORKED, fake.address) as program:
        _, errors = program.communicate(timeout=PROGRAM_S)
    assert program.returncode == 0, errors
    assert list(fake.events) == ["child", "parent"]
    assert fake.repeats == 0
    assert len(fake.seen["Check"]) == 3


FORKED_SPOOL = """
import os, sys, tallygate_client as tg
client = tg.Client(sys.argv[1], buffer=tg.BufferOptions(spool_dir=sys.argv[2]), timeout=20)
client.buffer.record("a", "requests", 1, event_id="parent")
child = os.fork()
if child == 0:
    try:
        client.buffer.record("a", "requests", 1, event_id="child")
    except tg.SpoolInUse as error:
        assert f"process {os.getppid()}" in str(error), error
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert client.buffer.flush(20)
"""


def test_a_fork_leaves_the_spool_to_its_parent(fake: FakeSidecar, tmp_path: Path) -> None:
    """A child is told that the spool is its parent's, which goes on with it."""
    with _program(FORKED_SPOOL, fake.address, str(tmp_path)) as program:
        _, errors = program.communicate(timeout=PROGRAM_S)
    assert program.returncode == 0, errors
    assert list(fake.events) == ["parent"]


LEFT_OPEN = """
import asyncio, sys, tallygate_client as tg
hooks = tg.Hooks(on_rejected=lambda event, error: print(event.event_id, type(error).__name__))
async def main():
    client = tg.AsyncClient(sys.argv[1], buffer=True, hooks=hooks)
    client.buffer.record("a", "requests", 1, event_id="e1")
asyncio.run(main())
"""


def test_what_a_loop_left_is_told(fake: FakeSidecar) -> None:
    """What a client for asyncio still holds when the process ends is not dropped in silence."""
    with _program(LEFT_OPEN, fake.address) as program:
        told, errors = program.communicate(timeout=PROGRAM_S)
    assert told == "e1 Closed\n"
    assert "1 events that were not sent" in errors


async def test_a_request_refused_as_a_whole(make: Make, fake: FakeSidecar) -> None:
    """One event at fault for a whole request is found, and its neighbours arrive."""

    def answer(request: Any, context: Any) -> Any:
        if any(each.event_id == "bad" for each in request.requests):
            return refuses(grpc.StatusCode.INVALID_ARGUMENT)(request, context)
        return fake._BatchRecordUsage(request, context)

    fake.script("BatchRecordUsage", *[answer] * 20)
    client = make(buffer=tg.BufferOptions(flush_ms=60_000))
    for each in ("a", "b", "bad", "c"):
        client.buffer.record("t", "requests", 1, event_id=each)
    assert await now(client.buffer.flush(20))
    assert set(fake.events) == {"a", "b", "c"}
    assert client.stats().rejected == 1


def _program(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program that has the client."""
    folder = str(Path(__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": folder},
    )
