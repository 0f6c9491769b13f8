"""Latency at a fixed rate is counted from the schedule, so that a server that stalls shows."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc

from bench.http2 import Requests, grpc_frame, header_blocks
from bench.open_loop import Met, Schedule, drive, merged, quantile, unframed

METHOD = "bench.Stalling/Call"
RATE = 500
CALLS = 500
STALL_S = 0.2
ANSWER = b"an answer"

Behaviour = Callable[[bytes], Awaitable[bytes]]


@asynccontextmanager
async def served(behaviour: Behaviour) -> AsyncIterator[int]:
    """Serve one method by grpc.aio; lend its port."""

    async def answer(message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            return await behaviour(message)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    generic = grpc.method_handlers_generic_handler("bench.Stalling", {"Call": handler})
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def met(behaviour: Behaviour, messages: list[bytes], rate: float = RATE) -> Met:
    """Call it on schedule."""
    async with served(behaviour) as port:
        schedule = Schedule(port, METHOD, rate, CALLS, connections=2)
        return await asyncio.to_thread(drive, schedule, messages)


async def test_a_stall_shows_in_every_call_that_it_met() -> None:
    """200 ms in which nothing is answered cost all calls due meanwhile what is left of them."""
    calls, goes_on = 0, asyncio.Event()
    goes_on.set()

    async def stalling(_: bytes) -> bytes:
        nonlocal calls
        calls += 1
        if calls == CALLS // 2:
            goes_on.clear()
            asyncio.get_running_loop().call_later(STALL_S, goes_on.set)
        await goes_on.wait()
        return ANSWER

    found = await met(stalling, [b"a call"])

    assert (found.failed, found.unanswered, len(found.latencies_us)) == (0, 0, CALLS)
    assert found.within_us(0.999) >= STALL_S * 0.9e6
    # Half of the calls due in the stall waited for half of it or more: one who had waited for its
    # answer before calling again would have seen a single one.
    slow = [each for each in found.latencies_us if each >= STALL_S / 2 * 1e6]
    assert len(slow) >= RATE * STALL_S / 2 * 0.9


async def test_every_call_arrives_with_its_message() -> None:
    """Messages are sent in their turn, over all connections, each as it was given."""
    came: list[bytes] = []

    async def keeping(message: bytes) -> bytes:
        came.append(message)
        return ANSWER

    messages = [b"call %d" % number for number in range(CALLS)]
    found = await met(keeping, messages, rate=1e6)

    assert sorted(came) == sorted(messages)
    assert found.failed == 0


async def test_errors_are_counted() -> None:
    """A call that ends with a status and no message has failed."""
    calls = 0

    async def failing(_: bytes) -> bytes:
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            raise ValueError("every fifth")
        return ANSWER

    found = await met(failing, [b"a call"], rate=1e6)

    assert found.failed == CALLS // 5
    assert found.unanswered == 0


async def test_what_is_never_answered_counts_with_its_wait() -> None:
    """A call without an answer is no missing figure: it has waited until the end."""
    never = asyncio.Event()

    async def silent(_: bytes) -> bytes:
        await never.wait()
        return ANSWER

    async with served(silent) as port:
        schedule = Schedule(port, METHOD, 1e6, 10, connections=1, grace_s=0.2)
        found = await asyncio.to_thread(drive, schedule, [b"a call"])
        never.set()

    assert (found.unanswered, len(found.latencies_us)) == (10, 10)
    assert found.within_us(0.5) >= 0.2e6 * 0.9


async def test_calls_at_once_are_bounded_where_asked() -> None:
    """With a bound on what is in flight the open loop becomes a closed one."""
    inside, most, answered = 0, 0, 0
    full = asyncio.Event()

    async def counting(_: bytes) -> bytes:
        nonlocal inside, most, answered
        inside += 1
        most = max(most, inside)
        # The first are answered when both connections hold as many as they may: with fewer, nobody
        # would ever be.
        if inside == 6:
            full.set()
        await full.wait()
        await asyncio.sleep(0)
        inside -= 1
        answered += 1
        return ANSWER

    async with served(counting) as port:
        schedule = Schedule(port, METHOD, 1e6, CALLS, connections=2, in_flight_max=3)
        found = await asyncio.to_thread(drive, schedule, [b"a call"])

    assert (found.failed, found.unanswered, answered) == (0, 0, CALLS)
    assert most == 6


def test_later_calls_name_their_fields_by_place() -> None:
    """A connection's first call carries its fields, the others six bytes of them."""
    first, later = header_blocks("127.0.0.1:1", METHOD)
    assert METHOD.encode() in first
    assert len(later) == 6
    requests = Requests("127.0.0.1:1", METHOD, [b"one", b"two!"])
    assert bytes(requests.bytes[: requests.ends[1]]).endswith(b"one")
    assert bytes(requests.bytes).endswith(b"two!")


def test_a_file_of_frames_is_read_as_it_was_written() -> None:
    """Frames one after another are told apart by their lengths."""
    messages = [b"", b"a", b"bc" * 300]
    assert unframed(b"".join(map(grpc_frame, messages))) == messages


def test_runs_are_one_in_their_quantiles() -> None:
    """Repeats are put together call by call; nothing is averaged."""
    parts = [Met([1, 2, 3], [0], 1, 0, 1.0), Met([2, 9], [5], 0, 1, 1.0)]
    whole = merged(parts)
    assert whole.latencies_us == [1, 2, 2, 3, 9]
    assert (whole.failed, whole.unanswered, whole.late_us) == (1, 1, [0, 5])
    assert [quantile(whole.latencies_us, share) for share in (0.0, 0.5, 0.999)] == [1, 2, 9]
    assert quantile([], 0.5) == 0
