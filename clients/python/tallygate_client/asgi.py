"""Middleware for any ASGI app: Starlette, FastAPI, Quart, Django's own ASGI, Litestar.

    http → open → app ⇒ each chunk passed on and counted ⇒ settle once the last is handed over

Guarantees: no chunk is gathered or held back; whoever leaves is charged what was sent till then.
Refuses to know frameworks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .exchange import App, Counter, Exchange, Receive, Scope, Send, cost_of
from .metering.rules import WebRules
from .metering.till import AsyncTill
from .websockets import Conversation

if TYPE_CHECKING:
    from .aio import AsyncClient

__all__ = ["Exchange", "MeteringMiddleware", "cost_of"]


class MeteringMiddleware:
    """Charges the requests of an ASGI app, its WebSockets included."""

    def __init__(
        self, app: App, *, client: AsyncClient | Callable[[], AsyncClient], rules: WebRules
    ) -> None:
        self._app = app
        self._counter = Counter(rules, AsyncTill(client))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            await Exchange(self._counter, scope, receive, send).run(self._app)
        elif scope["type"] == "websocket":
            await Conversation(self._counter, scope, receive, send).run(self._app)
        else:
            await self._app(scope, receive, send)
