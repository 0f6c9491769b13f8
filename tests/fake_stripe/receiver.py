"""A receiver of Stripe's webhooks, as bare as can be."""

import asyncio
from collections import deque
from typing import NamedTuple, Self

from aiohttp import web

from .clients import TIMEOUT_S


class Received(NamedTuple):
    """One webhook: its body, its signature."""

    body: bytes
    signature: str


class Receiver:
    """Takes webhooks on loopback; answers with the statuses it is told, then with 200."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.statuses: deque[int] = deque()
        self.url = ""
        self._came = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._take, access_log=None))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/stripe"
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._runner.cleanup()

    async def wait_for(self, count: int) -> None:
        """Wait until so many have come."""
        async with asyncio.timeout(TIMEOUT_S), self._came:
            await self._came.wait_for(lambda: len(self.received) >= count)

    async def _take(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        async with self._came:
            self.received.append(Received(body, request.headers["Stripe-Signature"]))
            self._came.notify_all()
        return web.Response(status=self.statuses.popleft() if self.statuses else 200)
