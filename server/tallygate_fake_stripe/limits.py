"""Rate limits: token buckets on the fake's clock, and calls at once per customer and meter.

Guarantees: a bucket of N per second lets N through at once and N per second after that, exactly, in
integers; calls overlap only where they truly do.
Refuses to know: which calls count against what.
"""

from typing import Final

from .clock import US_PER_S
from .errors import RateLimitReason, rate_limited, too_many_concurrent

# As documented: per second and account.
SANDBOX_PER_S: Final = 25
LIVE_PER_S: Final = 100
LIVE_METER_EVENTS_PER_S: Final = 1_000
CONNECT_PER_S: Final = 100
LIVE_STREAM_EVENTS_PER_S: Final = 10_000

METER_EVENTS: Final = "meter_events"
STREAM: Final = "stream"
BASIC: Final = "basic"


class TokenBucket:
    """Lets so many through per second, and as many at once."""

    def __init__(self, per_s: int) -> None:
        self.per_s = per_s
        # In millionths of a token, so that a microsecond adds whole ones.
        self._level = per_s * US_PER_S
        self._at_us: int | None = None

    def take(self, now_us: int, count: int = 1) -> bool:
        """Take tokens where there are enough."""
        if self._at_us is not None and now_us > self._at_us:
            grown = self._level + (now_us - self._at_us) * self.per_s
            self._level = min(grown, self.per_s * US_PER_S)
        self._at_us = now_us if self._at_us is None else max(now_us, self._at_us)
        if self._level < count * US_PER_S:
            return False
        self._level -= count * US_PER_S
        return True


class RateLimits:
    """The buckets of one account."""

    def __init__(self, *, livemode: bool, connect: bool) -> None:
        basic = LIVE_PER_S if livemode else SANDBOX_PER_S
        self._livemode = livemode and not connect
        self._basic = TokenBucket(CONNECT_PER_S if connect and livemode else basic)
        self._meter_events = TokenBucket(LIVE_METER_EVENTS_PER_S)
        self._stream = TokenBucket(LIVE_STREAM_EVENTS_PER_S)

    def take(self, kind: str, now_us: int, count: int = 1) -> None:
        """Count a call. Raises `StripeFault`: 429.

        In a sandbox, and for a connected account, every call counts against the basic limit.
        """
        if self._livemode and kind == METER_EVENTS:
            if not self._meter_events.take(now_us):
                raise rate_limited(RateLimitReason.ENDPOINT_RATE)
        elif self._livemode and kind == STREAM:
            if not self._stream.take(now_us, count):
                raise rate_limited(RateLimitReason.ENDPOINT_RATE)
        elif not self._basic.take(now_us):
            raise rate_limited(RateLimitReason.GLOBAL_RATE)


class Slots:
    """Which customers and meters a call is being made for."""

    def __init__(self) -> None:
        self._busy: set[tuple[str, str]] = set()

    def enter(self, slot: tuple[str, str]) -> None:
        """Begin a call. Raises `StripeFault`: 409 while another is under way."""
        if slot in self._busy:
            raise too_many_concurrent()
        self._busy.add(slot)

    def leave(self, slot: tuple[str, str]) -> None:
        """End a call."""
        self._busy.discard(slot)
