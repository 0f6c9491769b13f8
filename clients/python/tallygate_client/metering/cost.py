"""What one request comes to: what the app says of it, and how its end settles it.

Guarantees that it is settled at most once, and that a meter which was not asked for is an error at
once. Refuses to know who asks and how; safe in several threads.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from typing import Any

from tallygate_client.results import Decision
from tallygate_client.values import Item

from .rules import Question


class Ending(enum.Enum):
    """How a request ended."""

    COMPLETE = "complete"
    """The whole answer was handed over."""
    FAILED = "failed"
    """The app raised, or gave no answer."""
    LEFT = "left"
    """The client went away before the end."""


class Cost:
    """What a request costs; the app sets here what it came to."""

    def __init__(self, question: Question, decision: Decision, hold: Any = None) -> None:
        self.question = question
        self.decision = decision
        self._hold = hold
        self._actual: dict[int, int] = {}
        self._cancelled = False
        self._settled = False
        self._lock = threading.Lock()

    @property
    def tenant(self) -> str:
        """Who pays."""
        return self.question.tenant

    @property
    def items(self) -> tuple[Item, ...]:
        """What was asked for."""
        return self.question.items

    @property
    def operation_id(self) -> str:
        """The logical call's name."""
        return self.decision.operation_id

    @property
    def hold(self) -> Any:
        """The reservation; None where it was charged before."""
        return self._hold

    def set(self, meter: str, amount: int) -> None:
        """Say what a meter came to; what was said last counts."""
        self._put(self._place(meter), _amount(amount), whole=True)

    def add(self, meter: str, amount: int) -> None:
        """Say that a meter came to so much more, beginning at 0."""
        self._put(self._place(meter), _amount(amount), whole=False)

    def cancel(self) -> None:
        """Have nothing charged, however the request ends."""
        self._cancelled = True

    def measure(self, amount: int) -> None:
        """Add to what the middleware counts by itself, if it counts."""
        if self.question.measured is not None:
            self._put(self.question.measured, amount, whole=False)

    def amounts(self) -> list[int] | None:
        """Return what each item came to; None where nothing was said: what was reserved."""
        with self._lock:
            if not self._actual:
                return None
            return [self._actual.get(place, item.amount) for place, item in enumerate(self.items)]

    def settle(self, ending: Ending, charged: bool | None) -> Callable[[Any], list[Any]] | None:
        """Return what settles it, to be called with the client; None where that was done before.

        Args:
            ending: how the request ended.
            charged: whether what was answered is charged; None where nothing was answered.
        """
        with self._lock:
            if self._settled:
                return None
            self._settled = True
        success = ending is not Ending.FAILED and charged is True and not self._cancelled
        return self._commit if success else self._give_back

    def _commit(self, client: Any) -> list[Callable[[], Any]]:
        if self._hold is None:
            return []
        return [lambda: self._hold.commit(self.amounts())]

    def _give_back(self, client: Any) -> list[Callable[[], Any]]:
        if self._hold is not None:
            return [self._hold.release]
        if not self.question.refund_failures:
            return []
        return [self._refund(client, *each) for each in enumerate(self.decision.event_ids)]

    def _refund(self, client: Any, place: int, event_id: str) -> Callable[[], Any]:
        # Made of the request's own, so that whoever repeats it takes back nothing twice.
        name = f"{self.operation_id}:refund:{place}"
        return lambda: client.refund(
            self.tenant, event_id, operation_id=name, reason="the request failed"
        )

    def _place(self, meter: str) -> int:
        if self._hold is None:
            raise ValueError(f"{meter}: mode 'consume' has charged already")
        places = [place for place, item in enumerate(self.items) if item.meter == meter]
        if len(places) != 1:
            known = sorted({item.meter for item in self.items})
            found = "several items have" if places else "no item has"
            raise ValueError(f"{found} the meter {meter!r}; the request's are {known}")
        return places[0]

    def _put(self, place: int, amount: int, *, whole: bool) -> None:
        with self._lock:
            before = 0 if whole else self._actual.get(place, 0)
            self._actual[place] = before + amount


def _amount(amount: int) -> int:
    if isinstance(amount, bool) or not isinstance(amount, int):
        raise TypeError(f"an amount is a whole number, not {type(amount).__name__}")
    if amount < 0:
        raise ValueError("an amount is at least 0")
    return amount
