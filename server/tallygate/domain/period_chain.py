"""A tenant's billing periods, one after the other: those that are kept, and else the calendar's.

Guarantees: pure; periods of one chain partition all time, also where the calendar has changed since
some of them ended.
Refuses to know: where periods are kept, and how far they have come.
"""

from bisect import bisect_right
from dataclasses import dataclass

from tallygate.domain.period import period_at
from tallygate.domain.window import Calendar, Window


@dataclass(frozen=True, slots=True)
class Chain:
    """Periods that are kept, in the order of their starts, and the calendar of all others.

    What is left out of `known` must not lie beside what is asked for.
    """

    calendar: Calendar
    known: tuple[Window, ...] = ()

    def at(self, instant_us: int) -> Window:
        """Return the period that holds an instant.

        Beside a period that is kept, it is the rest of the calendar's: see `period.following`.
        """
        place = bisect_right(self.known, instant_us, key=lambda each: each.start_us)
        found = period_at(self.calendar, instant_us)
        start_us, end_us = found.start_us, found.end_us
        if place:
            before = self.known[place - 1]
            if before.holds(instant_us):
                return before
            start_us = max(start_us, before.end_us)
        if place < len(self.known):
            end_us = min(end_us, self.known[place].start_us)
        return Window(start_us, end_us)

    def before(self, of: Window) -> Window:
        """Return the period that ends where another begins."""
        return self.at(of.start_us - 1)
