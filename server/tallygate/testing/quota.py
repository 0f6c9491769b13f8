"""A quota store in memory: the specification itself, behind the port.

Guarantees: passes the same contract tests as the store in Redis.
Refuses to know: other fakes; what it accepts is read from `accounts`.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

from tallygate.domain.account import Accounts
from tallygate.domain.decision import Fenced, Operation, Outcome, Reservation
from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.ids import SourceId, numbered_in
from tallygate.ports import OperationKey, Recorded, ReservationKey
from tallygate.ports.epochs import Stage
from tallygate.testing.epochs import FakeCounterStages


class FakeQuotaStore:
    """The `QuotaStore` port over `domain.account`. Set `down` to have it not answer.

    Its epochs are those of `stages`, new ones open at once unless these say otherwise.
    """

    def __init__(
        self,
        now_us: Callable[[], int],
        *,
        source_id: SourceId = SourceId("fake"),
        memory_us: int = 900_000_000,
        stages: FakeCounterStages | None = None,
    ) -> None:
        self._now_us = now_us
        self._source_id = source_id
        self._memory_us = memory_us
        # The highest number that is known to be given out, per shard and name.
        self._known: dict[tuple[int, SourceId], int] = {}
        # Epochs that each shard has had; one that was left must not come back.
        self._epochs: dict[int, list[str]] = defaultdict(list)
        self.stages = stages or FakeCounterStages(opens_new=True)
        self.accounts: dict[int, Accounts] = {}
        self.down = False

    def know(self, shard: int, source_id: SourceId, seq: int) -> None:
        """Take in that a number was given out under a name, which ends with its epoch."""
        self._known[shard, source_id] = max(seq, self._known.get((shard, source_id), 0))

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Return a reservation as it stands."""
        accounts = self.shard(key.shard)
        found = accounts.reservation(key.tenant_id, key.reservation_id, self._now_us())
        if found is None:
            _refuse_if_shut(accounts)
        return found

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Return an event while its operation is remembered."""
        accounts = self.shard(key.shard)
        known = accounts.operations.get((key.tenant_id, key.operation_id))
        if known is None or self._now_us() >= known.until_us:
            _refuse_if_shut(accounts)
            return None
        refunded = accounts.refunded.get((key.tenant_id, key.event_id), 0)
        return Recorded(known.payload, known.answer.at_us, refunded) if known.payload else None

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Decide the operations of each shard in order, as one call of the script would."""
        if self.down:
            return [BackendUnavailable() for _ in operations]
        results: list[Outcome | TallygateError] = [BackendUnavailable()] * len(operations)
        now_us = self._now_us()
        for shard in dict.fromkeys(operation.shard for operation in operations):
            places = [place for place, found in enumerate(operations) if found.shard == shard]
            accounts = await self._whole(shard)
            source_id = numbered_in(self._source_id, accounts.epoch)
            for place in places:
                results[place] = Fenced()
            places = [each for each in places if operations[each].epoch in ("", accounts.epoch)]
            outcomes = accounts.decide([operations[place] for place in places], source_id, now_us)
            self.know(shard, source_id, accounts.sequences.get(source_id, 0))
            for place, outcome in zip(places, outcomes, strict=True):
                results[place] = outcome
        return results

    async def _whole(self, shard: int) -> Accounts:
        """Return a shard's accounts, in a new epoch if numbers that were given out are lost."""
        accounts = self.shard(shard)
        source_id = numbered_in(self._source_id, accounts.epoch)
        if accounts.sequences.get(source_id, 0) < self._known.get((shard, source_id), 0):
            await self.stages.renew(shard, accounts.epoch)
        if accounts.epoch in self._epochs[shard][:-1]:
            await self.stages.renew(shard, accounts.epoch)
        accounts = self.shard(shard)
        if accounts.epoch not in self._epochs[shard]:
            self._epochs[shard].append(accounts.epoch)
        return accounts

    def shard(self, shard: int) -> Accounts:
        """Return a shard's accounts as of its epoch and stage. Raises `BackendUnavailable`."""
        if self.down:
            raise BackendUnavailable
        state = self.stages.state(shard)
        if shard not in self.accounts:
            given = self.stages.given[shard]
            made = Accounts(self._memory_us, sequences=given, epoch=state.epoch)
            self.accounts[shard] = made
        accounts = self.accounts[shard]
        if accounts.epoch != state.epoch:
            accounts.renew(state.epoch)
        accounts.open = state.stage is Stage.OPEN
        accounts.lost = state.stage is Stage.LOST
        return accounts


def _refuse_if_shut(accounts: Accounts) -> None:
    """Refuse to say that there is nothing: in a shard that is not rebuilt it may have been lost."""
    if not accounts.open:
        raise BackendUnavailable("the shard's counters are being rebuilt")
