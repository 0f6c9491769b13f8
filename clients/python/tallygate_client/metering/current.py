"""The cost of the work at hand, for work that is no web request.

Guarantees that each thread and task sees its own. Refuses to know how work is begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .cost import Cost

_CURRENT: ContextVar[Cost] = ContextVar("tallygate_cost")


def current_cost() -> Cost:
    """Return what the work at hand costs, to say what it came to.

    Raises:
        LookupError: it is not metered.
    """
    found = _CURRENT.get(None)
    if found is None:
        raise LookupError("this work is not metered")
    return found


@contextmanager
def at_hand(cost: Cost) -> Iterator[None]:
    """Have a cost at hand for the length of a block."""
    token = _CURRENT.set(cost)
    try:
        yield
    finally:
        _CURRENT.reset(token)
