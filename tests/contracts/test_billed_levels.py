"""Levels that were set before a window are billed in it, wherever they are kept, or refused."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tallygate.adapters.postgres.billed_usage import PostgresBilledUsage
from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.domain.catalog import Aggregation
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName
from tallygate.domain.invoice import Selection
from tallygate.domain.rollup import Shape
from tallygate.domain.window import DAY_US, SECOND_US, Window, from_datetime
from tallygate.ports.billing import UsageAsked
from tallygate.ports.export import EventsArchived
from tests.builders import ACME
from tests.flow.retention_parts import OLD_US, Parts, parts
from tests.usage_events import event

__all__ = ["parts"]

DISKS = MeterName("disks")
BY_SKU = Shape(Aggregation.TIME_WEIGHTED, group_by=("sku",))
LEVELS = Selection(DISKS, Aggregation.TIME_WEIGHTED, series=("sku",))
LATER_US = from_datetime(datetime(2025, 1, 1, tzinfo=UTC))
# From between two minutes, so that rollups do not say it all.
LATER = UsageAsked(0, LEVELS, Window(LATER_US + 1, LATER_US + DAY_US + 1))
A_DAY = Decimal(DAY_US // SECOND_US)


def level(number: int, amount: int, at_us: int = OLD_US) -> UsageEvent:
    """Return an event that sets a level."""
    return event(number, tenant_id=ACME, meter=DISKS, event_time_us=at_us, amount=amount)


@pytest.fixture
async def usage(parts: Parts) -> PostgresBilledUsage:
    """Billed usage, of a meter whose groups have rollups from its first event on."""
    await PostgresRollups(parts.postgres).switch(DISKS, BY_SKU)
    await parts.persist(level(9, 3))
    return PostgresBilledUsage(parts.postgres)


async def dropped(parts: Parts) -> None:
    """Have the old months be in archives alone."""
    await parts.archived()
    assert not any(each.refused for each in await parts.dropped())


async def test_a_level_that_lasts_from_a_dropped_month(
    parts: Parts, usage: PostgresBilledUsage
) -> None:
    """Where only its event would tell it, it is refused; where rollups do, it is billed."""
    (before,) = await usage.billed(ACME, [LATER])
    assert before.quantity == 3 * A_DAY
    await dropped(parts)
    with pytest.raises(EventsArchived):
        await usage.billed(ACME, [LATER])
    whole = replace(LATER, window=Window(LATER_US, LATER_US + DAY_US))
    (found,) = await usage.billed(ACME, [whole])
    assert found.quantity == 3 * A_DAY


async def test_a_level_that_was_set_anew_since(parts: Parts, usage: PostgresBilledUsage) -> None:
    """What a later event has ended is missed by nobody, unless it could be another value's."""
    await parts.persist(level(10, 5, LATER_US - DAY_US))
    await dropped(parts)
    (found,) = await usage.billed(ACME, [LATER])
    assert found.quantity == 5 * A_DAY
    elsewhere = replace(LATER, selection=replace(LEVELS, where=(("path", ("/ü",)),)))
    with pytest.raises(EventsArchived):
        await usage.billed(ACME, [elsewhere])


async def test_rollups_that_are_made_anew(parts: Parts, usage: PostgresBilledUsage) -> None:
    """Rollups of a window alone are not enough for a level that was set before it."""
    rollups = PostgresRollups(parts.postgres)
    await rollups.switch(DISKS, None)
    await rollups.switch(DISKS, BY_SKU)
    window = Window(LATER_US, LATER_US + DAY_US)
    (state,) = await rollups.shapes()
    assert await rollups.rebuild(state.number, window, window)
    (found,) = await usage.billed(ACME, [replace(LATER, window=window)])
    assert found.quantity == 3 * A_DAY
