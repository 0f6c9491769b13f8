"""The buffer of `Client`: a thread sends what any thread has recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from .calls import Call, Core
from .intake import CLOSE_S, Intake
from .options import BufferOptions
from .queueing import Sending

# The interpreter's end waits for so long, where nobody has closed the client.
EXIT_S = 2.0


class Buffer(Intake):
    """Records without waiting: see `record` and `flush`."""

    def __init__(
        self, core: Core, options: BufferOptions, send: Callable[[Call[Any]], Any]
    ) -> None:
        self._send = send
        super().__init__(core, options)
        if self._queue.pending:
            with self._lock:
                self._wake()

    def flush(self, timeout: float | None = None) -> bool:
        """Send what is here now; tell whether all of it is sent, or was refused for good.

        Without a `timeout` it waits as long as that takes, which in an outage is long.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            through = self._queue.flush()
            self._wake()
            while not self._queue.gone(through):
                left_s = None if ends is None else ends - time.monotonic()
                if self._closed or (left_s is not None and left_s <= 0):
                    return False
                self._changed.wait(left_s)
        return True

    def close(self, timeout: float | None = None) -> bool:
        """Send what can be sent in time and take no more; tell whether that was all."""
        flushed = self.flush(CLOSE_S if timeout is None else timeout)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._end()
        with self._changed:
            self._changed.notify_all()
        return flushed

    def _begin(self) -> None:
        super()._begin()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._stopping = False

    def _wake(self) -> None:
        if self._thread is None and not self._stopping:
            self._thread = threading.Thread(target=self._run, name="tallygate-buffer", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while (sending := self._next()) is not None:
            self.send_one(sending)

    def send_one(self, sending: Sending) -> None:
        """Send one request and hear of it."""
        outcome: Any
        try:
            outcome = self._send(self._call(sending))
        except Exception as error:  # noqa: BLE001  # else this thread ends, and nothing is sent
            outcome = self._outcome(error)
        self._finish(outcome)
        with self._changed:
            self._changed.notify_all()

    def _next(self) -> Sending | None:
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                sending = self._queue.take(now)
                if sending is not None:
                    return sending
                self._changed.wait(self._queue.wait_s(now))
            return None

    def _at_exit(self) -> None:
        self.close(EXIT_S)
