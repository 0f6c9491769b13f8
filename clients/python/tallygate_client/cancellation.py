"""The means to end a synchronous call from another thread, which Python itself has not."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancellation:
    """Given to a call as `cancel=`; `cancel()` ends it with `Cancelled`, also before it begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._callbacks: list[Callable[[], object]] = []

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """End the calls that hold this; further calls with it end at once."""
        with self._lock:
            self._cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for each in callbacks:
            each()

    def attach(self, callback: Callable[[], object]) -> None:
        """Call back on cancellation, at once if it has happened."""
        with self._lock:
            if not self._cancelled:
                self._callbacks.append(callback)
                return
        callback()

    def detach(self, callback: Callable[[], object]) -> None:
        """Call back no more."""
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)
