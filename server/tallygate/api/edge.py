"""What stands around every method, whatever transport carries its calls.

Guarantees: bytes that do not decode, methods that do not exist and exceptions nobody expected all
reach the caller as a mapped status; a call without a deadline gets one, but a stream lasts until
its caller ends it or the service stops. Calls inside, and the bytes of their requests, are bounded.
Refuses to know: what methods do, and how a transport reads and answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

import grpc
import structlog

from tallygate.api.batched import BatchMethod, BatchMethods
from tallygate.api.status import DeadlinePassed, Refusal, refusal, shown
from tallygate.api.traced import CallSpans
from tallygate.domain.errors import Draining, Overloaded, TallygateError

OK: Final = "OK"
# A caller that waits longer than a day has set no deadline that means anything.
LONGEST_S: Final = 86_400.0
# grpcio rounds a deadline up to the next millisecond: what has less left is over.
HOPELESS_S: Final = 0.001
# What the defaults of the settings of these names are, and why, is said there.
CALLS_MAX: Final = 8_192
CALLS_MAX_BYTES: Final = 64 * 1024 * 1024

log = structlog.get_logger(__name__)

# The request's type is the generated code's affair: handlers are typed where they are written.
Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Awaitable[Any]]
StreamBehaviour = Callable[[Any, Context], AsyncGenerator[Any, None]]

Decode = Callable[[bytes], Any]


class EdgeObserver(Protocol):
    """What the edge tells of calls."""

    def calls_started(self, calls: int) -> None:
        """So many calls have arrived."""

    def calls_ended(self, method: str, code: str, seconds: Sequence[float]) -> None:
        """Calls of a method were answered with the status code's name, after so long each."""

    def call_shed(self) -> None:
        """A call was refused unread, for want of room."""


def _no_matter() -> int | None:
    """Leave it to the error table when a refused caller may come back."""
    return None


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """How calls are bounded.

    `pushback_us` notes that one more was refused, and says after how many µs it may come back.
    """

    default_deadline_s: float
    observer: EdgeObserver
    calls_max: int = CALLS_MAX
    calls_max_bytes: int = CALLS_MAX_BYTES
    pushback_us: Callable[[], int | None] = _no_matter
    # What records calls as spans; None where none are.
    spans: CallSpans | None = None


@dataclass(slots=True)
class Gate:
    """Whether calls are let in, how many are inside with how many bytes, and their streams."""

    calls_max: int = CALLS_MAX
    bytes_max: int = CALLS_MAX_BYTES
    open: bool = True
    inside: int = 0
    bytes: int = 0
    # Calls that ever came, let in or not: a stop waits until no more do.
    came: int = 0
    streams: set[asyncio.Timeout] = field(default_factory=set)
    # What else ends streams when no more calls are let in.
    closing: list[Callable[[], None]] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether one more call would be too many."""
        return self.inside >= self.calls_max or self.bytes >= self.bytes_max

    def takes(self, size: int) -> bool:
        """Say whether there is room for a message; one larger than all the room is taken alone."""
        return self.bytes + size <= self.bytes_max or not self.bytes

    def close(self) -> None:
        """Let no more calls in, and end the streams: they would not end by themselves."""
        self.open = False
        for stream in self.streams:
            if not stream.expired():
                stream.reschedule(asyncio.get_running_loop().time())
        for end in self.closing:
            end()


@dataclass(frozen=True, slots=True)
class Method:
    """A method as its servicer registered it, or as it takes calls in batches.

    `edged` is False for what is no part of the product, such as health: no gate, no metrics.
    """

    name: str
    handler: Handler
    batch: BatchMethod | None = None
    edged: bool = True

    @property
    def streams(self) -> bool:
        """Whether it sends or takes more than one message: such a call gets no deadline."""
        return bool(self.handler.request_streaming or self.handler.response_streaming)


class Registry:
    """Takes the place of a server while servicers register, and keeps what they bring."""

    def __init__(self, batched: BatchMethods | None = None) -> None:
        self._batched = batched or {}
        self.methods: dict[str, Method] = {}
        self.edged = True

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Ignore: the same methods come registered by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Keep the service's methods."""
        for name, handler in handlers.items():
            full = f"{service}/{name}"
            self.methods[f"/{full}"] = Method(full, handler, self._batched.get(full), self.edged)


class Edge:
    """The options, the gate, and what a caller is told of an error."""

    def __init__(self, options: EdgeOptions) -> None:
        self.options = options
        self.observer = options.observer
        self.gate = Gate(options.calls_max, options.calls_max_bytes)

    def shed(self) -> Refusal:
        """Return the refusal of a call whose message is not looked at, for want of room."""
        self.observer.call_shed()
        error = Overloaded if self.gate.open else Draining
        return refusal(error(retry_after_us=self.options.pushback_us()))

    def bound_s(self, remaining: float | None, default_s: float | None) -> float | None:
        """Return the seconds that a call may take. Raises `DeadlinePassed` if there are none."""
        if remaining is None:
            return default_s
        if remaining <= HOPELESS_S:
            raise DeadlinePassed
        return min(remaining, LONGEST_S)

    def answer(self, method: Method, error: Exception) -> Refusal:
        """Return the status that an error becomes, and log what nobody expected."""
        meant = self._meant(method, error)
        visible = shown(meant)
        if visible is not meant:
            log.error("call_failed", method=method.name, reference=str(visible), exc_info=meant)
        elif meant.__cause__ is not None and isinstance(meant, TallygateError):
            cause = repr(meant.__cause__)
            log.warning("backend_failed", method=method.name, reason=meant.reason, cause=cause)
        return refusal(visible)

    def _meant(self, method: Method, error: Exception) -> Exception:
        if isinstance(error, TimeoutError):
            # The only clock that runs out on a stream but its caller's is the gate's.
            cut = method.streams and not self.gate.open
            return Draining() if cut else DeadlinePassed()
        if isinstance(error, Overloaded) and error.retry_after_us is None:
            return Overloaded(retry_after_us=self.options.pushback_us())
        return error


def remaining_s(context: Context, default_s: float) -> float:
    """Return the seconds that the caller still waits, at most `LONGEST_S`."""
    # None where the caller set no deadline, whatever the stubs say.
    remaining: float | None = context.time_remaining()
    return default_s if remaining is None else min(remaining, LONGEST_S)
