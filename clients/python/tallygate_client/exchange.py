"""A request to an ASGI app and its response, with all that is charged for it.

Guarantees that it is settled once: begun after the last chunk was handed over, and waited for
before the app's call ends. Refuses to know frameworks, and what WebSockets are.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from .errors import TallygateError
from .metering.answers import Answer, Refused, answer_of, standing
from .metering.cost import Cost, Ending
from .metering.fields import POLICY, RATE_LIMIT
from .metering.rules import TenantMissing, WebRequest, WebRules
from .metering.till import AsyncTill
from .values import Items

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COST = "tallygate"
"""Where a scope holds the `Cost`."""

EXCHANGE = "tallygate.exchange"
"""Where a scope holds the `Exchange`, by which routes ask for themselves."""

OURS = frozenset({RATE_LIMIT.lower().encode(), POLICY.lower().encode()})
# By these an app hands over files unread, so that nobody could count their bytes.
UNCOUNTED = ("http.response.pathsend", "http.response.zerocopysend")


class Counter:
    """What a middleware's requests share: rules, where to ask, and what is being settled."""

    def __init__(self, rules: WebRules, till: AsyncTill) -> None:
        self.rules = rules
        self.till = till
        self._settling: set[asyncio.Task[None]] = set()

    def settling(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Settle apart from the request's own task, which may be cancelled with its client."""
        task = asyncio.ensure_future(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task


class Exchange:
    """One request and its response, with all that is charged for it."""

    # What it means that the app returns: a response that is whole has been settled by then.
    returned = Ending.FAILED

    def __init__(self, counter: Counter, scope: Scope, receive: Receive, send: Send) -> None:
        self.rules = counter.rules
        self.request = request_of(scope)
        self.scope: Scope = dict(scope)
        self.costs: list[Cost] = []
        self.charged: bool | None = None
        self.left = False
        self._counter = counter
        self._receive = receive
        self._send = send
        self._settled: asyncio.Task[None] | None = None
        self.scope[EXCHANGE] = self
        if self.rules.response_bytes is not None:
            self.scope["extensions"] = {
                name: value
                for name, value in (scope.get("extensions") or {}).items()
                if name not in UNCOUNTED
            }

    async def open(self, tenant: str | None, cost: Items | None) -> Cost | None:
        """Ask for this request; None where it costs nothing.

        Raises:
            Refused: it is not to be served; let it pass up to the middleware, which answers.
        """
        try:
            again = bool(self.costs)
            question = self.rules.question(self.request, tenant, cost, again=again)
            if question is None:
                return None
            opened = await self._counter.till.open(question)
        except (TallygateError, TenantMissing) as error:
            raise Refused from error
        self.costs.append(opened)
        self.scope[COST] = opened
        return opened

    async def open_by_rules(self) -> None:
        """Ask for what the rules say of every request."""
        rules = self.rules
        if rules.cost is None and rules.counted is None:
            return
        if rules.exempt is not None and rules.exempt(self.request):
            return
        await self.open(await self.tenant(), await _awaited(rules.cost_of(self.request)))

    async def tenant(self) -> str | None:
        """Return who pays, as the rules have it."""
        found: str | None = await _awaited(self.rules.tenant_of(self.request))
        return found

    async def run(self, app: App) -> None:
        """Serve it: ask, let the app answer, settle."""
        ending = Ending.FAILED
        try:
            await self.open_by_rules()
            await app(self.scope, self.receive, self.send)
            ending = self.returned
        except Refused as refused:
            if self.charged is not None:
                raise
            await self.refuse(answer_of(refused.__cause__ or refused, self.request, self.rules))
        except asyncio.CancelledError:
            # Some servers cancel the app when its client leaves, all of them when they stop.
            ending = Ending.LEFT
            raise
        finally:
            # What has been answered to the end has begun to be settled by then.
            self.settle(Ending.LEFT if self.left else ending)
            if self._settled is not None:
                await asyncio.shield(self._settled)

    async def refuse(self, answer: Answer) -> None:
        """Send an answer that is not the app's."""
        headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        start = {"type": "http.response.start", "status": answer.status, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": answer.body})

    async def receive(self) -> Message:
        """Pass on what the client sends, and note that it has left."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.left = True
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the app answers, count it, and settle at its end."""
        if message["type"] == "http.response.start":
            self.charged = self.rules.charged(message["status"])
            message = {**message, "headers": self.headers(message.get("headers", ()))}
            self.measure(0)
        try:
            await self._send(message)
        except OSError:
            self.left = True
            raise
        if message["type"] == "http.response.body":
            if self.request.method != "HEAD" and not self.left:
                self.measure(len(message.get("body", b"")))
            if not message.get("more_body", False):
                self.settle(Ending.COMPLETE)

    def headers(self, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the response's headers, with where the tenant stands."""
        told = standing([each.decision for each in self.costs], self.rules)
        if not told:
            return list(given)
        kept = [(name, value) for name, value in given if name.lower() not in OURS]
        return kept + [(name.lower().encode(), value.encode()) for name, value in told]

    def measure(self, amount: int) -> None:
        """Add to what is counted of the response."""
        for cost in self.costs:
            cost.measure(amount)

    def settle(self, ending: Ending) -> None:
        """Begin to settle, unless that was begun before."""
        if self.costs and self._settled is None:
            self._settled = self._counter.settling(self._settle_all(ending))

    async def _settle_all(self, ending: Ending) -> None:
        for cost in self.costs:
            await self._counter.till.settle(cost, ending, self.charged)


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def cost_of(scope: Scope) -> Cost:
    """Return what the request costs, for the app to say what it came to.

    Raises:
        LookupError: the request is not metered.
    """
    found: Cost | None = scope.get(COST)
    if found is None:
        raise LookupError("this request is not metered")
    return found


def request_of(scope: Scope) -> WebRequest:
    """Return a request as the rules see it."""
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
    }
    return WebRequest(scope.get("method", "GET"), scope["path"], headers, scope)
