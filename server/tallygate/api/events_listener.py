"""The listener of events over HTTP: its socket, its TLS, and its end in good order.

Guarantees: connections are bounded, and the time of a handshake and of a first word; a renewed
certificate counts for new connections, and cuts none that is open; with an authority of clients
nobody comes in over TCP without a certificate of theirs.
Refuses to know: what is asked.
"""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Final
from weakref import WeakSet

from aiohttp import web
from aiohttp.typedefs import Handler

from tallygate.api.ops import listen
from tallygate.api.serving_tls import ServingTls
from tallygate.api.socket_lock import SocketLock, path_of
from tallygate.api.socket_owner import OWN, SocketOwner
from tallygate.domain.certificate import CurrentCredentials, ServerCredentials

# Senders keep some open each; whoever else comes is not to fill the memory.
CONNECTIONS_MAX: Final = 1_024
HANDSHAKE_TIMEOUT_S: Final = 5.0
KEEPALIVE_S: Final = 75.0
# For the head of the first call of a connection.
SILENCE_S: Final = 10.0


class EventsListener:
    """Listens from `start` to `stop`."""

    def __init__(
        self,
        address: str,
        app: web.Application,
        credentials: CurrentCredentials | None = None,
        *,
        owner: SocketOwner = OWN,
        grace_s: float = 10.0,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._address = address
        self._owner = owner
        self._path = path_of(address)
        self._credentials = None if self._path is not None else credentials
        self._made_of: ServerCredentials | None = None
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=grace_s, keepalive_timeout=KEEPALIVE_S
        )
        self._silence_s = silence_s
        self._heard: WeakSet[asyncio.BaseTransport] = WeakSet()
        app.middlewares.append(self._note)
        self._lock: SocketLock | None = None
        self._bound: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises `AddressInUse`, and `InvalidField` for a certificate that is none."""
        await self._runner.setup()
        if self._path is not None:
            self._lock = SocketLock(self._path, self._owner)
            self._lock.take()
        self._bound = listen(self._address, self._owner)
        if self._path is None:
            self.port = int(self._bound.getsockname()[1])
        await self.renew()

    async def renew(self) -> None:
        """Serve new connections with the certificate of now; harmless when it is the same."""
        credentials = self._credentials() if self._credentials is not None else None
        if self._server is not None and credentials is self._made_of:
            return
        assert self._bound is not None
        before = self._server
        # Another listener on the same socket, so that no moment is without one.
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol,
            sock=self._bound.dup(),
            ssl=_context(credentials) if credentials is not None else None,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if credentials is not None else None,
        )
        self._made_of = credentials
        if before is not None:
            before.close()

    async def stop(self) -> None:
        """Answer what is under way, and listen no more."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
        self._give_back()

    def _give_back(self) -> None:
        if self._bound is not None:
            self._bound.close()
            if self._path is not None:
                Path(self._path).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.give_back()

    def _protocol(self) -> asyncio.BaseProtocol:
        """Return what speaks on a new connection: HTTP, or nothing where there are too many."""
        server = self._runner.server
        assert server is not None
        if len(server.connections) >= CONNECTIONS_MAX:
            return _TooMany()
        protocol = server()
        asyncio.get_running_loop().call_later(self._silence_s, self._end_silent, protocol)
        return protocol

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.transport is not None:
            self._heard.add(request.transport)
        return await handler(request)

    def _end_silent(self, protocol: web.RequestHandler) -> None:
        """End a connection on which no call has begun: it would hold its place for ever."""
        transport = protocol.transport
        if transport is not None and transport not in self._heard:
            transport.abort()


class _TooMany(asyncio.Protocol):
    """Ends a connection as soon as it is made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Cut it, unread."""
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _context(credentials: ServerCredentials) -> ssl.SSLContext:
    tls = ServingTls()
    tls.take(credentials.chain, credentials.key)
    if credentials.client_ca:
        tls.context.load_verify_locations(cadata=credentials.client_ca.decode())
        tls.context.verify_mode = ssl.CERT_REQUIRED
    return tls.context
