"""`tallygate anomalies`: which hours of a tenant's usage are not as the weeks before have them.

Guarantees: it changes nothing, and tells nobody; what was noted at the time is marked as such.
Refuses to know: what is unusual, and where usage is kept.
"""

from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Annotated, Final

import typer

from tallygate.commands.options import Config, Json, PostgresDsn, settings_of
from tallygate.commands.output import Sheet, run, show
from tallygate.commands.times import instant_us
from tallygate.domain import ids
from tallygate.domain.anomaly import Options
from tallygate.domain.drift import spelled
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import MeterName
from tallygate.domain.window import DAY_US, HOUR_US
from tallygate.flow.anomaly import LookBack, Recall, look_back
from tallygate.settings import Settings
from tallygate.wiring.insight import looking_back, now_us

ROWS: Final = 50
_COLUMNS: Final = (
    *("meter", "hour", "direction", "used", "expected", "usual from", "usual to"),
    *("deviations", "events", "held against", "noted"),
)


def anomalies(
    tenant: Annotated[str, typer.Argument(help="Whose usage.", show_default=False)],
    *,
    meter: Annotated[str, typer.Option(help="Only this meter.")] = "",
    since: Annotated[
        str, typer.Option("--from", help="Hours from this date or time on; else of a week.")
    ] = "",
    until: Annotated[str, typer.Option("--to", help="Hours before this date or time.")] = "",
    sensitivity: Annotated[
        str, typer.Option(help="How many deviations are usual; else what the settings say.")
    ] = "",
    events_min: Annotated[
        int | None, typer.Option(help="Leave hours with fewer events alone.", min=0)
    ] = None,
    rows: Annotated[int, typer.Option(help="How many to show.", min=1, max=10_000)] = ROWS,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Look back at a tenant's usage for hours that were not as expected; changes nothing."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    if settings.postgres_dsn is None:
        raise typer.BadParameter("TALLYGATE_POSTGRES_DSN is required")

    async def work() -> Recall:
        to_us = instant_us(until, "--to") or now_us() // HOUR_US * HOUR_US
        from_us = instant_us(since, "--from")
        asked = LookBack(
            ids.tenant_id(tenant, "TENANT"),
            MeterName(meter) if meter else None,
            to_us - 7 * DAY_US if from_us is None else from_us,
            to_us,
            _options(settings, sensitivity, events_min),
        )
        if asked.from_us >= asked.to_us:
            raise InvalidField("must be before --to", field="--from")
        async with looking_back(settings) as history:
            return await look_back(history, asked)

    show(_sheets(run(work()), rows), as_json=as_json)


def _options(settings: Settings, sensitivity: str, events_min: int | None) -> Options:
    asked = settings.anomaly_sensitivity
    if sensitivity:
        try:
            asked = Decimal(sensitivity)
        except InvalidOperation:
            asked = Decimal(-1)
        if not 0 < asked <= 1_000:
            raise InvalidField("must be a number above 0, at most 1,000", field="--sensitivity")
    least = settings.anomaly_events_min if events_min is None else events_min
    return Options(Fraction(asked), least)


def _sheets(recall: Recall, rows: int) -> list[Sheet]:
    found = [
        (
            *(each.meter, spelled(each.finding.hour * HOUR_US), each.finding.direction.value),
            *(each.finding.used.units, round(each.finding.expected.mean)),
            *(each.finding.expected.low, each.finding.expected.high),
            *(str(each.finding.score), each.finding.used.events),
            *(each.finding.expected.basis.value, each.noted),
        )
        for each in recall.recalled[:rows]
    ]
    counts = [(recall.hours, len(recall.recalled))]
    return [
        Sheet("anomalies", _COLUMNS, found),
        Sheet("looked at", ("hours", "anomalies"), counts),
    ]
