"""The payloads that docs/webhooks.md shows of anomalies and drifts are what is sent."""

import json
from decimal import Decimal
from fractions import Fraction

from tallygate.adapters.postgres import anomalies
from tallygate.adapters.postgres import reconcile as reconciles
from tallygate.domain.anomaly import Basis, Direction, Expected, Finding, Used
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.reconcile import Figure, Pair, Reading, Step, reconciled
from tallygate.domain.window import HOUR_US, Window
from tallygate.ports.anomaly import SeriesKey
from tallygate.ports.reconcile import RunPart

from .pages import block
from .test_examples import instant


def test_an_anomaly_is_as_shown() -> None:
    """`usage.anomaly` has the fields, and the forms, of the page."""
    shown = json.loads(block("docs/webhooks.md", "json", "usage.anomaly"))
    of = shown["data"]
    # So many deviations from the mean, to two places.
    deviation = Fraction(of["used"] - of["expected"]) / Fraction(of["deviations"])
    expected = Expected(
        Basis(of["basis"]),
        Fraction(of["expected"]),
        deviation**2,
        Fraction(1),
        of["usual_from"],
        of["usual_to"],
    )
    finding = Finding(
        instant(of["hour"]) // HOUR_US,
        Used(of["used"], of["events"]),
        expected,
        Direction(of["direction"]),
        of["late"],
    )
    key = SeriesKey(TenantId(of["tenant_id"]), MeterName(of["meter"]))
    assert json.loads(anomalies.message(key, finding).payload) == shown


def test_a_drift_is_as_shown() -> None:
    """`reconcile.drift` has the fields, and the forms, of the page."""
    shown = json.loads(block("docs/webhooks.md", "json", "reconcile.drift"))
    of = shown["data"]
    period = Window(instant(of["period_start"]), instant(of["period_end"]))
    pair = Pair(TenantId(of["tenant_id"]), MeterName(of["meter"]), period)
    figures = {Step.LEDGER: Decimal(7), Step(of["step"]): 7 + Decimal(of["drift"])}
    result = reconciled(pair, [Reading(step, Figure(units)) for step, units in figures.items()])
    part = RunPart(of["run_id"], "", "acme", instant(shown["timestamp"]), (result,))
    message = reconciles.message(part, pair, result.drifts[0], result.repairs[0])
    assert json.loads(message.payload) == shown
