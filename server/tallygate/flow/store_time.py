"""gather ─▶ [ store_time ] ─▶ QuotaStore: what the store's clock says, known from its answers.

If we die here, nothing is lost: the next process learns it from its first answer.

Guarantees: the time it tells is never ahead of the store's own, but after the store's clock was set
back and until its next answer; a step of this machine's wall clock changes nothing.
Refuses to know: who asks, and what for.
"""

from typing import Final

S_US: Final = 1_000_000


class StoreTime:
    """An estimate from pairs of a store's time and the span in which it was read.

    Of each answer the store's clock is known to have been read between sending and receiving. So
    its lead over ours lies between two bounds; the greatest lower bound is kept, and held below
    each upper one. It is the interval method of clock synchronisation (Marzullo, 1984), one-sided.
    """

    def __init__(self) -> None:
        self._lead_us: int | None = None

    def learn(self, store_us: int, sent_s: float, received_s: float) -> None:
        """Take in an answer that names the store's time; the span is on the monotonic clock."""
        least = store_us - _us(received_s)
        most = store_us - _us(sent_s)
        held = least if self._lead_us is None else max(self._lead_us, least)
        self._lead_us = min(held, most)

    def at(self, monotonic_s: float) -> int:
        """Return the store's time at that moment of the monotonic clock, 0 while it is unknown."""
        return 0 if self._lead_us is None else self._lead_us + _us(monotonic_s)


def _us(seconds: float) -> int:
    return int(seconds * S_US)
