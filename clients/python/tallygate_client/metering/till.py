"""Where questions are asked and costs are settled: once for threads, once for asyncio.

Guarantees that settling never fails a request that was served: what went wrong is logged, and the
reservation's units come back by themselves. Refuses to know what is metered, and why it ended.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tallygate_client.errors import QuotaExceeded, TallygateError
from tallygate_client.results import Decision

from .answers import told
from .cost import Cost, Ending
from .rules import Question

if TYPE_CHECKING:
    from tallygate_client.aio import AsyncClient
    from tallygate_client.client import Client

LOG = logging.getLogger("tallygate_client.metering")


def asked_of(question: Question) -> tuple[str, dict[str, Any]]:
    """Return which method of a client asks, and with what; what is not set is left out."""
    given: dict[str, Any] = {"operation_id": question.operation_id, "context": question.context}
    if question.mode == "reserve":
        given["ttl"] = question.ttl
    options = {name: value for name, value in given.items() if value is not None}
    return "hold" if question.mode == "reserve" else "check_and_consume", options


def cost_of(question: Question, answer: Any) -> Cost:
    """Return the cost of what was granted.

    Raises:
        QuotaExceeded: it was not.
    """
    decision: Decision = answer.decision if question.mode == "reserve" else answer
    if not decision.allowed:
        raise QuotaExceeded(decision)
    return Cost(question, decision, answer if question.mode == "reserve" else None)


class _Given:
    """A client, or what makes one: then each process makes its own, when it first needs it."""

    def __init__(self, client: Any) -> None:
        self._given = client
        self._made: Any = None
        self._by = 0
        self._lock = threading.Lock()

    def __call__(self) -> Any:
        if not callable(self._given):
            return self._given
        with self._lock:
            if self._by != os.getpid():
                self._made, self._by = self._given(), os.getpid()
            return self._made


class Till:
    """Asks and settles in the calling thread."""

    def __init__(self, client: Client | Callable[[], Client]) -> None:
        self._client = _Given(client)

    @property
    def client(self) -> Client:
        """The client, made now where it was given as a function."""
        found: Client = self._client()
        return found

    def open(self, question: Question) -> Cost:
        """Ask; raise `QuotaExceeded`, or why there was no answer."""
        method, options = asked_of(question)
        ask = getattr(self.client, method)
        return cost_of(question, ask(question.tenant, question.items, **options))

    def settle(self, cost: Cost, ending: Ending, charged: bool | None) -> None:
        """Commit or give back, whichever the end asks for; once."""
        settling = cost.settle(ending, charged)
        for each in settling(self.client) if settling else ():
            try:
                each()
            except TallygateError as error:
                unsettled(cost, error)


class AsyncTill:
    """Asks and settles in the running loop."""

    def __init__(self, client: AsyncClient | Callable[[], AsyncClient]) -> None:
        self._client = _Given(client)

    @property
    def client(self) -> AsyncClient:
        """The client, made now where it was given as a function."""
        found: AsyncClient = self._client()
        return found

    async def open(self, question: Question) -> Cost:
        """Ask; raise `QuotaExceeded`, or why there was no answer."""
        method, options = asked_of(question)
        ask = getattr(self.client, method)
        return cost_of(question, await ask(question.tenant, question.items, **options))

    async def settle(self, cost: Cost, ending: Ending, charged: bool | None) -> None:
        """Commit or give back, whichever the end asks for; once."""
        settling = cost.settle(ending, charged)
        for each in settling(self.client) if settling else ():
            try:
                await each()
            except TallygateError as error:
                unsettled(cost, error)


def unsettled(cost: Cost, error: TallygateError) -> None:
    """Tell the operator that an end could not be told to the sidecar; its units come back."""
    if cost.hold is not None:
        cost.hold.drop()
    LOG.warning("a request could not be settled: %s", told(error))
