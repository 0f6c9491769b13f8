"""catalog, ledger ─▶ [ remake ] ─▶ rollups of groups: in the shapes that the catalog declares.

If we die here after a shape was switched, its rollups have what is stored from then on, and are not
whole; the next run, here or elsewhere, goes on with the oldest day that they lack. A step that was
under way is there whole or not at all.

Guarantees: what is made anew is exact while events come; a step is bounded by the events it reads,
and ledger transactions of its meter wait for no longer than it takes.
Refuses to know: SQL, and who reads the rollups.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

from tallygate.domain.catalog import Catalog
from tallygate.domain.errors import InvalidField, NotFound
from tallygate.domain.ids import MeterName
from tallygate.domain.path_fault import closest
from tallygate.domain.rollup import shape_of
from tallygate.domain.window import DAY_US, HOUR_US, NO_END_US, Window
from tallygate.ports import CatalogStore, Clock
from tallygate.ports.export import EventsArchived
from tallygate.ports.rollups import Rollups, UsedDay

# A second or two of work: a ledger transaction waits five for a lock.
STEP_EVENTS_MAX: Final = 50_000
# Some thousands of rows each, so that a run ends soon.
PURGED_GROUPS_MAX: Final = 200
_HOURS: Final = 24


class RemakeObserver(Protocol):
    """What keeping rollups tells of itself."""

    def incomplete(self, meters: int) -> None:
        """So many meters have rollups that lack events."""


class SilentRemakeObserver:
    """Hears nothing."""

    def incomplete(self, meters: int) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class RemakeCounts:
    """What one run did: shapes switched, steps made, groups deleted."""

    switched: int = 0
    steps: int = 0
    purged: int = 0

    @property
    def more(self) -> bool:
        """Whether anything was done: then there may be more."""
        return bool(self.switched or self.steps or self.purged)


@dataclass(frozen=True, slots=True)
class MeterRollups:
    """A meter with rollups of its own, and on how many of its days they lack events."""

    meter: MeterName
    whole: bool
    days: int
    missing: int


class KeepRollups:
    """Has rollups follow the catalog that is in effect, and makes whole what lacks events."""

    def __init__(
        self,
        rollups: Rollups,
        catalogs: CatalogStore,
        clock: Clock,
        observer: RemakeObserver | None = None,
    ) -> None:
        self._rollups = rollups
        self._catalogs = catalogs
        self._clock = clock
        self._observer = observer or SilentRemakeObserver()

    async def run_once(self) -> RemakeCounts:
        """Switch what the catalog declares otherwise, make some steps, delete what is given up."""
        catalog = await self._catalogs.effective(self._clock.now_us())
        if not catalog.version:
            return RemakeCounts()
        switched = await self._follow(catalog)
        states = await self._rollups.shapes()
        lacking = [state for state in states if not state.whole]
        self._observer.incomplete(len(lacking))
        steps = 0
        for state in lacking:
            steps = await self._some(state.number)
            if steps:
                break
        purged = await self._rollups.purge(PURGED_GROUPS_MAX)
        return RemakeCounts(switched, steps, purged)

    async def rebuild(
        self,
        meter: MeterName,
        window: Window | None = None,
        note: Callable[[int], None] = lambda _events: None,
    ) -> int:
        """Make a meter's rollups anew, of whole hours or of all time; return how many steps.

        Days whose events were dropped stay as they are. Raises `EventsArchived` where the window
        has one, `NotFound` for a meter that the catalog does not have, and `InvalidField` for one
        without rollups of its own, or a window that is none.
        """
        catalog = await self._catalogs.effective(self._clock.now_us())
        _checked(catalog, meter, window)
        await self._follow(catalog)
        numbers = {state.meter: state.number for state in await self._rollups.shapes()}
        number, made = numbers.get(meter, 0), 0
        days = await self._rollups.days(number)
        gone = [day for day in days if day.archived]
        if window is not None and any(
            day.start_us < window.end_us and window.start_us < day.start_us + DAY_US for day in gone
        ):
            raise EventsArchived("events of the window are in an archive alone", field="from")
        for step in steps_of(days, window):
            if not await self._rollups.rebuild(number, step.hours, step.hours):
                return made
            made += 1
            note(step.events)
        if window is None:
            await self._rollups.rebuild(number, _last_hour(days), _whole_from(days))
        return made

    async def states(self) -> list[MeterRollups]:
        """Return the meters with rollups of their own, and what these lack."""
        found = []
        for state in await self._rollups.shapes():
            days = await self._rollups.days(state.number)
            missing = sum(not state.whole and not day.whole for day in days)
            found.append(MeterRollups(state.meter, state.whole, len(days), missing))
        return found

    async def _follow(self, catalog: Catalog) -> int:
        """Put the shapes of a catalog into effect; return how many were others."""
        known = {state.meter: state.shape for state in await self._rollups.shapes()}
        wanted = {name: shape_of(meter) for name, meter in catalog.meters.items()}
        switched = 0
        for name in sorted({*known, *wanted}):
            if known.get(name) != wanted.get(name):
                await self._rollups.switch(name, wanted.get(name))
                switched += 1
        return switched

    async def _some(self, number: int) -> int:
        """Make the oldest days that lack events whole, about as many as a step takes."""
        days = await self._rollups.days(number)
        lacking = [day for day in days if not day.whole and not day.archived]
        if not lacking and any(day.archived and not day.whole for day in days):
            # What these lack nobody can give them: what asks for them is refused for good.
            return 0
        chunk = next(_chunks([day for day in days if day.archived or not day.whole]), [])
        steps = list(steps_of(chunk))
        for step in steps:
            if not await self._rollups.rebuild(number, step.hours, step.hours):
                return 0
        if len(chunk) == len(lacking):
            # Days that come to be used later are whole from their first event on.
            await self._rollups.rebuild(number, _last_hour(days), _whole_from(days))
        return len(steps) or 1


@dataclass(frozen=True, slots=True)
class StepOf:
    """Whole hours that are made anew at once, and about how many events they have."""

    hours: Window
    events: int


def steps_of(days: Sequence[UsedDay], window: Window | None = None) -> Iterator[StepOf]:
    """Iterate over what makes days anew, oldest first, only hours of the window if there is one.

    A step has days with as many events as it may read; a day with more is divided into hours. None
    has a day whose events were dropped.
    """
    for chunk in _chunks(days):
        start_us, end_us = chunk[0].start_us, chunk[-1].start_us + DAY_US
        events = sum(day.events for day in chunk)
        parts = min(_HOURS, max(1, -(-events // STEP_EVENTS_MAX)))
        hours = (end_us - start_us) // HOUR_US
        ends = [start_us + hours * part // parts * HOUR_US for part in range(parts + 1)]
        for first_us, last_us in pairwise(ends):
            if window is not None:
                first_us = max(first_us, window.start_us)  # noqa: PLW2901
                last_us = min(last_us, window.end_us)  # noqa: PLW2901
            if first_us < last_us:
                yield StepOf(Window(first_us, last_us), events // parts)


def _chunks(days: Sequence[UsedDay]) -> Iterator[list[UsedDay]]:
    chunk: list[UsedDay] = []
    for day in days:
        full = sum(each.events for each in chunk) + day.events > STEP_EVENTS_MAX
        if chunk and (full or day.archived):
            yield chunk
            chunk = []
        # Made anew of nothing, it would lose what it has.
        if not day.archived:
            chunk.append(day)
    if chunk:
        yield chunk


def _last_hour(days: Sequence[UsedDay]) -> Window:
    """Return an hour that is cheap to make anew: the first after all usage."""
    start_us = days[-1].start_us + DAY_US if days else 0
    return Window(start_us, start_us + HOUR_US)


def _whole_from(days: Sequence[UsedDay]) -> Window | None:
    """Return from when on rollups are whole once all that can be was made anew, None for ever."""
    lost = [day.start_us for day in days if day.archived and not day.whole]
    return Window(max(lost) + DAY_US, NO_END_US) if lost else None


def _checked(catalog: Catalog, meter: MeterName, window: Window | None) -> None:
    found = catalog.meters.get(meter)
    if found is None:
        guess = closest(meter, catalog.meters)
        hint = f"; did you mean {guess}?" if guess else ""
        raise NotFound(f"there is no meter {meter!r}{hint}", field="meter")
    if shape_of(found) is None:
        raise InvalidField("has no rollups of its own: it has no groups", field="meter")
    if window is None:
        return
    for name, at_us in (("from", window.start_us), ("to", window.end_us)):
        if at_us % HOUR_US:
            raise InvalidField("must be a whole hour", field=name)
    if window.start_us >= window.end_us:
        raise InvalidField("must be after from", field="to")
