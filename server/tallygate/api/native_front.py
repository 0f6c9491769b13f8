"""One address of the native transport: its calls from their arrival to their end.

Guarantees: each call let in is counted out once, however it ends; all of it happens on the event
loop's thread.
Refuses to know: HTTP/2, and what methods do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, cast

from google.protobuf.message import DecodeError
from pygrpc_native import EVENT_CALL, EVENT_CANCEL, NativeGrpcFront

from tallygate.api.batched import Call
from tallygate.api.edge import HOPELESS_S, LONGEST_S, OK, Edge, Method
from tallygate.api.native_arrivals import (
    Arrivals,
    ByDescriptor,
    ByThread,
    Event,
    PatchedFront,
)
from tallygate.api.native_context import Aborted, CallerGone, Details, NativeContext
from tallygate.api.status import (
    DeadlinePassed,
    MalformedMessage,
    MessageTooLarge,
    Refusal,
    refusal,
)
from tallygate.domain.errors import Draining, Overloaded, TallygateError

# How late a call may be ended whose time is over: callers with a clock of their own do not wait.
SWEEP_S: Final = 0.02
# For answers that are on their way when the front closes.
FLUSH_S: Final = 0.05
FOREVER: Final = float("inf")
PUSHBACK: Final = "grpc-retry-pushback-ms"
# Calls that come without their message: there were too many of them ...
EVENT_FULL: Final = 2
# ... or it did not come in time, is too large, or is none.
WITHOUT_MESSAGE: Final[dict[int, type[TallygateError]]] = {
    3: DeadlinePassed,
    4: MessageTooLarge,
    5: MalformedMessage,
}


@dataclass(frozen=True, slots=True)
class FrontOptions:
    """The methods by number, the largest message, what the front can, if batches are `bare`."""

    methods: Sequence[Method]
    message_bytes_max: int
    # Whether the front is ours, with all that `PatchedFront` has, and lets a pushback through.
    patched: bool
    bare: bool


class OpenCall:
    """A call that is not answered yet."""

    __slots__ = ("ends_at", "method", "size", "started", "task")

    def __init__(self, method: Method, size: int, started: float, ends_at: float) -> None:
        self.method = method
        self.size = size
        self.started = started
        self.ends_at = ends_at
        self.task: asyncio.Task[None] | None = None


class Front:
    """Answers the calls of one address; an `Answering` for methods that take batches."""

    def __init__(self, native: NativeGrpcFront, options: FrontOptions, edge: Edge) -> None:
        self._native = native
        self._options = options
        self._edge = edge
        self._gate = edge.gate
        self._open: dict[int, OpenCall] = {}
        self._arrivals: Arrivals = ByThread(native)
        self._respond_many = self._respond_each
        if options.patched:
            # Said of the published front's type as well, which lacks it.
            patched = cast(PatchedFront, native)
            self._arrivals = ByDescriptor(patched)
            self._respond_many = patched.respond_many
        # Answers of this turn of the loop: what goes out together is written together.
        self._answers: list[tuple[int, bytes]] = []
        self._done: list[OpenCall] = []
        self._default_s = edge.options.default_deadline_s
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def start(self, behind: str) -> None:
        """Take calls; those of methods it does not know go to the socket behind it."""
        self._native.set_fallback(behind)
        self._native.start()
        self._arrivals.start(self._take)

    async def stop(self, grace_s: float) -> None:
        """Wait so long for the calls inside, end the others, and close."""
        for number, call in [*self._open.items()]:
            if not call.method.edged:
                self._cut(number)
        try:
            async with asyncio.timeout(grace_s):
                while self._open:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            for number in [*self._open]:
                self._cut(number)
            await asyncio.sleep(FLUSH_S)
        if self._sweep is not None:
            self._sweep.cancel()
        self._answer()
        await self._arrivals.stop()

    def end_streams(self) -> None:
        """End the product's streams as UNAVAILABLE: they would not end by themselves."""
        for number, call in [*self._open.items()]:
            if call.method.streams and call.method.edged:
                self._cut(number)

    def respond(self, call: int, reply: bytes) -> None:
        """Answer a call with an encoded reply."""
        ended = self._open.pop(call, None)
        if ended is None:
            return
        if len(reply) > self._options.message_bytes_max:
            self._send(call, refusal(MessageTooLarge()))
            self._count_out([ended], "RESOURCE_EXHAUSTED")
            return
        if not self._answers:
            self._loop.call_soon(self._answer)
        self._answers.append((call, reply))
        self._done.append(ended)

    def _answer(self) -> None:
        """Send the answers of a turn, and count their calls out."""
        answers, self._answers = self._answers, []
        done, self._done = self._done, []
        if answers:
            self._respond_many(answers)
            self._count_out(done, OK)

    def _respond_each(self, answers: Sequence[tuple[int, bytes]]) -> None:
        for call, reply in answers:
            self._native.respond(call, reply)

    def fail(self, call: int, error: Exception) -> None:
        """Answer a call with the status of an error."""
        ended = self._open.pop(call, None)
        if ended is not None:
            answer = self._edge.answer(ended.method, error)
            self._send(call, answer)
            self._count_out([ended], answer.code.name)

    def waits(self, call: int) -> bool:
        """Say whether its caller still waits."""
        return call in self._open

    def _take(self) -> None:
        """Let calls in and begin them; those of one method that takes batches, all at once."""
        now = self._loop.time()
        batches: dict[int, list[Call]] = {}
        methods, bare, collected = self._options.methods, self._options.bare, 0
        for event in self._arrivals.taken():
            if event[0] == EVENT_CALL:
                method = methods[event[2]]
                if bare and method.batch is not None:
                    collected += self._collect(event, method, now, batches)
                else:
                    self._admit(event, method, now, batches)
            elif event[0] == EVENT_CANCEL:
                self._vanished(event[1], now)
            else:
                self._refuse(event, now)
        if collected:
            self._edge.observer.calls_started(collected)
        for index, calls in batches.items():
            batch = self._options.methods[index].batch
            assert batch is not None
            try:
                batch(calls, self)
            except Exception as error:  # noqa: BLE001  a defect must not leave callers waiting
                for number, _, _ in calls:
                    self.fail(number, error)
        if self._sweep is None and self._open:
            self._sweep = self._loop.call_later(SWEEP_S, self._end_late)

    def _collect(
        self, event: Event, method: Method, now: float, batches: dict[int, list[Call]]
    ) -> int:
        """Let a call of a method that takes batches in, where nothing is the matter with it.

        Return how many calls were, for the caller to count. By far the most calls come here.
        """
        _, number, index, data, _, remaining = event
        gate = self._gate
        assert data is not None
        size = len(data)
        if (
            not gate.open
            or gate.inside >= gate.calls_max
            or gate.bytes + size > gate.bytes_max
            or size > self._options.message_bytes_max
            or (remaining is not None and not HOPELESS_S < remaining < LONGEST_S)
        ):
            self._admit((*event[:5], (None, None, remaining)), method, now, batches)
            return 0
        gate.came += 1
        gate.inside += 1
        gate.bytes += size
        ends_at = now + (self._default_s if remaining is None else remaining)
        self._open[number] = OpenCall(method, size, now, ends_at)
        calls = batches.get(index)
        if calls is None:
            batches[index] = [(number, data, ends_at)]
        else:
            calls.append((number, data, ends_at))
        return 1

    def _admit(
        self, event: Event, method: Method, now: float, batches: dict[int, list[Call]]
    ) -> None:
        _, number, index, data, _, details = event
        gate, edge = self._gate, self._edge
        assert data is not None
        size, remaining = len(data), details[2]
        if not method.edged:
            self._begin(number, OpenCall(method, 0, now, FOREVER), data, details)
            return
        gate.came += 1
        if not gate.open or gate.full:
            self._send(number, edge.shed())
            return
        edge.observer.calls_started(1)
        gate.inside += 1
        if remaining is None:
            ends_at = FOREVER if method.streams else now + edge.options.default_deadline_s
        else:
            ends_at = now + min(remaining, LONGEST_S)
        self._open[number] = opened = OpenCall(method, 0, now, ends_at)
        if remaining is not None and remaining <= HOPELESS_S:
            self.fail(number, DeadlinePassed())
        elif size > self._options.message_bytes_max:
            self.fail(number, MessageTooLarge())
        elif not gate.takes(size):
            self.fail(number, Overloaded())
        else:
            opened.size = size
            gate.bytes += size
            if method.batch is None:
                self._begin(number, opened, data, details)
            elif index in batches:
                batches[index].append((number, data, ends_at))
            else:
                batches[index] = [(number, data, ends_at)]

    def _refuse(self, event: Event, now: float) -> None:
        """Answer a call whose message was not read to its end."""
        kind, number, index = event[:3]
        gate, edge = self._gate, self._edge
        gate.came += 1
        if kind == EVENT_FULL or not gate.open:
            self._send(number, edge.shed())
            return
        method = self._options.methods[index]
        if method.edged:
            edge.observer.calls_started(1)
            gate.inside += 1
        self._open[number] = OpenCall(method, 0, now, FOREVER)
        self.fail(number, WITHOUT_MESSAGE[kind]())

    def _begin(self, number: int, opened: OpenCall, data: bytes, details: Details) -> None:
        self._open[number] = opened
        work = self._streamed if opened.method.handler.response_streaming else self._answered
        opened.task = self._loop.create_task(
            self._guarded(work(number, opened, data, details), number)
        )

    async def _guarded(self, work: Any, number: int) -> None:  # noqa: ANN401
        try:
            await work
        except Aborted as ended:
            self._end(number, ended.refusal)
        except CallerGone:
            self._vanished(number, self._loop.time())
        except asyncio.CancelledError:
            # Whoever cancels has answered before; but a loop that ends cancels everything.
            self._cut(number)
            raise
        except Exception as error:  # noqa: BLE001  the edge is where everything ends
            self.fail(number, error)

    async def _answered(self, number: int, opened: OpenCall, data: bytes, details: Details) -> None:
        handler = cast(Any, opened.method.handler)
        behaviour = handler.unary_unary
        reply = await behaviour(_decoded(handler, data), self._context(number, opened, details))
        self.respond(number, handler.response_serializer(reply))

    async def _streamed(self, number: int, opened: OpenCall, data: bytes, details: Details) -> None:
        handler = opened.method.handler
        behaviour = cast(Any, handler.unary_stream)
        context = self._context(number, opened, details)
        sending = behaviour(_decoded(handler, data), context)
        if hasattr(sending, "__aiter__"):
            async with aclosing(sending) as messages:
                async for message in messages:
                    await context.write(message)
        else:
            await sending
        ended = self._open.pop(number, None)
        if ended is not None:
            self._native.stream_end(number)
            self._count_out([ended], OK)

    def _context(self, number: int, opened: OpenCall, details: Details) -> NativeContext:
        return NativeContext(
            self._native,
            number,
            details,
            ends_at=None if details[2] is None else opened.ends_at,
            encode=cast(Any, opened.method.handler.response_serializer),
        )

    def _vanished(self, number: int, now: float) -> None:
        """Forget a call whose caller has gone, or has been told that its time is over."""
        ended = self._open.pop(number, None)
        if ended is not None:
            if ended.task is not None:
                ended.task.cancel()
            code = "DEADLINE_EXCEEDED" if now >= ended.ends_at else "CANCELLED"
            self._count_out([ended], code)

    def _end_late(self) -> None:
        """End the calls whose time is over: one timer for all, as a timer each would cost each."""
        now = self._loop.time()
        late = [number for number, call in self._open.items() if call.ends_at <= now]
        for number in late:
            task = self._open[number].task
            self.fail(number, DeadlinePassed())
            if task is not None:
                task.cancel()
        self._sweep = self._loop.call_later(SWEEP_S, self._end_late) if self._open else None

    def _cut(self, number: int) -> None:
        """End a call because the service stops."""
        call = self._open.get(number)
        if call is not None:
            self.fail(number, Draining())
            if call.task is not None and call.task is not asyncio.current_task():
                call.task.cancel()

    def _end(self, number: int, answer: Refusal) -> None:
        ended = self._open.pop(number, None)
        if ended is not None:
            self._send(number, answer)
            self._count_out([ended], answer.code.name)

    def _send(self, number: int, answer: Refusal) -> None:
        trailers = answer.trailers
        if not self._options.patched:
            # It refuses the name as one of the transport's own. RetryInfo says the same.
            trailers = tuple(pair for pair in trailers if pair[0] != PUSHBACK)
        self._native.fail(number, answer.code.value[0], answer.message, trailers)

    def _count_out(self, ended: Sequence[OpenCall], code: str) -> None:
        gate, now = self._gate, self._loop.time()
        seconds: dict[str, list[float]] = {}
        for each in ended:
            if each.method.edged:
                gate.bytes -= each.size
                gate.inside -= 1
                name = each.method.name
                if name in seconds:
                    seconds[name].append(now - each.started)
                else:
                    seconds[name] = [now - each.started]
        for name, some in seconds.items():
            self._edge.observer.calls_ended(name, code, some)
        if not self._open:
            self._emptied.set()


def _decoded(handler: Any, data: bytes) -> Any:  # noqa: ANN401  a handler's own kind
    try:
        return handler.request_deserializer(data)
    except DecodeError:
        # Without its cause, which would quote bytes that a caller chose into the log.
        raise MalformedMessage from None
