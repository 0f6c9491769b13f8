"""A quota store in memory: the specification itself, behind the port.

Guarantees: passes the same contract tests as the store in Redis.
Refuses to know: other fakes; what it accepts is read from `accounts`.
"""

from collections.abc import Callable, Sequence

from tallygate.domain.account import Accounts
from tallygate.domain.decision import Operation, Outcome
from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.ids import SourceId


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
