"""From ledger to money: what each step has of a meter in a period, and what would make it whole.

Guarantees: pure and exact; the same figures give the same verdict; a step that is off is blamed
where it departs from what it was made of, and not where that was handed on; a repair only appends,
but for a rollup, which is derived and made anew.
Refuses to know: where figures are kept, and who carries out a repair.

The ledger is the truth, while its events are those that it has keys of. Each other step is to have
what the ledger has, but for what is known to be on its way, and for what came late and was put
elsewhere. See docs/reconciliation.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final, assert_never

from tallygate.domain.compare import EXACT
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import Window

NONE: Final = Decimal(0)


class Step(StrEnum):
    """What has figures of usage, in the order in which they are made of each other."""

    LEDGER = "ledger"
    COUNTER = "counter"
    ROLLUP = "rollup"
    DELIVERED = "delivered"
    FROZEN = "frozen"
    INTENTS = "intents"
    SENT = "sent"
    STRIPE = "stripe"
    INVOICE = "invoice"


# What each step is made of: the first of these that has a figure.
UPSTREAM: Final[Mapping[Step, tuple[Step, ...]]] = {
    Step.LEDGER: (),
    Step.COUNTER: (Step.LEDGER,),
    Step.ROLLUP: (Step.LEDGER,),
    Step.DELIVERED: (Step.LEDGER,),
    Step.FROZEN: (Step.ROLLUP, Step.LEDGER),
    Step.INTENTS: (Step.ROLLUP, Step.LEDGER),
    Step.SENT: (Step.INTENTS, Step.ROLLUP, Step.LEDGER),
    Step.STRIPE: (Step.SENT, Step.INTENTS, Step.ROLLUP, Step.LEDGER),
    Step.INVOICE: (Step.FROZEN, Step.ROLLUP, Step.LEDGER),
}


class Verdict(StrEnum):
    """What a pair of tenant and meter came to in a period."""

    EXACT = "exact"
    IN_FLIGHT = "in_flight"
    LATE = "late"
    ARCHIVED = "archived"
    DRIFT = "drift"
    UNKNOWN = "unknown"


class Why(StrEnum):
    """Why a step has no figure: it keeps none, may not send, or could not be asked.

    Or it takes events to say, and those are in an archive alone.
    """

    NOT_KEPT = "not kept"
    SHADOW = "shadow"
    ARCHIVED = "archived"
    UNKNOWN = "unknown"


class Remedy(StrEnum):
    """What is appended to make a step whole, or for a rollup, made anew."""

    RESTORE = "restore"
    COUNTER_CORRECTION = "counter correction"
    ROLLUP_RECOMPUTE = "rollup recompute"
    REDELIVERY = "redelivery"
    PERIOD_CORRECTION = "period correction"
    INTENT = "intent"
    REPLACEMENT = "replacement intent"
    NEGATIVE = "negative intent"
    ADJUSTMENT = "invoice adjustment"


@dataclass(frozen=True, slots=True)
class Figure:
    """What a step has, in the meter's unit.

    `in_flight` is what it is made of and has yet to reach it, below 0 for what it has already;
    `late` what came late and was put elsewhere by policy; `aside` what was never meant for it. All
    four together are what the step is made of. Where a step's own records say what it is `due`,
    that counts, and the rest is in flight.
    """

    units: Decimal
    in_flight: Decimal = NONE
    late: Decimal = NONE
    aside: Decimal = NONE
    due: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """A step without a figure, and why, for people."""

    why: Why
    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a step was read to have; `name` tells destinations, or the like, apart."""

    step: Step
    figure: Figure | Absent
    name: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """A step that has so many units too many, below 0 too few.

    With `follows`, it was made of a step that is off as much, and is whole once that is.
    """

    step: Step
    name: str
    units: Decimal
    follows: Step | None = None


@dataclass(frozen=True, slots=True)
class Repair:
    """So many units to append at a step; `detail` says how, for people."""

    remedy: Remedy
    step: Step
    name: str
    units: Decimal
    detail: str
    follows: Step | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A tenant's meter in a period."""

    tenant_id: TenantId
    meter: MeterName
    period: Window


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a pair came to: the readings as they count, the verdict, and how to mend it."""

    pair: Pair
    readings: tuple[Reading, ...]
    verdict: Verdict
    drifts: tuple[Drift, ...] = ()
    repairs: tuple[Repair, ...] = ()

    @property
    def found(self) -> tuple[Drift, ...]:
        """The drifts at the steps where they began."""
        return tuple(each for each in self.drifts if each.follows is None)


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A figure, by how much it is off, and what it should be."""

    figure: Figure
    off: Decimal
    expected: Decimal


def reconciled(pair: Pair, readings: Sequence[Reading]) -> Reconciled:
    """Hold every step against what it was made of, up to the ledger; return the verdict."""
    order = {step: place for place, step in enumerate(Step)}
    ordered = sorted(readings, key=lambda each: (order[each.step], each.name))
    weighed: dict[Step, _Weighed] = {}
    offs: dict[Step, set[Decimal]] = {}
    counted: list[Reading] = []
    drifts: list[Drift] = []
    for reading in ordered:
        if isinstance(reading.figure, Absent):
            counted.append(reading)
            continue
        upstream = next((each for each in UPSTREAM[reading.step] if each in weighed), None)
        figure = _despite(reading.figure, weighed.get(Step.LEDGER))
        found = _weigh(figure, weighed[upstream] if upstream else None)
        counted.append(Reading(reading.step, found.figure, reading.name))
        weighed.setdefault(reading.step, found)
        offs.setdefault(reading.step, set()).add(found.off)
        if found.off:
            # Of several rollups it may have been made of any.
            handed_on = upstream is not None and found.off in offs[upstream]
            follows = upstream if handed_on else None
            drifts.append(Drift(reading.step, reading.name, found.off, follows))
    return Reconciled(
        pair,
        tuple(counted),
        _verdict(counted, drifts),
        tuple(drifts),
        tuple(_repair(each) for each in drifts),
    )


def _despite(figure: Figure, ledger: _Weighed | None) -> Figure:
    """Return a figure that has what the ledger lacks: what is due was worked out of what it has."""
    if figure.due is None or ledger is None or ledger.off == NONE:
        return figure
    lacks = EXACT.minus(ledger.off)
    same = EXACT.subtract(figure.units, figure.due) == lacks
    return replace(figure, due=figure.units) if same else figure


def _weigh(figure: Figure, upstream: _Weighed | None) -> _Weighed:
    if upstream is None:
        # A ledger that says itself what it lacks.
        expected = figure.units if figure.due is None else figure.due
        return _Weighed(figure, EXACT.subtract(figure.units, expected), expected)
    truth = upstream.expected
    if figure.due is not None:
        elsewhere = EXACT.add(figure.late, figure.aside)
        in_flight = EXACT.subtract(EXACT.subtract(truth, figure.due), elsewhere)
        figure = Figure(figure.units, in_flight, figure.late, figure.aside, figure.due)
    expected = truth
    for part in (figure.in_flight, figure.late, figure.aside):
        expected = EXACT.subtract(expected, part)
    return _Weighed(figure, EXACT.subtract(figure.units, expected), expected)


def _verdict(readings: Sequence[Reading], drifts: Sequence[Drift]) -> Verdict:
    figures = [each.figure for each in readings if isinstance(each.figure, Figure)]
    absent = [each.figure for each in readings if isinstance(each.figure, Absent)]
    if drifts:
        return Verdict.DRIFT
    ledger = any(each.step is Step.LEDGER for each in readings if isinstance(each.figure, Figure))
    if any(each.why is Why.UNKNOWN for each in absent):
        return Verdict.UNKNOWN
    # What is left of it agrees, and there is nothing that could ever say more.
    if any(each.why is Why.ARCHIVED for each in absent):
        return Verdict.ARCHIVED
    # One figure alone agrees with nothing.
    if not ledger or len(figures) < 2:
        return Verdict.UNKNOWN
    if any(each.in_flight for each in figures):
        return Verdict.IN_FLIGHT
    if any(each.late for each in figures):
        return Verdict.LATE
    return Verdict.EXACT


def _repair(drift: Drift) -> Repair:
    """Return what makes a step whole: always the opposite of its drift."""
    units = EXACT.minus(drift.units)
    remedy, detail = _remedy(drift.step, units)
    if drift.follows is not None:
        detail = f"with the {drift.follows.value}, of which it was made"
    return Repair(remedy, drift.step, drift.name, units, detail, drift.follows)


def _remedy(step: Step, units: Decimal) -> tuple[Remedy, str]:
    match step:
        case Step.LEDGER:
            return Remedy.RESTORE, "the events that keys name, from a backup or an archive"
        case Step.COUNTER:
            return Remedy.COUNTER_CORRECTION, "a correction of the counter, as of a duplicate"
        case Step.ROLLUP:
            return Remedy.ROLLUP_RECOMPUTE, "the rollup made anew from the ledger's events"
        case Step.DELIVERED:
            return Remedy.REDELIVERY, "the period's events told again, under their own ids"
        case Step.FROZEN:
            return Remedy.PERIOD_CORRECTION, "a correction of the closed period, linked to it"
        case Step.INTENTS:
            return Remedy.INTENT, "one more intent of these units, with its time in the period"
        case Step.SENT | Step.STRIPE if units > 0:
            return Remedy.REPLACEMENT, "an intent that was lost, under a new identifier"
        case Step.SENT | Step.STRIPE:
            return Remedy.NEGATIVE, "a cancellation within 24 hours, a negative intent after"
        case Step.INVOICE:
            return Remedy.ADJUSTMENT, "a line on the next invoice, which names this one"
        case _:
            assert_never(step)
