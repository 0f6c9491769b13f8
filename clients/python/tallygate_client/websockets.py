"""WebSockets of an ASGI app: the connection is a request, and each message may cost too.

Guarantees that a refused message never reaches the app. Refuses to know what messages say.
"""

from __future__ import annotations

from typing import Any

from .errors import QuotaExceeded, TallygateError
from .exchange import Exchange, Message
from .metering.answers import Answer, problem_of
from .metering.cost import Ending
from .metering.rules import Question, TenantMissing

TRY_AGAIN_LATER = 1013
POLICY_VIOLATION = 1008
REASON_MAX_BYTES = 123
"""What a close frame has room for."""

HTTP_ANSWER = "websocket.http.response"


class Conversation(Exchange):
    """One WebSocket, with what is charged for it and for its messages."""

    returned = Ending.COMPLETE

    async def refuse(self, answer: Answer) -> None:
        """Answer the handshake as HTTP where the server can, else by closing: a 403."""
        if HTTP_ANSWER not in (self.scope.get("extensions") or {}):
            await self._send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        start = {"type": f"{HTTP_ANSWER}.start", "status": answer.status, "headers": headers}
        await self._send(start)
        await self._send({"type": f"{HTTP_ANSWER}.body", "body": answer.body})

    async def receive(self) -> Message:
        """Pass on what the client sends once it is paid for."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.left = True
        if message["type"] != "websocket.receive" or self.rules.messages is None:
            return message
        try:
            await self._charge_message()
        except (TallygateError, TenantMissing) as error:
            return await self._hang_up(error)
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the app answers, and note whether it has accepted."""
        if message["type"] == "websocket.accept":
            self.charged = True
            self.measure(0)
            message = {**message, "headers": self.headers(message.get("headers", ()))}
        elif message["type"] in {"websocket.close", f"{HTTP_ANSWER}.start"}:
            self.charged = self.charged is True
        try:
            await self._send(message)
        except OSError:
            self.left = True
            raise
        if message["type"] == "websocket.send":
            text = message.get("text")
            self.measure(len(text.encode() if text is not None else message.get("bytes") or b""))

    async def _charge_message(self) -> None:
        assert self.rules.messages is not None
        tenant = self.costs[0].tenant if self.costs else await self.tenant()
        if not tenant:
            raise TenantMissing
        context = self.rules.context(self.request) if self.rules.context else None
        question = Question(
            tenant, (self.rules.messages.item,), "consume", context=context, refund_failures=False
        )
        await self._counter.till.open(question)

    async def _hang_up(self, error: BaseException) -> Message:
        """Close, and tell the app that it was."""
        told: Any = "tenant-missing" if isinstance(error, TenantMissing) else "metering-unavailable"
        if isinstance(error, QuotaExceeded):
            told = error.decision.refused_by
        else:
            problem_of(error)
        reason = str(told).encode()[:REASON_MAX_BYTES].decode(errors="ignore")
        code = TRY_AGAIN_LATER
        await self._send({"type": "websocket.close", "code": code, "reason": reason})
        self.left = True
        return {"type": "websocket.disconnect", "code": code, "reason": reason}
