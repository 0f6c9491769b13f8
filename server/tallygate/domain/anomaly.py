"""Unusual hours of usage: what an hour is expected to hold, by the hours before it.

Guarantees: pure and exact, whole numbers and fractions of them; a series is held in constant state,
however long it is; the same usage gives the same findings, however its hours are divided into runs.
Refuses to know: where usage is kept, and who is told.

Hours are numbered from the Unix epoch and are those of UTC, as is the hour of the week: no summer
time moves them. An hour is held against the same hours of the weeks before where those are regular;
else against the hours that had usage at all. See docs/anomalies.md.

Sums are kept in two generations, one being filled and the one before it: that is a rolling window
of one to two generations, of which nothing has to be kept but its sums, and nothing is rounded.
"""

from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from enum import StrEnum
from fractions import Fraction
from math import isqrt
from typing import Final, Generic, Self, TypeVar

WEEK_HOURS: Final = 168
# A day adapts to a new level soon, and is not moved by a single hour.
LEVEL_HOURS: Final = 24
# So long are four values of each hour of the week in a generation.
SEASON_HOURS: Final = 4 * WEEK_HOURS
# Until a series is a week old, nobody knows which of its hours are quiet.
WARM_HOURS: Final = WEEK_HOURS
# Fewer values have no spread to speak of.
WARM_SLOT: Final = 3
WARM_BUSY: Final = 8
# Usage that is later than this is found by no second look: most of what is late comes within hours.
FINAL_AFTER_HOURS: Final = 6
# A spread is never taken to be less than this part of the mean: no usage is so regular.
FLOOR: Final = Fraction(1, 20)
# The epoch was a Thursday; hour 0 of a week is its Monday's first.
_MONDAY_HOURS: Final = 72


class Basis(StrEnum):
    """What an hour was held against."""

    WARMING = "warming"
    SEASONAL = "seasonal"
    ROLLING = "rolling"
    SPORADIC = "sporadic"


class Direction(StrEnum):
    """On which side of what was expected an hour is."""

    USUAL = "usual"
    HIGH = "high"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Used:
    """An hour's usage: units, below 0 where more was taken back, and events."""

    units: int = 0
    events: int = 0


NOTHING: Final = Used()


@dataclass(frozen=True, slots=True)
class Options:
    """How unusual is an anomaly.

    `sensitivity` is how many deviations from the mean are usual. In hours with fewer events than
    `events_min`, had and expected, nothing is an anomaly.
    """

    sensitivity: Fraction = Fraction(4)
    events_min: int = 100


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over hours; `busy` are those that had any usage."""

    hours: int = 0
    busy: int = 0
    events: int = 0
    units: int = 0
    squares: int = 0

    @classmethod
    def of(cls, units: int, events: int) -> Self:
        """Return one hour's."""
        return cls(1, int(units != 0 or events != 0), events, units, units * units)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.hours + other.hours,
            self.busy + other.busy,
            self.events + other.events,
            self.units + other.units,
            self.squares + other.squares,
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """Sums over hours of what was used and what the weeks before led to expect."""

    used: int = 0
    expected: int = 0
    residual_squares: int = 0
    expected_squares: int = 0

    @classmethod
    def of(cls, used: int, expected: int) -> Self:
        """Return one hour's."""
        return cls(used, expected, (used - expected) ** 2, expected * expected)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.used + other.used,
            self.expected + other.expected,
            self.residual_squares + other.residual_squares,
            self.expected_squares + other.expected_squares,
        )


Sums = TypeVar("Sums", Tally, Fit)


@dataclass(frozen=True, slots=True)
class Track(Generic[Sums]):
    """Sums in two generations; `number` is that of the one being filled."""

    number: int
    filling: Sums
    full: Sums

    def adding(self, number: int, more: Sums) -> "Track[Sums]":
        """Return the track with more in a generation: this one, or a later one.

        The generation before is then the last one that had anything.
        """
        if number == self.number:
            return Track(number, self.filling + more, self.full)
        return Track(number, more, self.filling)

    @property
    def total(self) -> Sums:
        """Both generations together."""
        return self.filling + self.full


def _tallies() -> "Track[Tally]":
    return Track(0, Tally(), Tally())


def _fits() -> "Track[Fit]":
    return Track(0, Fit(), Fit())


@dataclass(frozen=True, slots=True)
class Series:
    """All that is known of a tenant's usage of a meter but its hours of the week.

    `next_hour` is the next to be looked at; `looked` are the usages of those looked at once, of
    which nothing is learned yet, as late usage may still come.
    """

    next_hour: int
    looked: tuple[Used, ...] = ()
    rolling: Track[Tally] = field(default_factory=_tallies)
    fit: Track[Fit] = field(default_factory=_fits)
    level: Track[Fit] = field(default_factory=_fits)

    @property
    def forgotten(self) -> bool:
        """Whether a week or two have gone by without any usage."""
        total = self.rolling.total
        return (
            total.hours >= WEEK_HOURS
            and not total.busy
            and not any(each != NOTHING for each in self.looked)
        )


Season = MutableMapping[int, Track[Tally]]
"""What is known of each hour of the week, by its number from Monday's first. It is not changed."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an hour is expected to hold: usual is from `low` to `high`, both inclusive."""

    basis: Basis
    mean: Fraction = Fraction(0)
    variance: Fraction = Fraction(0)
    events: Fraction = Fraction(0)
    low: int = 0
    high: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of an hour; `late` where it was looked at again, for usage that came late."""

    hour: int
    used: Used
    expected: Expected
    direction: Direction
    late: bool = False

    @property
    def score(self) -> Decimal:
        """How many deviations the hour is off, to two places."""
        variance, off = self.expected.variance, self.used.units - self.expected.mean
        if not variance:
            return Decimal(0)
        with localcontext(prec=50):
            square = off * off / variance
            root = (Decimal(square.numerator) / Decimal(square.denominator)).sqrt()
            return (-root if off < 0 else root).quantize(Decimal("0.01"))


def hour_of_week(hour: int) -> int:
    """Return an hour's place in its week: 0 is Monday's first, in UTC."""
    return (hour + _MONDAY_HOURS) % WEEK_HOURS


def advance(
    series: Series,
    season: Season,
    usage: Mapping[int, Used],
    until_hour: int,
    options: Options,
) -> tuple[Series, dict[int, Track[Tally]], list[Finding]]:
    """Look at all hours before `until_hour` that have not been; learn from those that are final.

    `usage` is by hour, nothing where it has none, from the first of `series.looked` on. Returns the
    series, the hours of the week that have changed, and every anomaly.
    """
    found: list[Finding] = []
    changed: dict[int, Track[Tally]] = {}
    known = ChainMap(changed, season)
    for hour in range(series.next_hour, until_hour):
        used = usage.get(hour, NOTHING)
        first = _finding(series, known, hour, used, options)
        if first.direction is not Direction.USUAL:
            found.append(first)
        series = Series(hour + 1, (*series.looked, used), series.rolling, series.fit, series.level)
        if len(series.looked) > FINAL_AFTER_HOURS:
            settled = series.next_hour - len(series.looked)
            used = usage.get(settled, NOTHING)
            late = _finding(series, known, settled, used, options, late=used != series.looked[0])
            if late.late and late.direction is not Direction.USUAL:
                found.append(late)
            series = _learned(series, known, late)
    return series, changed, found


def expectation(
    series: Series, season: Mapping[int, Track[Tally]], hour: int, options: Options
) -> Expected:
    """Return what an hour is expected to hold, by what has been learned."""
    rolling = series.rolling.total
    if rolling.hours < WARM_HOURS:
        return Expected(Basis.WARMING)
    place = hour_of_week(hour)
    slot = season[place].total if place in season else Tally()
    if slot.hours >= WARM_SLOT and slot.busy * 2 >= slot.hours:
        return _seasonal(series, rolling, slot, options)
    if slot.hours < WARM_SLOT and rolling.busy * 2 >= rolling.hours:
        basis, count = Basis.ROLLING, rolling.hours
    elif rolling.busy >= WARM_BUSY:
        basis, count = Basis.SPORADIC, rolling.busy
    else:
        return Expected(Basis.WARMING)
    mean = Fraction(rolling.units, count)
    variance = max(_spread(rolling, count), _floor(rolling, abs(mean)))
    low, high = _band(mean, variance, options.sensitivity)
    return Expected(basis, mean, variance, Fraction(rolling.events, count), low, high)


def _finding(
    series: Series,
    season: Mapping[int, Track[Tally]],
    hour: int,
    used: Used,
    options: Options,
    *,
    late: bool = False,
) -> Finding:
    expected = expectation(series, season, hour, options)
    direction = Direction.USUAL
    # Of usage that comes now and then, an hour without any says nothing.
    silent = expected.basis is Basis.SPORADIC and used == NOTHING
    enough = max(Fraction(used.events), expected.events) >= options.events_min
    if expected.basis is not Basis.WARMING and enough and not silent:
        if used.units > expected.high:
            direction = Direction.HIGH
        elif used.units < expected.low:
            direction = Direction.LOW
    return Finding(hour, used, expected, direction, late)


def _learned(series: Series, known: ChainMap[int, Track[Tally]], final: Finding) -> Series:
    """Return the series with its oldest hour learned; its hour of the week is changed in place."""
    hour, used = final.hour, final.used
    place, week = hour_of_week(hour), hour // WEEK_HOURS
    learned = _clamped(used.units, final.expected)
    fit, level = series.fit, series.level
    if final.expected.basis is Basis.SEASONAL:
        expected = round(final.expected.mean)
        fit = fit.adding(week, Fit.of(learned, expected))
        level = level.adding(hour // LEVEL_HOURS, Fit.of(learned, expected))
    tally = Tally.of(learned, used.events)
    known[place] = known.get(place, _tallies()).adding(hour // SEASON_HOURS, tally)
    rolling = series.rolling.adding(week, tally)
    return Series(series.next_hour, series.looked[1:], rolling, fit, level)


def _seasonal(series: Series, rolling: Tally, slot: Tally, options: Options) -> Expected:
    """Hold an hour against the same hours of the weeks before, and these at today's level."""
    mean = Fraction(slot.units, slot.hours)
    fit, level = series.fit.total, series.level.total
    usual = max(abs(mean), Fraction(abs(rolling.units), rolling.hours))
    variance = max(_spread(slot, slot.hours), _floor(rolling, usual))
    if fit.expected_squares:
        # Of a few values the spread may be small by chance; all hours together tell how well the
        # weeks before have led to expect what came.
        off = fit.residual_squares * slot.units**2
        variance = max(variance, Fraction(off, fit.expected_squares * slot.hours**2))
    low, high = _band(mean, variance, options.sensitivity)
    if level.expected > 0 and level.used > 0:
        ratio = Fraction(level.used, level.expected)
        # The band at that level, as all of it is so many times as wide.
        lower, higher = _band(mean * ratio, variance, options.sensitivity * ratio)
        low, high = min(low, lower), max(high, higher)
    return Expected(Basis.SEASONAL, mean, variance, Fraction(slot.events, slot.hours), low, high)


def _spread(tally: Tally, count: int) -> Fraction:
    """Return the variance to expect of one more value, after so many."""
    if count < 2:
        return Fraction(0)
    squares = count * tally.squares - tally.units**2
    return Fraction(squares * (count + 1), count * count * (count - 1))


def _floor(rolling: Tally, usual: Fraction) -> Fraction:
    """Return the least variance at a level: of events that come at random, and a part of it."""
    part = (FLOOR * usual) ** 2
    if not rolling.events:
        return part
    return max(part, Fraction(abs(rolling.units), rolling.events) * usual)


def _band(mean: Fraction, variance: Fraction, sensitivity: Fraction) -> tuple[int, int]:
    """Return the least and the most units within so many deviations of the mean, exactly."""
    below = mean.denominator
    squares = variance.numerator * (sensitivity.numerator * below) ** 2
    root = isqrt(squares // (variance.denominator * sensitivity.denominator**2))
    return -((root - mean.numerator) // below), (mean.numerator + root) // below


def _clamped(units: int, expected: Expected) -> int:
    """Return what is learned of an hour: a wild one counts, but does not blind.

    A new level is learned over some hours, each of which moves the band on.
    """
    if expected.basis is Basis.WARMING:
        return units
    room = expected.high - expected.low + 1
    return min(max(units, expected.low - room), expected.high + room)
