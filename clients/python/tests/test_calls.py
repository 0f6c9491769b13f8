"""What calls send, answer and raise, alike in threads and in asyncio."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_sidecar import FakeSidecar, answers, item_error, refuses
from google.protobuf import duration_pb2, timestamp_pb2

import tallygate_client as tg
from conformance_words import now
from tallygate_client.channels import service_config
from tallygate_client.gen.v1 import limit_pb2, quota_pb2, usage_pb2

Make = Callable[..., Any]

WRONG: Any = {"k": 7}
KINDS = [
    (grpc.StatusCode.INVALID_ARGUMENT, tg.InvalidRequest),
    (grpc.StatusCode.OUT_OF_RANGE, tg.InvalidRequest),
    (grpc.StatusCode.UNAVAILABLE, tg.Unavailable),
    (grpc.StatusCode.CANCELLED, tg.Unavailable),
    (grpc.StatusCode.DEADLINE_EXCEEDED, tg.DeadlineExceeded),
    (grpc.StatusCode.UNAUTHENTICATED, tg.Unauthenticated),
    (grpc.StatusCode.PERMISSION_DENIED, tg.PermissionDenied),
    (grpc.StatusCode.NOT_FOUND, tg.NotFound),
    (grpc.StatusCode.FAILED_PRECONDITION, tg.FailedPrecondition),
    (grpc.StatusCode.ALREADY_EXISTS, tg.FailedPrecondition),
    (grpc.StatusCode.ABORTED, tg.FailedPrecondition),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, tg.ResourceExhausted),
    (grpc.StatusCode.INTERNAL, tg.Internal),
    (grpc.StatusCode.UNIMPLEMENTED, tg.Internal),
]


async def test_a_decision_is_read_whole(make: Make, fake: FakeSidecar) -> None:
    """Every field of a reply reaches the caller, times with their zone, enums by name."""
    status = limit_pb2.LimitStatus(
        limit_id="monthly",
        state=limit_pb2.LIMIT_STATE_WARNING,
        used=9,
        limit=10,
        remaining=1,
        resets_at=timestamp_pb2.Timestamp(seconds=60),
        meter="requests",
        tenant_id="acme",
        scope="model=x",
    )
    reply = quota_pb2.CheckAndConsumeResponse(
        limits=[status],
        refused_by="monthly",
        retry_after=duration_pb2.Duration(seconds=1, nanos=500_000_000),
        replayed=True,
        degraded=True,
    )
    fake.script("CheckAndConsume", answers(reply))
    item = tg.Item("requests", 3, {"model": "x"})
    context = tg.Context(subject_id="u1")
    told = await now(make().check_and_consume("acme", [item], operation_id="op", context=context))
    assert told == tg.Decision(
        allowed=False,
        limits=(
            tg.LimitStatus(
                "monthly",
                "requests",
                tg.LimitState.WARNING,
                9,
                10,
                1,
                datetime(1970, 1, 1, 0, 1, tzinfo=timezone.utc),
                "acme",
                "model=x",
                unlimited=False,
            ),
        ),
        refused_by="monthly",
        retry_after=1.5,
        replayed=True,
        degraded=True,
        operation_id="op",
    )
    (request,) = fake.seen["CheckAndConsume"]
    assert request.items[0].dimensions == {"model": "x"}
    assert (request.context.subject_id, request.context.sdk) == (
        "u1",
        f"tallygate-python/{tg.__version__}",
    )


async def test_every_call_has_an_id_of_its_own(make: Make, fake: FakeSidecar) -> None:
    """A call that is given no id has a random one, which is in its answer."""
    client = make()
    told = [await now(client.check_and_consume("a", {"requests": 1})) for _ in range(2)]
    sent = [each.operation_id for each in fake.seen["CheckAndConsume"]]
    assert [each.operation_id for each in told] == sent
    assert len(set(sent)) == 2


@pytest.mark.parametrize(("code", "kind"), KINDS)
async def test_errors_are_of_their_kind(
    make: Make, fake: FakeSidecar, code: grpc.StatusCode, kind: type[tg.TallygateError]
) -> None:
    """Each status is the error that tells what to do, with all that the service said."""
    refused = refuses(code, reason="WHY", fields=["items[0].meter", "other"], retry_s=2)
    fake.script("CheckAndConsume", refused)
    with pytest.raises(tg.TallygateError) as caught:
        await now(make().check_and_consume("a", {"requests": 1}, operation_id="op"))
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.reason, error.field) == (code.name, "WHY", "items[0].meter")
    assert (error.retry_after, error.operation_id) == (2.0, "op")
    assert error.message == "as scripted"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again)) == (kind, vars(error))


@pytest.mark.parametrize(
    ("items", "field"),
    [
        ({"requests": 1.5}, "items[0].amount"),
        ({"requests": True}, "items[0].amount"),
        ({"requests": 2**63}, "items[0].amount"),
        ({7: 1}, "items[0].meter"),
        ([tg.Item("a", 1), tg.Item("b", 1, WRONG)], "items[1].dimensions[k]"),
    ],
)
async def test_what_cannot_be_sent_names_its_field(make: Make, items: Any, field: str) -> None:
    """What no message can hold is refused as the service would refuse it, before it is sent."""
    with pytest.raises(tg.InvalidRequest) as caught:
        await now(make().check_and_consume("a", items))
    assert (caught.value.field, caught.value.reason) == (field, "INVALID_FIELD")


async def test_time_without_a_zone_is_refused(make: Make) -> None:
    """A time that may be anybody's is refused by its field."""
    naive = datetime(2026, 1, 1)  # noqa: DTZ001
    with pytest.raises(tg.InvalidRequest, match="event_time"):
        await now(make().record("a", "requests", 1, event_time=naive))


async def test_unknown_options_are_refused(make: Make) -> None:
    """A misspelt option is an error, not ignored."""
    with pytest.raises(TypeError, match="operation"):
        await now(make().check_and_consume("a", {"requests": 1}, operation="x"))


async def test_closed_policy_raises_and_counts(make: Make, fake: FakeSidecar) -> None:
    """Without an answer the default is an error, counted by method and told to the hook."""
    told: list[Any] = []
    hooks = tg.Hooks(
        on_local=lambda *each: told.append(each),
        on_call=lambda method, code, _: told.append((method, code)),
    )
    client = make(hooks=hooks)
    fake.script("Check", refuses(grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(tg.Unavailable):
        await now(client.check("a", {"requests": 1}))
    assert told == [("Check", "UNAVAILABLE"), ("Check", "closed")]
    stats = client.stats()
    assert (stats.calls, stats.errors, stats.local_closed) == (1, 1, 1)
    assert stats.local_closed_by == {"Check": 1}


@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"])
async def test_open_policy_lets_pass(make: Make, fake: FakeSidecar, code: str) -> None:
    """Without an answer the open policy lets charges, questions and reservations pass."""
    client = make(on_absent="open")
    for method in ("CheckAndConsume", "Check", "Reserve"):
        fake.script(method, refuses(grpc.StatusCode[code]))
    charged = await now(client.check_and_consume("a", {"requests": 1}))
    asked = await now(client.check("a", {"requests": 1}))
    held = await now(client.reserve("a", {"requests": 1}))
    assert all(each.allowed and each.local for each in (charged, asked, held))
    assert (await now(held.commit())).outcome is tg.Outcome.COMMITTED
    assert client.stats().local_open_by == {"CheckAndConsume": 1, "Check": 1, "Reserve": 1}
    assert not fake.seen["Commit"]


async def test_open_policy_answers_for_nothing_else(make: Make, fake: FakeSidecar) -> None:
    """A fault of the request is the caller's, and reading has no policy."""
    client = make(on_absent="open")
    fake.script("CheckAndConsume", refuses(grpc.StatusCode.INVALID_ARGUMENT))
    with pytest.raises(tg.InvalidRequest):
        await now(client.check_and_consume("a", {"requests": 1}))
    fake.script("GetQuota", refuses(grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(tg.Unavailable):
        await now(client.quota("a"))
    assert client.stats().local_open == 0


async def test_what_was_let_pass_is_recorded(make: Make, fake: FakeSidecar) -> None:
    """With a buffer, what was let pass is recorded under the ids that the service would give."""
    client = make(on_absent="open", buffer=tg.BufferOptions(flush_ms=0))
    fake.script("CheckAndConsume", refuses(grpc.StatusCode.UNAVAILABLE))
    items = [tg.Item("requests", 2), tg.Item("tokens", 3, {"model": "x"})]
    told = await now(client.check_and_consume("a", items, operation_id="op"))
    assert told.event_ids == ("op:0", "op:1")
    assert await now(client.buffer.flush(20))
    event = fake.events["op:1"]
    assert (event.meter, event.amount, dict(event.dimensions)) == ("tokens", 3, {"model": "x"})
    assert event.operation_id == "op:1"
    assert event.HasField("event_time")


async def test_what_cannot_be_recorded_does_not_pass(make: Make, fake: FakeSidecar) -> None:
    """With a full buffer the open policy is closed: nothing is given away."""
    client = make(on_absent="open", buffer=tg.BufferOptions(max_events=1))
    fake.script("CheckAndConsume", refuses(grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(tg.Unavailable):
        await now(client.check_and_consume("a", {"requests": 1, "tokens": 1}))
    stats = client.stats()
    assert (stats.local_closed, stats.local_open, stats.refused_full) == (1, 0, 2)


async def test_lists_part_ways(make: Make, fake: FakeSidecar) -> None:
    """Each of a list is answered by itself, an error in its place."""
    accepted = usage_pb2.BatchRecordUsageResult(
        response=usage_pb2.RecordUsageResponse(event_id="e1")
    )
    refused = item_error("UNKNOWN_METER", grpc.StatusCode.NOT_FOUND)
    reply = usage_pb2.BatchRecordUsageResponse(results=[accepted, refused])
    fake.script("BatchRecordUsage", answers(reply))
    usages = [tg.Usage("a", "requests", 1, event_id=each) for each in ("e1", "e2")]
    told, error = await now(make().batch_record(usages))
    assert told.event_id == "e1"
    assert (type(error), error.reason, error.operation_id) == (tg.NotFound, "UNKNOWN_METER", "e2")


async def test_a_closed_client_says_so(make: Make, fake: FakeSidecar) -> None:
    """After its end a client refuses; closing it twice is closing it."""
    client = make()
    await now(client.check("a", {"requests": 1}))
    assert await now(client.close())
    assert await now(client.close())
    with pytest.raises(tg.Closed):
        await now(client.check("a", {"requests": 1}))


async def test_closing_ends_what_is_under_way(make: Make, fake: FakeSidecar) -> None:
    """A call that is under way when the client is closed ends as closed, and nothing passes."""
    client = make(on_absent="open")
    done = threading.Event()
    fake.script("Check", lambda _, __: done.wait(30) and None)

    async def close() -> None:
        await asyncio.to_thread(fake.wait_for, "Check", 1)
        await now(client.close())

    def check() -> Any:
        return client.check("a", {"requests": 1})

    calling = check() if isinstance(client, tg.AsyncClient) else asyncio.to_thread(check)
    try:
        with pytest.raises(tg.Closed):
            await asyncio.gather(calling, close())
    finally:
        done.set()


async def test_a_hook_that_fails_breaks_nothing(make: Make) -> None:
    """What a hook raises is not the call's."""

    def fail(*_: object) -> None:
        raise RuntimeError("mine")

    client = make(hooks=tg.Hooks(on_call=fail))
    assert (await now(client.check("a", {"requests": 1}))).allowed


async def test_a_watch_is_opened_anew(make: Make, fake: FakeSidecar) -> None:
    """A watch that breaks begins anew with a snapshot; closing the client ends it."""
    client = make()
    fake.script("WatchQuota", refuses(grpc.StatusCode.UNAVAILABLE))
    causes = []
    if isinstance(client, tg.Client):
        for change in client.watch("a"):
            causes.append(change.cause)
            client.close()
    else:
        async for change in client.watch("a"):
            causes.append(change.cause)
            await client.close()
    assert causes == [tg.WatchCause.SNAPSHOT]
    assert len(fake.seen["WatchQuota"]) == 2


async def test_a_watch_of_nothing_is_refused(make: Make, fake: FakeSidecar) -> None:
    """What no new stream cures is the caller's to hear."""
    client = make()
    fake.script("WatchQuota", refuses(grpc.StatusCode.NOT_FOUND, reason="UNKNOWN_TENANT"))
    watch = client.watch("a")
    first = next if isinstance(client, tg.Client) else anext
    with pytest.raises(tg.NotFound):
        await now(first(watch))


def test_a_token_ends_calls(fake: FakeSidecar) -> None:
    """A thread's call is ended by its token, also when that was used before; nothing passes."""
    done = threading.Event()
    fake.script("Check", lambda _, __: done.wait(30) and None)
    cancel = tg.Cancellation()

    def cancel_it() -> None:
        fake.wait_for("Check", 1)
        cancel.cancel()

    with tg.Client(fake.address, timeout=20, on_absent="open") as client:
        waiting = threading.Thread(target=cancel_it)
        waiting.start()
        for _ in range(2):
            with pytest.raises(tg.Cancelled):
                client.check("a", {"requests": 1}, cancel=cancel)
        waiting.join()
        done.set()
        assert client.stats().local_open == 0


async def test_a_cancelled_task_is_cancelled(fake: FakeSidecar) -> None:
    """A task's cancellation goes through, whatever the policy is."""
    done = threading.Event()
    fake.script("Check", lambda _, __: done.wait(30) and None)
    async with tg.AsyncClient(fake.address, timeout=20, on_absent="open") as client:
        task = asyncio.ensure_future(client.check("a", {"requests": 1}))
        await asyncio.to_thread(fake.wait_for, "Check", 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        done.set()
        assert client.stats().local_open == 0


async def test_a_task_takes_no_token(fake: FakeSidecar) -> None:
    """What would be ignored is refused."""
    async with tg.AsyncClient(fake.address) as client:
        with pytest.raises(TypeError, match="cancel"):
            await client.check("a", {"requests": 1}, cancel=tg.Cancellation())


async def test_two_loops_at_once_are_refused(fake: FakeSidecar) -> None:
    """A client for asyncio says so when a second loop uses it while the first goes on."""
    async with tg.AsyncClient(fake.address, timeout=20) as client:
        await client.check("a", {"requests": 1})
        with pytest.raises(RuntimeError, match="one event loop"):
            await asyncio.to_thread(asyncio.run, client.check("a", {"requests": 1}))


def test_the_service_config_is_everybodys() -> None:
    """The retries are those that every client of every language has."""
    shared = Path(__file__).parents[2] / "service_config.json"
    assert json.loads(shared.read_text("utf-8")) == json.loads(service_config())


@pytest.mark.parametrize(
    "options",
    [{"timeout": 0}, {"on_absent": "ajar"}, {"tls": {"key": b"x"}}, {"buffer": {"batch": 0}}],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    """An option that makes no sense is refused when the client is made."""
    with pytest.raises(ValueError, match=r"timeout|on_absent|key|batch"):
        tg.Client(
            **{
                name: {"tls": tg.Tls, "buffer": tg.BufferOptions}[name](**value)
                if isinstance(value, dict)
                else value
                for name, value in options.items()
            }
        )


def test_the_target_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a target the environment names it, and without that it is the sidecar's default."""
    monkeypatch.setenv("TALLYGATE_TARGET", "unix:///run/tallygate.sock")
    assert tg.Client().target == "unix:///run/tallygate.sock"
    monkeypatch.delenv("TALLYGATE_TARGET")
    assert tg.Client().target == "127.0.0.1:50051"
