"""Usage for figures over the events of a fake ledger.

Guarantees: passes the same contract tests as the reader in Postgres.
Refuses to know: who watches.
"""

from tallygate.ports.figures import Amount, MeterUse, UsePage
from tallygate.testing.ledger import FakeLedger


class FakeUsageFigures:
    """The `UsageFigures` port."""

    def __init__(self, ledger: FakeLedger) -> None:
        self.ledger = ledger

    async def page(self, after: str, count: int, day_us: int, month_us: int) -> UsePage:
        """Return what the next tenants have used since two instants."""
        self.ledger.answer()
        events = list(self.ledger.events.values())
        tenants = sorted({each.tenant_id for each in events if each.tenant_id > after})[:count]
        used = []
        for tenant_id in tenants:
            own = [
                each
                for each in events
                if each.tenant_id == tenant_id and each.event_time_us >= month_us
            ]
            for meter in sorted({each.meter for each in own}):
                day, month = Amount(), Amount()
                for each in own:
                    if each.meter == meter:
                        # A refund takes its units back; as an event it does not count.
                        one = Amount(0 if each.refund_of else 1, each.amount)
                        month += one
                        day += one if each.event_time_us >= day_us else Amount()
                used.append(MeterUse(tenant_id, meter, day, month))
        return UsePage(used, tenants[-1] if tenants else None)
