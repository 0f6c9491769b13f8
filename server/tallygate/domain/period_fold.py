"""What a period is billed of meters that take more than count, sum, max and min: by group, folded.

Guarantees: pure, and the rule that the ledger's SQL follows: the same events, in whichever order
they came, give the same quantity. What was frozen and all adjustments of it add up to what all
events come to.
Refuses to know: where events lie, and which of them a revision covers.

`carried` is the level that a group has as the period begins. It is frozen with a revision, and kept
by those after it: what comes late before the period is billed as an adjustment of this one too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName
from tallygate.domain.period import Figures, Group, MeterTotal
from tallygate.domain.rollup import Rollup, Shape, group_of, level_at, quantity, rolled, shape_of
from tallygate.domain.window import Window

Quantity = int | Decimal
Carried = Mapping[Group, int]


@dataclass(frozen=True, slots=True)
class FoldedAdjustment:
    """By how much a group's number of a closed period would have been another by now.

    `figures` are of what came late for it, 0 where only a level of before has changed it. It was
    held against the closed period's `revision`, with the level that this began with.
    """

    meter: MeterName
    aggregation: Aggregation
    group: Group
    quantity: Quantity
    figures: Figures
    closed_start_us: int | None
    revision: int
    carried: int | None = None


@dataclass(frozen=True, slots=True)
class Fold:
    """What a revision comes to of meters that are folded, and what it bills of others by them.

    Of `differs`, rollups say another number than events; of `missing`, events are in an archive
    alone, and rollups do not tell.
    """

    totals: Sequence[MeterTotal] = ()
    adjustments: Sequence[FoldedAdjustment] = ()
    differs: Sequence[MeterName] = ()
    missing: Sequence[MeterName] = ()


NOTHING_FOLDED = Fold()


def rule_of(meter: Meter) -> Meter | None:
    """Return what of a meter decides its number, None where figures of all its usage tell it."""
    if shape_of(meter) is None:
        return None
    return Meter(
        meter.name,
        meter.aggregation,
        unique_by=meter.unique_by,
        percentile_ppm=meter.percentile_ppm,
        group_by=meter.group_by,
    )


def shape(rule: Meter) -> Shape:
    """Return the shape of a rule."""
    return Shape(rule.aggregation, rule.unique_by, rule.group_by)


def grouped(rule: Meter, events: Iterable[UsageEvent]) -> dict[Group, list[UsageEvent]]:
    """Return a meter's events by their group."""
    found: dict[Group, list[UsageEvent]] = {}
    for event in events:
        group = tuple(zip(rule.group_by, group_of(shape(rule), event), strict=True))
        found.setdefault(group, []).append(event)
    return found


def fold(
    rule: Meter, events: Iterable[UsageEvent], window: Window, carried: Carried
) -> list[MeterTotal]:
    """Return what the events of a window come to, by group, and what is carried into it."""
    groups = grouped(rule, events)
    found: list[MeterTotal] = []
    for group in sorted({*groups, *carried}):
        state = rolled(shape(rule), groups.get(group, ()))
        level = carried.get(group, 0)
        number = quantity(rule, state, window, level)
        # A level that refunds have brought to nothing is no usage.
        if number or group in groups:
            found.append(total(rule, group, number, figures_of(state), level))
    return found


def total(
    rule: Meter, group: Group, number: Quantity, figures: Figures, carried: int
) -> MeterTotal:
    """Return a total of a folded meter."""
    levels = rule.aggregation is Aggregation.TIME_WEIGHTED
    return MeterTotal(
        rule.name, rule.aggregation, figures, group, number, carried if levels else None
    )


def carried_into(rule: Meter, events: Iterable[UsageEvent], at_us: int) -> Carried:
    """Return the levels just before an instant that are not 0, by group."""
    if rule.aggregation is not Aggregation.TIME_WEIGHTED:
        return {}
    levels = {
        group: level_at(rolled(shape(rule), found).levels, at_us)
        for group, found in grouped(rule, events).items()
    }
    return {group: level for group, level in levels.items() if level}


def changes(
    now: Sequence[MeterTotal],
    billed: Mapping[Group, Quantity],
    late: Mapping[Group, Figures],
    *,
    of: FoldedAdjustment,
) -> list[FoldedAdjustment]:
    """Return what is to be billed: what each group comes to now, less what was billed of it.

    `late` are the figures of what came late, by group; `of` has what all of it has in common.
    """
    known = {each.group: each for each in now}
    found: list[FoldedAdjustment] = []
    for group in sorted({*known, *billed, *late}):
        each = known.get(group)
        number = (each.quantity if each is not None else 0) - billed.get(group, 0)
        if number or group in late:
            carried = each.carried if each is not None else None
            found.append(
                FoldedAdjustment(
                    of.meter,
                    of.aggregation,
                    group,
                    number,
                    late.get(group, Figures()),
                    of.closed_start_us,
                    of.revision,
                    carried,
                )
            )
    return found


def figures_of(state: Rollup) -> Figures:
    """Return the figures that a state has."""
    return Figures(state.count, state.sum, state.max, state.min)
