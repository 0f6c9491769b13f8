"""A quota store in memory: the specification itself, behind the port.

Guarantees: passes the same contract tests as the store in Redis.
Refuses to know: other fakes; what it accepts is read from `accounts`.
"""

from collections.abc import Callable, Sequence

from tallygate.domain.account import Accounts
from tallygate.domain.decision import Operation, Outcome, Reservation
from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.ids import SourceId
from tallygate.ports import OperationKey, Recorded, ReservationKey


class FakeQuotaStore:
    """The `QuotaStore` port over `domain.account`. Set `down` to have it not answer."""

    def __init__(
        self,
        now_us: Callable[[], int],
        *,
        source_id: SourceId = SourceId("fake"),
        memory_us: int = 900_000_000,
    ) -> None:
        self._now_us = now_us
        self._source_id = source_id
        self._memory_us = memory_us
        self.accounts: dict[int, Accounts] = {}
        self.down = False

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Return a reservation as it stands."""
        if self.down:
            raise BackendUnavailable
        accounts = self.accounts.setdefault(key.shard, Accounts(self._memory_us))
        return accounts.reservation(key.tenant_id, key.reservation_id, self._now_us())

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Return an event while its operation is remembered."""
        if self.down:
            raise BackendUnavailable
        accounts = self.accounts.setdefault(key.shard, Accounts(self._memory_us))
        known = accounts.operations.get((key.tenant_id, key.operation_id))
        if known is None or not known.payload or self._now_us() >= known.until_us:
            return None
        refunded = accounts.refunded.get((key.tenant_id, key.event_id), 0)
        return Recorded(known.payload, known.answer.at_us, refunded)

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Decide the operations of each shard in order, as one call of the script would."""
        if self.down:
            return [BackendUnavailable() for _ in operations]
        results: list[Outcome | TallygateError] = [BackendUnavailable()] * len(operations)
        now_us = self._now_us()
        for shard in dict.fromkeys(operation.shard for operation in operations):
            places = [place for place, found in enumerate(operations) if found.shard == shard]
            accounts = self.accounts.setdefault(shard, Accounts(self._memory_us))
            outcomes = accounts.decide(
                [operations[place] for place in places], self._source_id, now_us
            )
            for place, outcome in zip(places, outcomes, strict=True):
                results[place] = outcome
        return results
