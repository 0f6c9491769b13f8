"""The seam of tracing: spans are begun and ended, and who works for which span is known.

Guarantees: nothing here costs anything unless a tracer was given: without one there is no span, and
`here()` is `NOWHERE`.
Refuses to know: how spans are recorded, sampled and sent.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import Final, Protocol

from tallygate.domain.trace import NOWHERE

Value = str | int | float | bool


class Kind(StrEnum):
    """What a span is to its neighbours, as OpenTelemetry has it."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span(Protocol):
    """Work that is recorded. It ends once; what comes after is not recorded."""

    @property
    def place(self) -> bytes:
        """Where it is, as `domain/trace.py` has it."""
        ...

    def tell(self, name: str, value: Value) -> None:
        """Note an attribute."""
        ...

    def end(self, error: str = "") -> None:
        """End it now, with the kind of the error that ended it, if one did."""
        ...


class Tracer(Protocol):
    """Begins spans."""

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: bytes,
        attributes: Mapping[str, Value],
        links: Sequence[bytes] = (),
    ) -> Span | None:
        """Return a span that began now, None where nothing is to be recorded.

        A parent decides for those below it. Without one, so many of all are, as is set.
        """
        ...


_HERE: Final[ContextVar[Span | None]] = ContextVar("tallygate_span", default=None)


def current() -> Span | None:
    """Return the span that this task works for, None for none."""
    return _HERE.get()


def here() -> bytes:
    """Return the place of that span."""
    span = _HERE.get()
    return NOWHERE if span is None else span.place


@contextmanager
def within(span: Span) -> Iterator[None]:
    """Have all that is begun in here work for a span, and end it."""
    token = _HERE.set(span)
    try:
        yield
    except BaseException as error:
        span.end(type(error).__name__)
        raise
    finally:
        _HERE.reset(token)
    span.end()


@contextmanager
def working_for(span: Span) -> Iterator[None]:
    """Have all that is begun in here work for a span, which somebody else ends."""
    token = _HERE.set(span)
    try:
        yield
    finally:
        _HERE.reset(token)
