"""A bell that one thread rings and another waits for.

Guarantees: who waits after it was rung does not wait; rung several times before, it rings once.
Refuses to know: why it is rung.

`threading.Event` does the same for any number who wait, with a lock and a list in Python: as a
hand-over between threads it cost more than what was handed over.
"""

import threading
from contextlib import suppress


class Bell:
    """Wakes the one who waits. A lock is held while it is silent."""

    def __init__(self) -> None:
        self._silence = threading.Lock()
        self._silence.acquire()

    def ring(self) -> None:
        """Have whoever waits go on, now or as soon as it waits."""
        if self._silence.locked():
            # Somebody else may have rung it meanwhile.
            with suppress(RuntimeError):
                self._silence.release()

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until it has rung, at most so long; say whether it has."""
        return self._silence.acquire(timeout=-1 if timeout_s is None else timeout_s)
