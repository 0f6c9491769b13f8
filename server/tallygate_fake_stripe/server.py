"""The fake's listener, and what tests hold in their hands.

Guarantees: loopback unless told otherwise; a call that is to be cut off is cut off without a byte
of an answer; stopping lets go what is held and leaves nothing running.
Refuses to know: what Stripe does.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from decimal import Decimal
from typing import Final, Self

from aiohttp import web

from . import control
from .behaviour import Behaviour, Caps
from .clock import Clock, SystemClock
from .engine import Engine
from .faults import Faults
from .keys import ACCOUNT, KeyRing
from .objects import Meter, MeterEvent
from .post import Delivery
from .tables import Json
from .wire import Noted, Reply, Request
from .world import World

# How long after a clock went on by itself its consequences show, at the latest.
TICK_S: Final = 0.05


class FakeStripe:
    """A Stripe for tests. Use it as `async with FakeStripe(clock=...) as stripe`."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        behaviour: Behaviour | None = None,
        caps: Caps | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        customers: Iterable[str] = (),
    ) -> None:
        """Be a Stripe whose time is `clock`'s; `customers` are there from the start."""
        self._engine = Engine(clock or SystemClock(), behaviour or Behaviour(), caps or Caps())
        self._host = host
        self._port = port
        self._runner: web.ServerRunner | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._settling = asyncio.Lock()
        self._woken = asyncio.Event()
        for id_ in customers:
            self.add_customer(id_)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """The base address, for `api` and `meter_events` alike."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def engine(self) -> Engine:
        """All of it, but for the listener."""
        return self._engine

    @property
    def clock(self) -> Clock:
        """Where it has its time from."""
        return self._engine.clock

    @property
    def behaviour(self) -> Behaviour:
        """Its switches, which may be set at any time."""
        return self._engine.behaviour

    @property
    def faults(self) -> Faults:
        """The faults at work."""
        return self._engine.faults

    @property
    def keys(self) -> KeyRing:
        """The API keys that were restricted or revoked."""
        return self._engine.keys

    @property
    def requests(self) -> tuple[Noted, ...]:
        """The newest requests, oldest first; the control surface's are not among them."""
        return tuple(self._engine.requests)

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """The newest webhooks, oldest first."""
        return tuple(self._engine.post.deliveries)

    def world(self, account: str = ACCOUNT, *, livemode: bool = False) -> World:
        """Return what an account has, after everything that is due has happened."""
        self._engine.run_due()
        return self._engine.world(account, livemode=livemode)

    def meter_events(self, account: str = ACCOUNT, *, livemode: bool = False) -> list[MeterEvent]:
        """Return all meter events that were taken, in the order they came."""
        return list(self.world(account, livemode=livemode).usage.events)

    def meter(self, event_name: str, account: str = ACCOUNT, *, livemode: bool = False) -> Meter:
        """Return the meter of an event name. Raises `KeyError`."""
        return self.world(account, livemode=livemode).meters_by_event[event_name]

    def total(
        self,
        event_name: str,
        customer: str,
        start_s: int,
        end_s: int,
        *,
        account: str = ACCOUNT,
        livemode: bool = False,
    ) -> Decimal:
        """Return exactly what summaries say of a customer's usage. Raises `KeyError`."""
        world = self.world(account, livemode=livemode)
        return world.usage.total(world.meters_by_event[event_name], customer, start_s, end_s)

    def invoices(
        self, customer: str, account: str = ACCOUNT, *, livemode: bool = False
    ) -> list[Json]:
        """Return a customer's invoices as the API does, oldest first."""
        world = self.world(account, livemode=livemode)
        return [
            world.billing.render(invoice)
            for invoice in world.invoices
            if invoice.customer == customer
        ]

    def add_customer(
        self, id_: str, account: str = ACCOUNT, *, livemode: bool | None = None
    ) -> None:
        """Have a customer of a chosen id, in one mode or in both."""
        for mode in (False, True) if livemode is None else (livemode,):
            self._engine.world(account, livemode=mode).add_customer(id_, self._now_s())

    def add_webhook(
        self,
        url: str,
        events: Iterable[str] = ("*",),
        *,
        thin: bool = True,
        account: str = ACCOUNT,
        livemode: bool = False,
    ) -> str:
        """Have events sent to an address; return the secret they are signed with."""
        notices = self._engine.world(account, livemode=livemode).notices
        now_us = self.clock.now_us()
        return notices.add_destination(url, list(events), thin=thin, now_us=now_us).secret

    def reset(self) -> None:
        """Forget everything but the time and the switches."""
        self._engine.reset()

    async def settle(self) -> int:
        """Have happen what is due, webhooks included; return how many of those were attempted."""
        attempts = 0
        async with self._settling:
            while True:
                self._engine.run_due()
                made = await self._engine.post.attempt_ready()
                attempts += made
                if not made:
                    return attempts

    async def start(self) -> None:
        """Listen, on a free port unless one was named."""
        self._runner = web.ServerRunner(
            web.Server(self._serve, access_log=None), shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = int(self._runner.addresses[0][1])
        self._engine.post.wake = self._woken.set
        self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Stop listening; calls that are held are let go."""
        self.faults.clear()
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticker
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        await self._engine.post.close()

    def _now_s(self) -> int:
        return self.clock.now_us() // 1_000_000

    async def _tick(self) -> None:
        """Have happen what is due though nobody calls, and send webhooks."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._woken.wait()
            self._woken.clear()
            await self.settle()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        read = await _read(request, self._engine.caps.body_bytes)
        if read is None:
            return web.Response(status=413)
        if path.startswith(control.PREFIX):
            return await control.serve(self, request.method, path, request.rel_url.query, read)
        reply = await self._engine.answer(
            Request(request.method, path, request.rel_url.raw_query_string, request.headers, read)
        )
        return _respond(request, reply)


async def _read(request: web.BaseRequest, most: int) -> bytes | None:
    """Return the body, None where it is too long."""
    parts, length = [], 0
    async for part in request.content.iter_any():
        length += len(part)
        if length > most:
            return None
        parts.append(part)
    return b"".join(parts)


def _respond(request: web.BaseRequest, reply: Reply) -> web.Response:
    if reply.drop:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)
    return web.Response(
        status=reply.status,
        body=reply.body,
        headers=reply.headers,
        content_type=reply.content_type,
    )
