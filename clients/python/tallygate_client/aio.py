"""The client for asyncio: the same calls, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from . import requests, results
from .aio_buffer import AsyncBuffer
from .aio_reservation import AsyncReservation, Reserving
from .arguments import charge_of, quota_of, reserve_of, usage_of, watch_of
from .calls import METHODS, Call, Flow, proceed
from .channels import async_channel
from .configured import NO_BUFFER, Configured
from .errors import Closed, TallygateError, Unavailable
from .held import committing, extending_call, releasing_call
from .results import (
    Decision,
    Excess,
    Extension,
    Quota,
    QuotaChange,
    Recorded,
    Refunded,
    Settlement,
)
from .values import Charge, Items, Usage
from .watching import Watching

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .values import (
        CallOptions,
        ChargeOptions,
        CheckOptions,
        CommitOptions,
        ReadOptions,
        RecordOptions,
        RefundOptions,
        ReleaseOptions,
        ReserveOptions,
    )

T = TypeVar("T")


class AsyncClient(Configured):
    """A client of one sidecar, for one event loop: the one in which it is first used.

    `await close()`, or leaving it as an asynchronous context manager, ends it. A task that is
    cancelled cancels its call.
    """

    def _open(self) -> None:
        self._channel: grpc.aio.Channel | None = None
        self._callables: dict[str, Any] = {}
        self._ended: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        options = self._options.buffer
        self._buffer = AsyncBuffer(self._core, options, self.send) if options is not None else None
        self._core.intake = self._buffer

    @property
    def buffer(self) -> AsyncBuffer:
        """What records without waiting, where the client was made with a `buffer`."""
        if self._buffer is None:
            raise RuntimeError(NO_BUFFER)
        return self._buffer

    async def check_and_consume(
        self, tenant: str, items: Items, **options: Unpack[ChargeOptions]
    ) -> Decision:
        """Ask, and charge all items if every limit allows; a refusal is a `Decision` too.

        Raises:
            Unavailable, DeadlineExceeded: nobody answered, and the policy is `closed`.
            TallygateError: any of its other kinds.
        """
        charge, rest = charge_of(tenant, items, options)
        return await self.send(self._core.check_and_consume(charge, **rest))

    async def batch_check_and_consume(
        self, charges: Iterable[Charge], **options: Unpack[CallOptions]
    ) -> list[Decision | TallygateError]:
        """Charge each of a list by itself; give one decision or error for each, in order."""
        return await self.send(self._core.batch_check_and_consume(list(charges), **options))

    async def check(self, tenant: str, items: Items, **options: Unpack[CheckOptions]) -> Decision:
        """Ask without charging; it promises nothing about the next moment."""
        context = options.pop("context", None)
        return await self.send(self._core.check(requests.check(tenant, items, context), **options))

    def reserve(self, tenant: str, items: Items, **options: Unpack[ReserveOptions]) -> Reserving:
        """Hold units for work whose cost is not known yet.

        Enter it with `async with` and it settles itself; or await it, look at `allowed`, then
        commit or release.
        """
        excess = options.pop("excess", Excess.RECORD)
        request, rest = reserve_of(tenant, items, options)
        return Reserving(self, self._core, self._core.reserve(request, **rest), excess)

    async def hold(
        self, tenant: str, items: Items, **options: Unpack[ReserveOptions]
    ) -> AsyncReservation:
        """Reserve and keep alive until it is settled, wherever and in whichever task that is.

        Raises:
            QuotaExceeded: it was refused.
        """
        held = await self.reserve(tenant, items, **options)
        held.require()
        held.keep()
        return held

    async def commit(
        self,
        tenant: str,
        reservation_id: str,
        amounts: Iterable[int] = (),
        **options: Unpack[CommitOptions],
    ) -> Settlement:
        """Settle a reservation by its id; no `amounts` are what was reserved."""
        excess = options.pop("excess", Excess.ASK)
        name = options.pop("operation_id", "") or requests.commit_id_of(reservation_id)
        request = requests.commit(tenant, reservation_id, list(amounts), name, excess)
        return await self.follow(committing(self._core, request, None, options))

    async def release(
        self, tenant: str, reservation_id: str, **options: Unpack[ReleaseOptions]
    ) -> Settlement:
        """Give a reservation back by its id."""
        name = options.pop("operation_id", "") or requests.new_id()
        request = requests.release(tenant, reservation_id, name)
        return await self.send(releasing_call(request, options))

    async def extend(
        self,
        tenant: str,
        reservation_id: str,
        ttl: float | None = None,
        **options: Unpack[CallOptions],
    ) -> Extension:
        """Move a reservation's end to `ttl` seconds from now."""
        request = requests.extend(tenant, reservation_id, ttl)
        return await self.send(extending_call(request, options))

    async def refund(
        self, tenant: str, event_id: str, amount: int = 0, **options: Unpack[RefundOptions]
    ) -> Refunded:
        """Take back part of an event, or with 0 all that is left of it."""
        name = options.pop("operation_id", "") or requests.new_id()
        request = requests.refund(tenant, event_id, amount, name, options.pop("reason", ""))
        return await self.send(self._core.refund(request, **options))

    async def quota(self, tenant: str, **options: Unpack[ReadOptions]) -> Quota:
        """Read where a tenant stands."""
        request, rest = quota_of(tenant, options)
        return await self.send(Call("GetQuota", request, results.quota_of, **rest))

    async def record(
        self, tenant: str, meter: str, amount: int, **options: Unpack[RecordOptions]
    ) -> Recorded:
        """Tell what was used, and wait until it is accepted."""
        usage, rest = usage_of(tenant, meter, amount, options)
        return await self.send(self._core.record(usage, **rest))

    async def batch_record(
        self, usages: Iterable[Usage], **options: Unpack[CallOptions]
    ) -> list[Recorded | TallygateError]:
        """Tell a list; give what became of each, in order."""
        events = [requests.record_usage(each) for each in usages]
        return await self.send(self._core.batch_record(events, **options))

    async def watch(
        self, tenant: str, **options: Unpack[ReadOptions]
    ) -> AsyncIterator[QuotaChange]:
        """Yield where a tenant stands, now and within 250 ms of each change.

        It is opened anew where it breaks, and begins with a snapshot then. It ends with the client,
        or when the iterator is closed; `timeout` is for all of it, none unless set.
        """
        request, rest = watch_of(tenant, options)
        watching = Watching(self._core, rest)
        while not watching.ended_by_caller():
            try:
                async for change in self._stream(watching, request):
                    yield change
            except TallygateError as error:
                wait_s = watching.failed(error)
                assert self._ended is not None
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), wait_s)

    async def close(self, timeout: float | None = None) -> bool:
        """End the client, its buffer first; tell whether all that was buffered is sent."""
        flushed = await self._buffer.close(timeout) if self._buffer is not None else True
        self._core.closed = True
        channel, self._channel = self._channel, None
        self._callables = {}
        if self._ended is not None:
            self._ended.set()
        if channel is not None:
            await channel.close()
        return flushed

    async def __aenter__(self) -> Self:
        if self._buffer is not None:
            self._buffer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, call: Call[T]) -> T:
        """Make one logical call."""
        core = self._core
        core.check_open(call)
        self._check_loop(call)
        timeout = core.timeout_of(call)
        method = self._callables.get(call.method) or self._callable(call.method)
        began = time.monotonic()
        try:
            reply = await method(call.request, timeout=timeout)
        except grpc.RpcError as error:
            return core.failed(call, error, began)
        except asyncio.CancelledError:
            core.cancelled(call, began)
            if core.closed and not _asked_to_cancel():
                # The channel's end cancels what is under way in the same words as its task would.
                raise core.closed_error(call) from None
            raise
        return core.answered(call, reply, began)

    async def follow(self, flow: Flow[T]) -> T:
        """Make the calls of a flow, one after the other."""
        step = proceed(flow, None)
        while isinstance(step, Call):
            try:
                answer = await self.send(step)
            except TallygateError as error:
                answer = error
            step = proceed(flow, answer)
        return step.value

    async def _stream(self, watching: Watching, request: Any) -> AsyncIterator[QuotaChange]:
        call = watching.call(request)
        self._check_loop(call)
        began = time.monotonic()
        replies = self._callable(call.method)(request, timeout=watching.left_s())
        try:
            async for reply in replies:
                watching.received()
                yield results.change_of(reply)
            if not watching.ended_by_caller():
                raise Unavailable("the stream ended without a status")
        except grpc.RpcError as error:
            if not watching.ended_by_caller():
                self._core.failed(call, error, began)
        except asyncio.CancelledError:
            if not watching.ended_by_caller() or _asked_to_cancel():
                raise
        finally:
            replies.cancel()

    def _check_loop(self, call: Call[Any]) -> None:
        """Begin anew where the loop that was used before has ended, as between two tests."""
        loop = asyncio.get_running_loop()
        if call.cancel is not None:
            raise TypeError("a task is cancelled by itself: `cancel` is for threads")
        if self._loop is loop:
            return
        if self._loop is not None and not self._loop.is_closed():
            raise RuntimeError("an AsyncClient is for one event loop at a time")
        self._loop = loop
        self._channel = None
        self._callables = {}

    def _callable(self, name: str) -> Any:
        if self._core.closed:
            raise Closed("the client is closed")
        if self._channel is None:
            self._channel = async_channel(self._options)
            self._ended = asyncio.Event()
        channel = self._channel
        if name not in self._callables:
            method = METHODS[name]
            streams = name == "WatchQuota"
            make: Any = channel.unary_stream if streams else channel.unary_unary
            self._callables[name] = make(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return self._callables[name]


def _asked_to_cancel() -> bool:
    """Tell whether this very task was asked to end, where Python can tell (3.11 and later)."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0
