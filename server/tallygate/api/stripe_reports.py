"""The endpoint to which Stripe sends its reports of errors: `POST /stripe/DESTINATION`.

Guarantees: bodies, connections and time are bounded; what is not signed is answered 400 and read no
further; what cannot be worked off now is answered 503, so that Stripe sends it again.
Refuses to know: what a report leads to. Nothing of a body reaches a log.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from tallygate.api.ops import listen
from tallygate.domain.errors import BackendUnavailable, NotFound, TallygateError
from tallygate.ports.stripe import NotSigned

# A thin event has under 2 KiB.
BODY_BYTES_MAX: Final = 64 * 1024
# Stripe sends one report per meter and some minutes.
CALLS_MAX: Final = 16
CALL_TIMEOUT_S: Final = 20.0

Take = Callable[[str, bytes, str], Awaitable[None]]


class ReportsListener:
    """Listens from `start` to `stop`."""

    def __init__(self, address: str, take: Take) -> None:
        self._address = address
        self._take = take
        self._room = asyncio.Semaphore(CALLS_MAX)
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises `AddressInUse`."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/stripe/{destination}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        bound = listen(self._address)
        if not self._address.startswith("unix:"):
            self.port = bound.getsockname()[1]
        await web.SockSite(self._runner, bound).start()

    async def stop(self) -> None:
        """Answer what is under way, and listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        if self._room.locked():
            return web.Response(status=503, headers={"Retry-After": "10"})
        try:
            async with self._room, asyncio.timeout(CALL_TIMEOUT_S):
                body = await request.read()
                signature = request.headers.get("stripe-signature", "")
                await self._take(request.match_info["destination"], body, signature)
        except NotSigned:
            return web.Response(status=400, text="not signed")
        except NotFound:
            return web.Response(status=404)
        except (BackendUnavailable, TimeoutError):
            return web.Response(status=503, headers={"Retry-After": "60"})
        except TallygateError:
            return web.Response(status=500)
        return web.Response(status=200)
