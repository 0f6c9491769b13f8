"""Every constellation of figures has one verdict, names the step that is off, and its repair."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.reconcile import (
    UPSTREAM,
    Absent,
    Drift,
    Figure,
    Pair,
    Reading,
    Reconciled,
    Remedy,
    Step,
    Verdict,
    Why,
    reconciled,
)
from tallygate.domain.window import DAY_US, Window

PAIR = Pair(TenantId("acme"), MeterName("requests"), Window(0, 30 * DAY_US))
NOT_KEPT = Absent(Why.NOT_KEPT, "no limit counts it")
UNKNOWN = Absent(Why.UNKNOWN, "Stripe did not answer")
SHADOW = Absent(Why.SHADOW, "nothing is sent")

Units = int | str | Figure | Absent


def figure(units: Units, **parts: int) -> Figure:
    """Return a figure of whole units."""
    assert not isinstance(units, Figure | Absent)
    return Figure(Decimal(units), **{name: Decimal(part) for name, part in parts.items()})


def found(**steps: Units) -> Reconciled:
    """Reconcile steps by their names."""
    return reconciled(
        PAIR,
        [
            Reading(Step(name), each if isinstance(each, Figure | Absent) else figure(each))
            for name, each in steps.items()
        ],
    )


WHOLE: dict[str, Units] = {
    "counter": 100,
    "ledger": 100,
    "rollup": 100,
    "delivered": 100,
    "frozen": 100,
    "intents": 100,
    "stripe": 100,
    "invoice": 100,
}

# The steps that differ from a whole chain, and the verdict.
TENTHS: dict[str, Units] = dict.fromkeys(WHOLE, "0.1")
VERDICTS: list[tuple[dict[str, Units], Verdict]] = [
    ({}, Verdict.EXACT),
    ({"counter": NOT_KEPT}, Verdict.EXACT),
    ({"stripe": SHADOW}, Verdict.EXACT),
    ({"stripe": UNKNOWN}, Verdict.UNKNOWN),
    ({"ledger": UNKNOWN}, Verdict.UNKNOWN),
    ({"ledger": NOT_KEPT}, Verdict.UNKNOWN),
    ({"counter": figure(103, in_flight=-3)}, Verdict.IN_FLIGHT),
    ({"counter": figure(97, in_flight=3)}, Verdict.IN_FLIGHT),
    ({"counter": figure(90, late=10)}, Verdict.LATE),
    ({"counter": figure(95, late=10, in_flight=-5)}, Verdict.IN_FLIGHT),
    ({"counter": figure(40, due=40)}, Verdict.IN_FLIGHT),
    ({"counter": figure(40, due=40, late=60)}, Verdict.LATE),
    ({"counter": figure(100, due=100)}, Verdict.EXACT),
    ({"counter": figure(41, due=40)}, Verdict.DRIFT),
    ({"delivered": figure(60, aside=40)}, Verdict.EXACT),
    ({"delivered": figure(60, in_flight=40)}, Verdict.IN_FLIGHT),
    ({"delivered": figure(60, in_flight=39)}, Verdict.DRIFT),
    ({"frozen": figure(98, late=2), "invoice": 98}, Verdict.LATE),
    ({"frozen": figure(98, late=2)}, Verdict.DRIFT),
    ({"intents": figure(80, in_flight=20), "stripe": 80}, Verdict.IN_FLIGHT),
    ({"intents": 100, "stripe": figure(80, in_flight=20)}, Verdict.IN_FLIGHT),
    ({"intents": figure(80, in_flight=20), "stripe": 100}, Verdict.DRIFT),
    ({"rollup": 101}, Verdict.DRIFT),
    ({"rollup": 101, "stripe": UNKNOWN}, Verdict.DRIFT),
    (TENTHS | {"rollup": "0.10"}, Verdict.EXACT),
]


@pytest.mark.parametrize(("other", "verdict"), VERDICTS, ids=str)
def test_verdicts(other: dict[str, Units], verdict: Verdict) -> None:
    """Drift goes before what is not known, that before what is in flight, that before late."""
    result = found(**(WHOLE | other))
    assert result.verdict is verdict
    assert bool(result.drifts) is (verdict is Verdict.DRIFT)
    assert len(result.repairs) == len(result.drifts)


def test_one_figure_alone_agrees_with_nothing() -> None:
    """A ledger without any other figure is not known to be right."""
    assert found(ledger=5).verdict is Verdict.UNKNOWN
    assert found(ledger=5, counter=NOT_KEPT).verdict is Verdict.UNKNOWN
    assert found(ledger=5, rollup=5).verdict is Verdict.EXACT
    assert reconciled(PAIR, []).verdict is Verdict.UNKNOWN


# One step too high by three, or too low: what is appended there.
REPAIRS: list[tuple[str, int, Remedy]] = [
    ("counter", 3, Remedy.COUNTER_CORRECTION),
    ("counter", -3, Remedy.COUNTER_CORRECTION),
    ("delivered", 3, Remedy.REDELIVERY),
    ("delivered", -3, Remedy.REDELIVERY),
    ("stripe", 3, Remedy.NEGATIVE),
    ("stripe", -3, Remedy.REPLACEMENT),
    ("invoice", 3, Remedy.ADJUSTMENT),
    ("invoice", -3, Remedy.ADJUSTMENT),
]


@pytest.mark.parametrize(("step", "off", "remedy"), REPAIRS)
def test_the_last_steps_are_mended_by_themselves(step: str, off: int, remedy: Remedy) -> None:
    """Where nothing is made of a step, its drift is its own, and so is its repair."""
    result = found(**(WHOLE | {step: 100 + off}))
    assert result.drifts == (Drift(Step(step), "", Decimal(off)),)
    (repair,) = result.repairs
    assert (repair.remedy, repair.units, repair.follows) == (remedy, Decimal(-off), None)


def test_what_was_handed_on_is_not_blamed() -> None:
    """Of a rollup that is off, and all that was made of it, the rollup alone is at fault."""
    wrong = dict.fromkeys(("rollup", "frozen", "intents", "stripe", "invoice"), 101)
    result = found(**(WHOLE | wrong))
    assert result.found == (Drift(Step.ROLLUP, "", Decimal(1)),)
    assert [(each.step, each.follows) for each in result.drifts] == [
        (Step.ROLLUP, None),
        (Step.FROZEN, Step.ROLLUP),
        (Step.INTENTS, Step.ROLLUP),
        (Step.STRIPE, Step.INTENTS),
        (Step.INVOICE, Step.FROZEN),
    ]
    assert {each.units for each in result.repairs} == {Decimal(-1)}
    assert [each.remedy for each in result.repairs] == [
        Remedy.ROLLUP_RECOMPUTE,
        Remedy.PERIOD_CORRECTION,
        Remedy.INTENT,
        Remedy.NEGATIVE,
        Remedy.ADJUSTMENT,
    ]


def test_what_is_right_by_the_ledger_is_right() -> None:
    """Beside a rollup that is off, intents that have what the ledger has are not touched."""
    result = found(**(WHOLE | {"rollup": 101}))
    assert result.drifts == (Drift(Step.ROLLUP, "", Decimal(1)),)


def test_two_faults_are_two() -> None:
    """A step that adds a fault of its own to one that was handed on is blamed for all it is off."""
    result = found(**(WHOLE | {"rollup": 101, "intents": 101, "stripe": 99}))
    assert [(each.step, each.units, each.follows) for each in result.drifts] == [
        (Step.ROLLUP, Decimal(1), None),
        (Step.INTENTS, Decimal(1), Step.ROLLUP),
        (Step.STRIPE, Decimal(-1), None),
    ]


def test_what_is_in_flight_stays_in_flight_downstream() -> None:
    """Intents that are on their way, and a Stripe that is behind these, add up to the ledger."""
    figures = {
        "intents": figure(90, in_flight=10),
        "stripe": figure(70, in_flight=20),
    }
    assert found(**(WHOLE | figures)).verdict is Verdict.IN_FLIGHT
    lost = WHOLE | figures | {"stripe": figure(69, in_flight=20)}
    assert found(**lost).drifts == (Drift(Step.STRIPE, "", Decimal(-1)),)


def test_destinations_stand_by_themselves() -> None:
    """Of two destinations, the one that is off is named."""
    readings = [
        Reading(Step.LEDGER, figure(10)),
        Reading(Step.DELIVERED, figure(10), "one"),
        Reading(Step.DELIVERED, figure(9), "two"),
    ]
    assert reconciled(PAIR, readings).drifts == (Drift(Step.DELIVERED, "two", Decimal(-1)),)


def test_a_missing_step_is_bridged() -> None:
    """Without a rollup's figure, intents are held against the ledger."""
    assert found(ledger=5, rollup=NOT_KEPT, intents=5).verdict is Verdict.EXACT
    assert found(ledger=5, intents=4).drifts == (Drift(Step.INTENTS, "", Decimal(-1)),)


def test_every_step_but_the_ledger_is_made_of_another() -> None:
    """The chain has one beginning and no circle."""
    order = list(Step)
    for step, made_of in UPSTREAM.items():
        assert bool(made_of) is (step is not Step.LEDGER)
        assert all(order.index(each) < order.index(step) for each in made_of)


amounts = st.integers(-(2**70), 2**70).map(Decimal)


@given(amounts, amounts, amounts, amounts, st.sampled_from([*WHOLE]))
def test_any_drift_is_found_to_the_unit(
    ledger: Decimal, in_flight: Decimal, late: Decimal, off: Decimal, step: str
) -> None:
    """Whatever is in flight and late at a step, of any size, what is off is off by as much."""
    if step == "ledger":
        step = "rollup"
    due = ledger - in_flight - late
    result = found(ledger=Figure(ledger), **{step: Figure(due + off, in_flight, late)})
    assert [each.units for each in result.drifts] == ([off] if off else [])
    assert [each.units for each in result.repairs] == ([-off] if off else [])
    mended = found(ledger=Figure(ledger), **{step: Figure(due, in_flight, late)})
    assert not mended.drifts
