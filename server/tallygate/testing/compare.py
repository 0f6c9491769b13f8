"""Our usage in order, from a ledger in memory.

Guarantees: passes the same contract tests as the usage in Postgres.
Refuses to know: what it is compared with.
"""

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Final

from tallygate.domain.compare import Entry
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US
from tallygate.ports.compare import OurUsage
from tallygate.testing.ledger import FakeLedger

_LENGTHS_US: Final = {"minute": MINUTE_US, "hour": HOUR_US, "day": DAY_US}


class FakeComparedUsage:
    """The `ComparedUsage` port."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger

    async def buckets(self, asked: OurUsage, by: str, figure: str) -> AsyncIterator[Entry]:
        """Iterate over buckets of a minute, hour or day, by tenant, meter and time."""
        self._ledger.answer()
        found: dict[tuple[TenantId, MeterName, int], int] = {}
        for event in self._asked(asked):
            start = event.event_time_us - event.event_time_us % _LENGTHS_US[by]
            place = (event.tenant_id, event.meter, start)
            units = event.amount if figure == "sum" else int(event.amount > 0)
            found[place] = found.get(place, 0) + units
        for place in sorted(found):
            yield Entry(*place, Decimal(found[place]))

    async def events(self, asked: OurUsage) -> AsyncIterator[Entry]:
        """Iterate over events, by tenant and event id; each one's bucket is its own time."""
        self._ledger.answer()
        for event in sorted(self._asked(asked), key=lambda each: (each.tenant_id, each.event_id)):
            yield Entry(
                event.tenant_id,
                event.meter,
                event.event_time_us,
                Decimal(event.amount),
                event.event_id,
            )

    def _asked(self, asked: OurUsage) -> Iterator[UsageEvent]:
        for event in self._ledger.events.values():
            if (
                asked.from_us <= event.event_time_us < asked.to_us
                and asked.tenant_id in (None, event.tenant_id)
                and asked.meter in (None, event.meter)
            ):
                yield event
