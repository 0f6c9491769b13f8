"""What answers questions about usage is put together with.

Guarantees: it only reads.
Refuses to know: who asks.
"""

from tallygate.adapters.postgres.period_usage import PostgresPeriodUsage
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.usage_replay import PostgresMeterEvents
from tallygate.flow.usage_windows import UsageWindows
from tallygate.ports import CatalogStore, Clock


def windows_of(postgres: Postgres, catalogs: CatalogStore, clock: Clock) -> UsageWindows:
    """Return what says what meters come to, over this database."""
    reader = PostgresPeriodUsage(postgres)
    return UsageWindows(reader, PostgresMeterEvents(postgres), catalogs, clock)
