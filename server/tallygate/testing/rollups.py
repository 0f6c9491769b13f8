"""Rollups of meters that ask for them, in memory: which there are, and what they lack.

Guarantees: passes the same contract tests as the rollups in Postgres.
Refuses to know: what is in rollups.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tallygate.domain.ids import MeterName
from tallygate.domain.rollup import Shape
from tallygate.domain.window import DAY_US, Window
from tallygate.ports.rollups import ShapeState, UsedDay
from tallygate.testing.ledger import FakeLedger


@dataclass(slots=True)
class _Kept:
    """A shape, the windows it is whole in, None for everywhere, and the groups given up for it."""

    shape: Shape | None
    windows: list[Window] | None
    number: int


@dataclass(slots=True)
class FakeRollups:
    """The `Rollups` port over a `FakeLedger`.

    `remade` are the steps that were made, `archived` the days whose events were dropped.
    """

    ledger: FakeLedger
    remade: list[tuple[MeterName, Window]] = field(default_factory=list)
    archived: set[int] = field(default_factory=set)
    _kept: dict[MeterName, _Kept] = field(default_factory=dict)
    _given_up: int = 0
    _switched: int = 0

    async def shapes(self) -> list[ShapeState]:
        """Return the shapes in effect, by meter."""
        self.ledger.answer()
        return [
            ShapeState(meter, kept.shape, kept.windows is None, kept.number)
            for meter, kept in sorted(self._kept.items())
            if kept.shape is not None
        ]

    async def switch(self, meter: MeterName, shape: Shape | None) -> None:
        """Put a shape into effect, None for no rollups of its own."""
        self.ledger.answer()
        before = self._kept.get(meter)
        if before is not None and before.shape == shape:
            return
        used = self._days(meter)
        if before is not None and before.shape is not None and used:
            self._given_up += 1
        self._switched += 1
        self._kept[meter] = _Kept(shape, [] if used else None, self._switched)

    async def days(self, number: int) -> Sequence[UsedDay]:
        """Return the days on which the meter of a shape was used, oldest first."""
        self.ledger.answer()
        found = self._numbered(number)
        if found is None:
            return []
        meter, windows = found[0], found[1].windows
        return [
            UsedDay(
                day_us,
                events,
                windows is None
                or any(each.start_us <= day_us < each.end_us - DAY_US + 1 for each in windows),
                day_us in self.archived,
            )
            for day_us, events in sorted(self._days(meter).items())
        ]

    async def rebuild(self, number: int, hours: Window, known: Window | None) -> bool:
        """Make rollups of whole hours anew; then they are whole in `known`, for None everywhere."""
        self.ledger.answer()
        found = self._numbered(number)
        if found is None:
            return False
        meter, kept = found
        self.remade.append((meter, hours))
        if known is None:
            kept.windows = None
        elif kept.windows is not None:
            kept.windows = _joined([*kept.windows, known])
        return True

    async def purge(self, groups_max: int) -> int:
        """Delete rollups of up to so many groups of shapes that were given up; say how many."""
        self.ledger.answer()
        purged = min(groups_max, self._given_up)
        self._given_up -= purged
        return purged

    def _numbered(self, number: int) -> tuple[MeterName, _Kept] | None:
        for meter, kept in self._kept.items():
            if kept.number == number and kept.shape is not None:
                return meter, kept
        return None

    def _days(self, meter: MeterName) -> dict[int, int]:
        found: dict[int, int] = {}
        for event in self.ledger.events.values():
            if event.meter == meter:
                day_us = event.event_time_us // DAY_US * DAY_US
                found[day_us] = found.get(day_us, 0) + (not event.refund_of)
        return found


def _joined(windows: Sequence[Window]) -> list[Window]:
    """Return windows, those that adjoin as one."""
    found: list[Window] = []
    for each in sorted(windows, key=lambda window: window.start_us):
        if found and each.start_us <= found[-1].end_us:
            found[-1] = Window(found[-1].start_us, max(found[-1].end_us, each.end_us))
        else:
            found.append(each)
    return found
