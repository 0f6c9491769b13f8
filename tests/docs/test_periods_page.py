"""The messages about billing periods are what docs/webhooks.md shows."""

import json

from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId
from tallygate.domain.period import GRACE_US
from tests.docs.pages import block
from tests.periods.world import (
    DECEMBER,
    MID_NOVEMBER,
    MID_OCTOBER,
    OCTOBER,
    PeriodWorld,
    period_world,
)


def keys_of(value: object) -> object:
    """Return what a JSON value is made of, its values left out."""
    match value:
        case dict():
            return {key: keys_of(each) for key, each in sorted(value.items())}
        case list():
            return [keys_of(each) for each in value]
        case _:
            return type(value).__name__


def shown(kind: str) -> dict[str, object]:
    """Return the example of a message."""
    found: dict[str, object] = json.loads(block("docs/webhooks.md", "json", kind))
    return found


async def told(on: PeriodWorld, kind: str) -> dict[str, object]:
    """Return the newest message of a kind."""
    found: dict[str, object] = json.loads(
        [text for each, text in await on.messages() if each == kind][-1]
    )
    return found


async def test_messages_are_as_shown(postgres_dsn: str) -> None:
    """Each example has the fields, and the kinds of values, that closing really tells."""
    async with period_world(postgres_dsn) as on:
        await on.closed_october(on.event(MID_OCTOBER, 5))
        late: UsageEvent = on.event(MID_OCTOBER, 3)
        await on.store(late, on.event(MID_NOVEMBER, 120, event_id=EventId("in-time")))
        await on.run(DECEMBER + GRACE_US)
        await on.desk.reopen(on.asked(OCTOBER), DECEMBER + 2 * GRACE_US)
        on.arrivals.found = type(on.arrivals.found)(None)
        await on.run(DECEMBER + 2 * GRACE_US)
        for kind in ("period.closed", "period.held", "period.reopened"):
            assert keys_of(await told(on, kind)) == keys_of(shown(kind)), kind
        data = (await told(on, "period.reopened"))["data"]
        assert isinstance(data, dict)
        assert data["start"] == "2026-10-01T00:00:00Z"


def test_the_example_is_a_plausible_month() -> None:
    """What the example bills is what it counts: an event in each use, one of them late."""
    data = shown("period.closed")["data"]
    assert isinstance(data, dict)
    uses = sum(each["count"] for each in [*data["totals"], *data["adjustments"]])
    assert uses == data["events"]
