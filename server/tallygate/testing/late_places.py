"""Which usage came late, and which period's invoice has it, in memory.

Guarantees: passes the same contract tests as the places in Postgres.
Refuses to know: by which rule late usage is placed, and how invoices are worked out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import TenantId
from tallygate.domain.money import total
from tallygate.domain.window import Window
from tallygate.ports.billing import LateShare, StoredInvoice, UsageAsked


@dataclass(frozen=True, slots=True)
class LateUsage:
    """An event that came late: for which period, if for one, and which period's revision has it."""

    event: UsageEvent
    closed_us: int | None
    billed_us: int
    revision: int


@dataclass(slots=True)
class FakeLatePlaces:
    """The `LatePlaces` port; `periods` are those that have ended, with their newest revision."""

    periods: dict[tuple[TenantId, int], tuple[Window, int]] = field(default_factory=dict)
    late: list[LateUsage] = field(default_factory=list)
    issued: Callable[[], Sequence[tuple[TenantId, StoredInvoice]]] = tuple

    def keeps(self, event: UsageEvent, asked: UsageAsked) -> bool:
        """Say whether an event is of what is asked for, as far as it came late."""
        found = [each for each in self.late if each.event == event]
        if asked.late_at_us is not None:
            return any(
                each.billed_us == asked.late_at_us and each.closed_us != each.billed_us
                for each in found
            )
        by_us = asked.billed_by_us
        return by_us is None or not any(
            each.billed_us > by_us or self._awaited(each) for each in found
        )

    async def period(self, tenant_id: TenantId, instant_us: int) -> Window | None:
        """Return the period that holds an instant, if it has ended and is known."""
        found = [window for (of, _), (window, _) in self.periods.items() if of == tenant_id]
        return next((window for window in found if window.holds(instant_us)), None)

    async def adjusted(self, tenant_id: TenantId, start_us: int) -> list[Window]:
        """Return the closed periods with late usage that belongs to the one that begins then."""
        mine = [each for each in self._of(tenant_id) if each.billed_us == start_us]
        closed = {each.closed_us for each in mine} - {None, start_us}
        found = [self.periods[tenant_id, at_us][0] for at_us in closed if at_us is not None]
        early = [each.event.event_time_us for each in mine if each.closed_us is None]
        if early:
            first_us = min(at_us for of, at_us in self.periods if of == tenant_id)
            found.append(Window(min(early), first_us))
        return sorted(found, key=lambda window: window.start_us)

    async def shares(self, tenant_id: TenantId, start_us: int) -> list[LateShare]:
        """Return where the late usage of a period is billed, by time."""
        counts: dict[int, int] = {}
        for each in self._of(tenant_id):
            if each.closed_us == start_us != each.billed_us:
                counts[each.billed_us] = counts.get(each.billed_us, 0) + 1
        return [self._share(tenant_id, start_us, *counted) for counted in sorted(counts.items())]

    def _share(self, tenant_id: TenantId, start_us: int, billed_us: int, events: int) -> LateShare:
        found = [
            (number, stored)
            for number, (of, stored) in enumerate(self.issued(), 1)
            if of == tenant_id and stored.invoice.period.start_us == billed_us
        ]
        for number, stored in found[-1:]:
            amounts: list[Decimal] = [
                line.amount
                for line in stored.invoice.lines
                if line.adjusts is not None and line.adjusts.start_us == start_us
            ]
            if amounts:
                made = (number, stored.revision, total(amounts), stored.invoice.currency)
                return LateShare(billed_us, events, *made)
        return LateShare(billed_us, events)

    def _of(self, tenant_id: TenantId) -> Iterator[LateUsage]:
        return (each for each in self.late if each.event.tenant_id == tenant_id)

    def _awaited(self, late: LateUsage) -> bool:
        if late.closed_us != late.billed_us:
            return False
        _, revision = self.periods.get((late.event.tenant_id, late.billed_us), (None, 0))
        return late.revision > revision
