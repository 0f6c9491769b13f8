"""Sends webhooks: signed, tried again for three days.

Guarantees: every attempt is signed anew, with the time it is made at; what is answered with any 2xx
is done; all else is tried again, longer and longer, by the fake's clock.
Refuses to know: what a webhook says.
"""

import asyncio
import hashlib
import hmac
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import aiohttp

from .behaviour import Behaviour
from .clock import US_PER_S, Clock, Schedule
from .tables import Json

if TYPE_CHECKING:
    from .notices import Destination

TIMEOUT_S: Final = 10.0
AT_ONCE_MAX: Final = 16
# From one attempt to the next; then every 12 hours, for three days in all.
WAITS_S: Final = (60, 300, 1_800, 7_200, 18_000, 36_000)
LAST_WAIT_S: Final = 43_200
GIVEN_UP_S: Final = 3 * 86_400


@dataclass(slots=True)
class Delivery:
    """One event on its way to one destination."""

    event: str
    destination: str
    url: str
    payload: bytes
    first_us: int
    attempts: int = 0
    status: int | None = None
    # waiting, delivered, or given_up.
    state: str = "waiting"

    def dump(self) -> Json:
        """Return what is known of it, for the control surface."""
        return {**asdict(self), "payload": self.payload.decode()}


class Post:
    """All deliveries of a fake."""

    def __init__(
        self, clock: Clock, schedule: Schedule, behaviour: Behaviour, *, kept: int
    ) -> None:
        self._clock = clock
        self._schedule = schedule
        self._behaviour = behaviour
        self._ready: deque[tuple[Destination, Delivery]] = deque()
        self._session: aiohttp.ClientSession | None = None
        self.deliveries: deque[Delivery] = deque(maxlen=kept)
        self.wake: Callable[[], None] = lambda: None

    @property
    def ready(self) -> int:
        """How many deliveries could be attempted now."""
        return len(self._ready)

    def send(self, destination: "Destination", event: str, payload: bytes, now_us: int) -> None:
        """Have an event delivered."""
        delivery = Delivery(event, destination.id, destination.url, payload, now_us)
        self.deliveries.append(delivery)
        self._queue(destination, delivery)

    async def attempt_ready(self) -> int:
        """Attempt what is ready, some at a time; return how many attempts were made."""
        made = 0
        while self._ready:
            several = [self._ready.popleft() for _ in range(min(AT_ONCE_MAX, len(self._ready)))]
            await asyncio.gather(*(self._attempt(*each) for each in several))
            made += len(several)
        return made

    def clear(self) -> None:
        """Forget all deliveries."""
        self._ready.clear()
        self.deliveries.clear()

    async def close(self) -> None:
        """Close what is open."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _queue(self, destination: "Destination", delivery: Delivery) -> None:
        self._ready.append((destination, delivery))
        self.wake()

    async def _attempt(self, destination: "Destination", delivery: Delivery) -> None:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            self._session = aiohttp.ClientSession(timeout=timeout)
        at_s = int(time.time()) if self._behaviour.signed_by_system_clock else self._now_s()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(delivery.payload, destination.secret, at_s),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        delivery.attempts += 1
        try:
            async with self._session.post(
                destination.url, data=delivery.payload, headers=headers, allow_redirects=False
            ) as response:
                delivery.status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            delivery.status = None
        if delivery.status is not None and 200 <= delivery.status < 300:
            delivery.state = "delivered"
            return
        self._try_again(destination, delivery)

    def _try_again(self, destination: "Destination", delivery: Delivery) -> None:
        now_us = self._clock.now_us()
        number = delivery.attempts - 1
        wait_s = WAITS_S[number] if number < len(WAITS_S) else LAST_WAIT_S
        due_us = now_us + wait_s * US_PER_S
        if due_us - delivery.first_us > GIVEN_UP_S * US_PER_S or not destination.enabled:
            delivery.state = "given_up"
            return
        self._schedule.at(due_us, lambda _: self._queue(destination, delivery))

    def _now_s(self) -> int:
        return self._clock.now_us() // US_PER_S


def signature(payload: bytes, secret: str, at_s: int) -> str:
    """Return the `Stripe-Signature` of a body: `t=SECONDS,v1=HEX`."""
    signed = f"{at_s}.".encode() + payload
    return f"t={at_s},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
