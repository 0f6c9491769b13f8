"""When a watch that broke is opened anew, and when it has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .backoff import Backoff
from .calls import Call, Core
from .cancellation import Cancellation
from .errors import TallygateError, Unavailable


class Watching:
    """A watch over its streams."""

    def __init__(self, core: Core, options: Mapping[str, Any]) -> None:
        self._core = core
        self._backoff = Backoff()
        timeout: float | None = options.get("timeout")
        self._ends = None if timeout is None else time.monotonic() + timeout
        self.cancel: Cancellation | None = options.get("cancel")

    def left_s(self) -> float | None:
        """Return how many seconds are left of its own timeout; None for no end."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())

    def call(self, request: Any) -> Call[Any]:
        """Return the call of one stream."""
        return Call("WatchQuota", request, lambda reply: reply, cancel=self.cancel)

    def received(self) -> None:
        """Hear of a message."""
        self._backoff.succeeded()

    def ended_by_caller(self) -> bool:
        """Tell whether the caller has ended it, by its token or by closing the client."""
        return self._core.closed or (self.cancel is not None and self.cancel.cancelled)

    def failed(self, error: TallygateError) -> float:
        """Return how long to wait before it is opened anew; raise what no new stream cures."""
        if not isinstance(error, Unavailable):
            raise error
        return self._backoff.failed(error.retry_after)
