"""Usage of one customer on one meter, and what it adds up to.

Guarantees: exact decimals; sum, count and last over any span; on a meter with a time window, the
event received last in each window, by UTC, is the only one that counts; what was cancelled does not
count, and what it had overwritten counts again.
Refuses to know: lag, bounds of timestamps, duplicates.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from .objects import MeterEvent

WINDOW_S: Final = {"hour": 3_600, "day": 86_400}


class Series:
    """The events of one customer on one meter that were applied."""

    def __init__(self) -> None:
        self._events: list[MeterEvent] = []

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: MeterEvent) -> None:
        """Take up an event."""
        insort(self._events, event, key=_place)

    def total(self, formula: str, window: str | None, start_s: int, end_s: int) -> Decimal:
        """Add up what lies from `start_s` to before `end_s`."""
        if window is not None:
            counted = [
                event
                for event in self._survivors(WINDOW_S[window], start_s, end_s)
                if start_s <= event.timestamp < end_s
            ]
        else:
            counted = [event for event in self._between(start_s, end_s) if not event.cancelled]
        match formula:
            case "count":
                return Decimal(len(counted))
            case "last":
                return counted[-1].value if counted else Decimal(0)
            case _:
                return sum((event.value for event in counted), Decimal(0))

    def _survivors(self, window_s: int, start_s: int, end_s: int) -> Iterable[MeterEvent]:
        """Yield the last received event of each window that the span touches, by time."""
        first = start_s - start_s % window_s
        beyond = end_s + -end_s % window_s
        latest: dict[int, MeterEvent] = {}
        for event in self._between(first, beyond):
            at = event.timestamp // window_s
            if not event.cancelled and (at not in latest or latest[at].number < event.number):
                latest[at] = event
        return latest.values()

    def _between(self, start_s: int, end_s: int) -> list[MeterEvent]:
        low = bisect_left(self._events, (start_s, -1), key=_place)
        high = bisect_left(self._events, (end_s, -1), key=_place)
        return self._events[low:high]


def _place(event: MeterEvent) -> tuple[int, int]:
    return event.timestamp, event.number
