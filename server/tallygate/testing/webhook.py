"""A receiver of webhooks: a small local HTTP server, for tests and for trying out.

Guarantees: takes only what is signed with its secret and fresh; keeps what it took, bounded; can be
told to fail. It checks signatures by itself, so as not to repeat a mistake of the sender.
Refuses to know: the sender. It is no part of a running service.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from aiohttp import web

RECEIVED_MAX: Final = 10_000
BODY_BYTES_MAX: Final = 4 * 1024 * 1024
# As far as Standard Webhooks' own libraries let a timestamp lie from the receiver's clock.
TOLERANCE_S: Final = 300


@dataclass(frozen=True, slots=True)
class ReceivedWebhook:
    """One call that was rightly signed, and the status it was answered with."""

    message_id: str
    timestamp_s: int
    payload: bytes
    status: int

    @property
    def type(self) -> str:
        """The message's type, empty where the body has none."""
        body = json.loads(self.payload)
        return str(body.get("type", "")) if isinstance(body, dict) else ""


@dataclass(frozen=True, slots=True)
class _Failure:
    status: int
    headers: dict[str, str]
    hang: bool


class WebhookReceiver:
    """Receives webhooks on loopback. Use it as `async with WebhookReceiver(secret) as receiver`."""

    def __init__(
        self, secret: str, *, port: int = 0, now_s: Callable[[], float] = time.time
    ) -> None:
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._port = port
        self._now_s = now_s
        self._runner: web.AppRunner | None = None
        self._failures: deque[_Failure] = deque()
        self._changed = asyncio.Condition()
        self._released = asyncio.Event()
        self.received: deque[ReceivedWebhook] = deque(maxlen=RECEIVED_MAX)
        self.unsigned = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Where to send, once started."""
        return f"http://127.0.0.1:{self._port}/webhook"

    @property
    def accepted(self) -> list[ReceivedWebhook]:
        """The calls that were answered with success, in order."""
        return [call for call in self.received if call.status < 300]

    async def start(self) -> None:
        """Listen, on a free port unless one was named."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/webhook", self._receive)
        # Hung calls end when the server stops, not a grace period later.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        address = self._runner.addresses[0]
        self._port = int(address[1])

    async def stop(self) -> None:
        """Stop listening; calls that hang are let go."""
        self._released.set()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def fail_next(
        self, status: int = 503, *, count: int = 1, headers: dict[str, str] | None = None
    ) -> None:
        """Answer the next `count` signed calls with `status`."""
        self._failures.extend([_Failure(status, headers or {}, hang=False)] * count)

    def hang_next(self) -> None:
        """Leave the next signed call without an answer until the receiver stops."""
        self._failures.append(_Failure(503, {}, hang=True))

    def heal(self) -> None:
        """Answer with success again, whatever failures were asked for."""
        self._failures.clear()

    async def wait_for(self, count: int, timeout_s: float = 10.0) -> None:
        """Wait until so many signed calls have come, failed ones included.

        Raises `TimeoutError`.
        """
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: len(self.received) >= count)

    async def _receive(self, request: web.Request) -> web.Response:
        payload = await request.read()
        message_id = request.headers.get("webhook-id", "")
        timestamp = request.headers.get("webhook-timestamp", "")
        signatures = request.headers.get("webhook-signature", "")
        if not self._signed(message_id, timestamp, payload, signatures):
            self.unsigned += 1
            return web.Response(status=401)
        failure = self._failures.popleft() if self._failures else _Failure(204, {}, hang=False)
        async with self._changed:
            self.received.append(
                ReceivedWebhook(message_id, int(timestamp), payload, failure.status)
            )
            self._changed.notify_all()
        if failure.hang:
            await self._released.wait()
        return web.Response(status=failure.status, headers=failure.headers)

    def _signed(self, message_id: str, timestamp: str, payload: bytes, signatures: str) -> bool:
        if not message_id or not timestamp.isdecimal():
            return False
        if abs(self._now_s() - int(timestamp)) > TOLERANCE_S:
            return False
        content = b".".join([message_id.encode(), timestamp.encode(), payload])
        wanted = hmac.new(self._key, content, hashlib.sha256).digest()
        for part in signatures.split():
            version, _, signature = part.partition(",")
            if version == "v1" and hmac.compare_digest(_decoded(signature), wanted):
                return True
        return False


def _decoded(signature: str) -> bytes:
    try:
        return base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return b""
