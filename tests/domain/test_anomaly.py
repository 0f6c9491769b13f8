"""Unusual hours are found, usual ones are not, exactly and however runs divide the hours."""

from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallygate.domain.anomaly import (
    FINAL_AFTER_HOURS,
    Basis,
    Direction,
    Finding,
    Options,
    Series,
    Tally,
    Track,
    Used,
    advance,
    expectation,
    hour_of_week,
)
from tests.anomaly_usage import MONDAY, WEEK, busy, office, sporadic

OPTIONS = Options()
WHOLE = range(MONDAY, MONDAY + 10 * WEEK)
LATER = MONDAY + 8 * WEEK


def found(usage: Mapping[int, Used], options: Options = OPTIONS) -> list[Finding]:
    """Return the anomalies of ten weeks."""
    return advance(Series(MONDAY), {}, usage, WHOLE.stop, options)[2]


def test_weeks_begin_on_monday_in_utc() -> None:
    """The epoch was a Thursday; hour 0 of the week is Monday's first, summer or winter."""
    assert hour_of_week(0) == 72
    assert hour_of_week(4 * 24) == 0
    # 2026-03-29, when clocks in Europe change, 00:00 UTC: a Sunday.
    assert hour_of_week(1_774_742_400 // 3_600) == 6 * 24


@pytest.mark.parametrize("seed", range(4))
def test_usual_weeks_have_no_anomaly(seed: int) -> None:
    """Days, nights, weekends and noise are what is expected, over ten weeks."""
    assert len(found(busy(seed, WHOLE))) <= 1
    assert found(office(seed, WHOLE)) == []
    assert found(sporadic(seed, WHOLE)) == []


@pytest.mark.parametrize(
    ("place", "times", "direction"),
    [
        (60, 3, Direction.HIGH),
        (61, 0, Direction.LOW),
        (13, 2, Direction.HIGH),
        (3, 4, Direction.HIGH),
        (5 * 24 + 13, 2, Direction.HIGH),
    ],
)
def test_an_unusual_hour_is_found(place: int, times: int, direction: Direction) -> None:
    """An hour of several times its usage, or of none, is an anomaly, and no other is."""
    usage = busy(0, WHOLE)
    hour = LATER + place
    usage[hour] = Used(usage[hour].units * times, usage[hour].events * times)
    (anomaly,) = found(usage)
    assert (anomaly.hour, anomaly.direction, anomaly.late) == (hour, direction, False)
    assert anomaly.expected.basis is Basis.SEASONAL
    assert abs(anomaly.score) > 4


def test_usage_of_the_day_is_unusual_at_night() -> None:
    """What is usual at noon is not at three, where the rolling mean alone would let it pass."""
    usage = busy(0, WHOLE)
    usage[LATER + 3] = usage[LATER + 13]
    (anomaly,) = found(usage)
    assert anomaly.hour == LATER + 3
    rolling = advance(Series(MONDAY), {}, usage, LATER + 3, OPTIONS)[0].rolling.total
    assert anomaly.used.units * rolling.hours < 3 * rolling.units


def test_a_missing_office_hour_is_found() -> None:
    """Where an hour is regular, its silence is an anomaly; the silence of the night is none."""
    usage = office(0, WHOLE)
    del usage[LATER + 11]
    (anomaly,) = found(usage)
    assert (anomaly.hour, anomaly.direction, anomaly.used) == (LATER + 11, Direction.LOW, Used())


def test_a_wild_job_is_found_among_sporadic_ones() -> None:
    """Usage that comes now and then is held against the hours that had any."""
    usage = sporadic(1, WHOLE)
    usage[LATER] = Used(50_000, 5_000)
    (anomaly,) = found(usage)
    assert (anomaly.hour, anomaly.expected.basis) == (LATER, Basis.SPORADIC)


def test_nothing_is_found_while_a_series_is_young() -> None:
    """In its first week a series may do as it likes."""
    usage = busy(0, range(MONDAY, MONDAY + WEEK))
    usage[MONDAY + 100] = Used(10**9, 10**6)
    assert advance(Series(MONDAY), {}, usage, MONDAY + WEEK, OPTIONS)[2] == []


def test_small_hours_are_left_alone() -> None:
    """Where few events are had and expected, nothing is an anomaly, whatever its units."""
    usage = {hour: Used(10, 10) for hour in WHOLE}
    usage[LATER] = Used(10_000, 99)
    assert found(usage) == []
    (anomaly,) = found(usage, Options(events_min=99))
    assert anomaly.hour == LATER


def test_sensitivity_is_in_deviations() -> None:
    """Fewer deviations find more."""
    usage = busy(0, WHOLE)
    counts = [len(found(usage, Options(Fraction(each)))) for each in ("1.5", "2", "3", "4")]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 20 > counts[-1]


@pytest.mark.parametrize("level", [0.2, 1.6, 3, 20])
def test_a_new_level_is_learned(level: float) -> None:
    """A lasting change is told at once, and is what is expected after a day or so."""
    usage = busy(0, range(MONDAY, LATER)) | busy(0, range(LATER, WHOLE.stop), level)
    hours = [each.hour - LATER for each in found(usage)]
    assert min(hours) <= 3
    assert max(hours) < 40
    assert len(hours) < 40


def test_a_spike_does_not_blind() -> None:
    """After an hour of a thousand times its usage, the same hour of the next week is looked at."""
    usage = busy(0, WHOLE)
    for week, times in ((0, 1_000), (1, 4)):
        hour = LATER + week * WEEK + 13
        usage[hour] = Used(usage[hour].units * times, usage[hour].events * times)
    assert [each.hour for each in found(usage)] == [LATER + 13, LATER + WEEK + 13]


def test_late_usage_is_looked_at_once_more() -> None:
    """Usage that came after the first look is found at the second; a third does not come."""
    usage = busy(0, WHOLE)
    hour = LATER + 13
    series, season, before = advance(Series(MONDAY), {}, usage, hour + 2, OPTIONS)
    usage[hour] = Used(usage[hour].units * 5, usage[hour].events * 5)
    series, changed, second = advance(series, season, usage, hour + FINAL_AFTER_HOURS + 1, OPTIONS)
    assert before == []
    assert [(each.hour, each.late) for each in second] == [(hour, True)]
    usage[hour] = Used(usage[hour].units * 5, usage[hour].events * 5)
    after = advance(series, season | changed, usage, hour + WEEK, OPTIONS)[2]
    assert [each for each in after if each.hour == hour] == []


def test_an_hour_that_has_not_changed_is_not_told_again() -> None:
    """The second look of an anomaly that stays as it was finds nothing new."""
    usage = busy(0, WHOLE)
    usage[LATER] = Used(10**7, 10**5)
    assert [(each.hour, each.late) for each in found(usage)] == [(LATER, False)]


def test_a_series_without_usage_is_forgotten() -> None:
    """Two weeks of silence end a series; one hour of usage keeps it."""
    usage = busy(0, range(MONDAY, MONDAY + WEEK))
    for silent, forgotten in ((WEEK - 1, False), (3 * WEEK, True)):
        series = advance(Series(MONDAY), {}, usage, MONDAY + WEEK + silent, OPTIONS)[0]
        assert series.forgotten is forgotten
    usage[MONDAY + 4 * WEEK - 2] = Used(1, 1)
    assert not advance(Series(MONDAY), {}, usage, MONDAY + 4 * WEEK, OPTIONS)[0].forgotten


@settings(max_examples=20)
@given(st.lists(st.integers(1, 400), max_size=8), st.integers(0, 3))
def test_runs_do_not_matter(lengths: list[int], seed: int) -> None:
    """However the hours are divided into runs, the same is learned and found."""
    hours = range(MONDAY, MONDAY + 5 * WEEK)
    usage = busy(seed, hours)
    usage[MONDAY + 4 * WEEK] = Used(10**7, 10**5)
    series, season, anomalies = Series(MONDAY), dict[int, Track[Tally]](), list[Finding]()
    for length in [*lengths, len(hours)]:
        until = min(series.next_hour + length, hours.stop)
        series, changed, new = advance(series, season, usage, until, OPTIONS)
        season |= changed
        anomalies += new
    assert (series, season, anomalies) == advance(Series(MONDAY), {}, usage, hours.stop, OPTIONS)


@given(st.integers(1, 2**53), st.integers(1, 9), st.integers(2, 5))
def test_bounds_are_exact(mean: int, spread: int, sensitivity: int) -> None:
    """The usual ends at the last whole unit within so many deviations, at any magnitude."""
    # Two values around a mean: their variance is twice the square of the spread, and one more
    # value's is that and a half.
    units = [mean * 1_000 - spread * mean, mean * 1_000 + spread * mean] * 84
    tally = Tally()
    for each in units:
        tally += Tally.of(each, 10**9)
    series = Series(MONDAY + WEEK, rolling=Track(0, tally, Tally()))
    options = Options(Fraction(sensitivity))
    expected = expectation(series, {}, MONDAY + WEEK, options)
    assert expected.basis is Basis.ROLLING
    reach = options.sensitivity**2 * expected.variance
    for bound, beyond in ((expected.high, 1), (expected.low, -1)):
        assert (bound - expected.mean) ** 2 <= reach < (bound + beyond - expected.mean) ** 2


def test_state_is_constant() -> None:
    """A series that is three years old holds no more than one of three months."""
    usage = {hour: Used(1_000 + hour % 7, 900) for hour in range(MONDAY, MONDAY + 60 * WEEK)}
    sizes = []
    for weeks in (12, 60):
        series, season, _ = advance(Series(MONDAY), {}, usage, MONDAY + weeks * WEEK, OPTIONS)
        sizes.append((len(series.looked), len(season), len(repr(series)) // 100))
    assert sizes[0] == sizes[1]
    assert sizes[0][:2] == (FINAL_AFTER_HOURS, WEEK)
