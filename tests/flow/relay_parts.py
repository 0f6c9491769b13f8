"""Parts of the relay's tests: a clock, a signed destination, deliveries, an observer."""

import time
import uuid
from collections import Counter

from tallygate.domain.catalog import Destination
from tallygate.ports import Delivery, DestinationConfig

# 24 bytes, the least that a key may have; known, as it guards nothing.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK = "hook"


class SystemClock:
    """The process's clock."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return seconds that never run back."""
        return time.monotonic()


class CountingObserver:
    """Keeps what a relay tells, per outcome and destination."""

    def __init__(self) -> None:
        self.told: Counter[tuple[str, str]] = Counter()

    def delivered(self, destination: str, count: int) -> None:
        """So many messages were sent and marked."""
        self.told["delivered", destination] += count

    def retried(self, destination: str, count: int) -> None:
        """So many messages wait for another try."""
        self.told["retried", destination] += count

    def parked(self, destination: str, count: int) -> None:
        """So many messages were given up on."""
        self.told["parked", destination] += count

    def stale(self, destination: str, count: int) -> None:
        """So many marks were refused."""
        self.told["stale", destination] += count


def webhook_config(url: str, secret: str = SECRET) -> DestinationConfig:
    """Return a webhook destination that takes everything."""
    return DestinationConfig(Destination(HOOK, "webhook", url, ("usage.batch",)), secret)


def delivery(payload: bytes = b'{"type":"usage.batch"}') -> Delivery:
    """Return a delivery in its first attempt."""
    return Delivery(
        message_id=str(uuid.uuid4()),
        destination=HOOK,
        type="usage.batch",
        payload=payload,
        attempt=1,
        lease_token=str(uuid.uuid4()),
        created_at_us=0,
    )
