"""The buffer of `AsyncClient`: a task sends what any thread has recorded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from .calls import Call, Core
from .intake import CLOSE_S, Intake
from .options import BufferOptions


class AsyncBuffer(Intake):
    """Records without waiting: see `record`, which any thread may call, and `flush`.

    What it holds is sent while the client's loop runs. Events that are recorded before there is a
    loop wait for it. With a spool, `record` writes to the disk in the thread that calls it.
    """

    def __init__(
        self, core: Core, options: BufferOptions, send: Callable[[Call[Any]], Awaitable[Any]]
    ) -> None:
        self._send = send
        super().__init__(core, options)
        self.start()

    def _begin(self) -> None:
        super()._begin()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._work: asyncio.Event | None = None
        self._changed: asyncio.Condition | None = None

    def start(self) -> None:
        """Begin to send, if there is a running loop and it has not begun."""
        if self._closed:
            return
        if self._task is not None:
            if self._loop is None or not self._loop.is_closed():
                return
            self._queue.interrupted()
        with contextlib.suppress(RuntimeError):
            loop = self._loop = asyncio.get_running_loop()
            self._changed = asyncio.Condition()
            self._work = asyncio.Event()
            self._task = loop.create_task(self._run(), name="tallygate-buffer")

    async def flush(self, timeout: float | None = None) -> bool:
        """Send what is here now; tell whether all of it is sent, or was refused for good.

        Without a `timeout` it waits as long as that takes, which in an outage is long.
        """
        self.start()
        with self._lock:
            through = self._queue.flush()
        assert self._work is not None
        self._work.set()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._until_gone(through), timeout)
        with self._lock:
            return self._queue.gone(through)

    async def close(self, timeout: float | None = None) -> bool:
        """Send what can be sent in time and take no more; tell whether that was all."""
        flushed = await self.flush(CLOSE_S if timeout is None else timeout)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._end()
        return flushed

    def _wake(self) -> None:
        if self._loop is None:
            self.start()
        if self._loop is not None and self._work is not None:
            # A loop that has ended sends nothing; what is here stays, in the spool if there is one.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._work.set)

    async def _run(self) -> None:
        assert self._work is not None
        assert self._changed is not None
        while True:
            self._work.clear()
            now = time.monotonic()
            with self._lock:
                sending = self._queue.take(now)
                wait_s = self._queue.wait_s(now)
            if sending is None:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._work.wait(), wait_s)
                continue
            outcome: Any
            try:
                outcome = await self._send(self._call(sending))
            except Exception as error:  # noqa: BLE001  # else this task ends, and nothing is sent
                outcome = self._outcome(error)
            self._finish(outcome)
            async with self._changed:
                self._changed.notify_all()

    async def _until_gone(self, through: int) -> None:
        assert self._changed is not None
        async with self._changed:
            while not self._gone(through):
                await self._changed.wait()

    def _gone(self, through: int) -> bool:
        with self._lock:
            return self._queue.gone(through)
