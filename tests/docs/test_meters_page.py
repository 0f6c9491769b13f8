"""docs/meters.md says what each aggregation makes of its events, and that is what they make."""

import json
import re
from datetime import datetime
from decimal import Decimal

from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName
from tallygate.domain.rollup import GROUPS_MAX, OTHER, Shape, level_at, quantity, rolled
from tallygate.domain.window import MINUTE_US, Window, from_datetime
from tallygate.flow.remake import STEP_EVENTS_MAX
from tallygate.flow.usage_windows import SESSION_EVENTS_MAX
from tests.usage_events import event

from .pages import PACKAGE, block, pages, rows

PAGE = "docs/meters.md"
START_US = from_datetime(datetime.fromisoformat("2026-11-01T10:00:00Z"))


def shown() -> list[UsageEvent]:
    """Return the events that the page shows."""
    return [
        event(
            number,
            event_id=EventId(each["id"]),
            amount=each["amount"],
            event_time_us=from_datetime(datetime.fromisoformat(f"2026-11-01T{each['at']}Z")),
            dimensions={"user_id": each["user_id"]},
            refund_of=EventId(each.get("refund_of", "")),
        )
        for number, each in enumerate(json.loads(block(PAGE, "json", "refund_of")))
    ]


def test_quantities_are_as_shown() -> None:
    """Each aggregation gives what the table says, of the minute that it is about."""
    window = Window(START_US, START_US + MINUTE_US)
    inside = [each for each in shown() if window.holds(each.event_time_us)]
    table = {
        name.strip("`"): Decimal(cells[0])
        for name, *cells in rows(pages()[PAGE])
        if re.fullmatch(r"[0-9]+", cells[0])
    }
    found = {}
    for aggregation in Aggregation:
        meter = Meter(MeterName("m"), aggregation, percentile_ppm=950_000)
        shape = Shape(aggregation, "user_id")
        carried = level_at(rolled(shape, shown()).levels, START_US)
        found[aggregation.value] = quantity(meter, rolled(shape, inside), window, carried)
    assert found == table


def test_every_aggregation_is_explained() -> None:
    """The first table has each of them once."""
    named = [
        name
        for cells in rows(pages()[PAGE])
        if not re.fullmatch(r"[0-9]+", cells[1]) and not cells[0].startswith("`--")
        for name in re.findall(r"`(\w+)`", cells[0])
    ]
    assert sorted(named) == sorted(Aggregation)


def test_bounds_are_as_stated() -> None:
    """The page, the code and the schema have the same numbers."""
    text = pages()[PAGE]
    assert f"first {GROUPS_MAX:,} groups" in text
    assert f"`{OTHER}`" in text
    assert f"at most {SESSION_EVENTS_MAX:,}" in text
    assert f"some {STEP_EVENTS_MAX:,} events" in text
    schema = (PACKAGE / "adapters" / "postgres" / "schema_meters.sql").read_text()
    assert f"<= {GROUPS_MAX} then" in schema
    assert f"'{OTHER}'::text" in schema
