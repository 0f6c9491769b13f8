"""The process's clock. Guarantees: monotonic time never runs back. Refuses to decide windows."""

import time


class SystemClock:
    """The `Clock` port over the operating system's clocks."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return seconds that never run back; on Linux the event loop's own time."""
        return time.monotonic()
