"""Epochs and what the ledger has, in memory.

Guarantees: passes the same contract tests as the adapters in Redis.
Refuses to know: counters; a quota store in memory looks here for its epochs.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final

from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import SourceId, epoch_of
from tallygate.ports.epochs import Seen, ShardState, Stage

_ORDER: Final = list(Stage)
RANGES_MAX: Final = 200


class FakeCounterStages:
    """The `CounterStages` port. Set `down` to have it not answer."""

    def __init__(self, shards: int = 16, *, opens_new: bool = False) -> None:
        self._shards = shards
        # Whether new epochs are open at once.
        self.opens_new = opens_new
        self._epochs: dict[int, tuple[str, Stage]] = {}
        self._numbers = count(1)
        self._life = 1
        # Per shard, the last number given out per source; a store's accounts share it.
        self.given: dict[int, dict[SourceId, int]] = defaultdict(dict)
        self.down = False

    async def life(self) -> str:
        """Return what changes with `restart`."""
        self._answer()
        return f"life-{self._life}"

    async def epochs(self) -> Mapping[int, str]:
        """Return the epoch of each shard."""
        self._answer()
        return {shard: self.state(shard).epoch for shard in range(self._shards)}

    async def states(self) -> Sequence[ShardState]:
        """Return the state of each shard."""
        self._answer()
        return [self.state(shard) for shard in range(self._shards)]

    async def renew(self, shard: int, epoch: str) -> str:
        """Give the shard a new epoch if its epoch is still the one named."""
        self._answer()
        if self.state(shard).epoch == epoch:
            self._begin(shard)
        return self.state(shard).epoch

    async def advance(
        self, shard: int, epoch: str, stage: Stage, *, after: Stage | None = None
    ) -> bool:
        """Bring an epoch to a later stage."""
        self._answer()
        state = self.state(shard)
        later = _ORDER.index(stage) > _ORDER.index(state.stage)
        if state.epoch != epoch or not later or after not in (None, state.stage):
            return False
        self._epochs[shard] = (epoch, stage)
        return True

    def state(self, shard: int) -> ShardState:
        """Return the state of a shard."""
        if shard not in self._epochs:
            self._begin(shard)
        epoch, stage = self._epochs[shard]
        numbers = self.given[shard].items()
        given = {source: last for source, last in numbers if epoch_of(source) == epoch}
        return ShardState(shard, epoch, stage, given)

    def lose(self, shard: int) -> None:
        """Forget all of a shard, as an emptied server does."""
        self.given[shard].clear()
        self._begin(shard)

    def load(self, shard: int, epoch: str) -> None:
        """Have an epoch again, rebuilt, as a server that started from an old copy."""
        self._epochs[shard] = (epoch, Stage.OPEN)

    def restart(self) -> None:
        """Begin another life."""
        self._life += 1

    def _begin(self, shard: int) -> None:
        stage = Stage.OPEN if self.opens_new else Stage.LOST
        self._epochs[shard] = (f"e{next(self._numbers)}", stage)

    def _answer(self) -> None:
        if self.down:
            raise BackendUnavailable


class FakeSeenNumbers:
    """The `SeenNumbers` port. Set `down` to have it not answer."""

    def __init__(self) -> None:
        self._seen: dict[tuple[SourceId, int], Seen] = {}
        self._announced: dict[tuple[int, str], dict[SourceId, bool]] = defaultdict(dict)
        self.handed_in: list[Seen] = []
        self.down = False

    async def tell(self, seen: Sequence[Seen]) -> None:
        """Keep what the ledger has; of very many ranges the last are left out."""
        self._answer()
        for each in seen:
            kept = Seen(each.source_id, each.shard, each.ranges[:RANGES_MAX])
            self._seen[each.source_id, each.shard] = kept

    async def seen(self, asked: Sequence[tuple[SourceId, int]]) -> Sequence[Seen]:
        """Return what the ledger has of each source and shard."""
        self._answer()
        return [self._seen.get(lane, Seen(*lane, ())) for lane in asked]

    async def hand_in(self, numbers: Sequence[Seen]) -> None:
        """Keep what was handed in again, for a test to read."""
        self._answer()
        self.handed_in += numbers

    async def announce(self, shard: int, epoch: str, source_id: SourceId, *, done: bool) -> None:
        """Keep who has, or has no more, to hand in."""
        self._answer()
        self._announced[shard, epoch][source_id] = done

    async def announced(self, shard: int, epoch: str) -> Mapping[SourceId, bool]:
        """Return who has announced itself to an epoch."""
        self._answer()
        return dict(self._announced[shard, epoch])

    def _answer(self) -> None:
        if self.down:
            raise BackendUnavailable
