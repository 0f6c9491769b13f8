"""streams · ledger ─▶ [ arrivals ] ─▶ close_period: whether all that was accepted has arrived.

If we die here, nothing has happened: asking changes nothing.

Guarantees: what is said to have arrived is in the ledger: entries written before an instant are
looked for after it, and numbers that were given out are compared with those that are stored.
Refuses to know: periods.
"""

from tallygate.domain.errors import Overloaded
from tallygate.domain.period import Arrived
from tallygate.flow.completeness import CompletenessWatch
from tallygate.ports import UsageStream


class StreamArrivals:
    """The `Arrivals` that closing asks."""

    def __init__(self, stream: UsageStream, completeness: CompletenessWatch) -> None:
        self._stream = stream
        self._completeness = completeness

    async def arrived(self) -> Arrived:
        """Return what has arrived. Raises `BackendUnavailable`."""
        waiting = [depth.oldest_us for depth in await self._stream.depths() if depth.oldest_us]
        oldest_us = min(waiting, default=0)
        try:
            return Arrived(await self._completeness.compare(), oldest_us)
        except Overloaded:
            return Arrived(None, oldest_us)
