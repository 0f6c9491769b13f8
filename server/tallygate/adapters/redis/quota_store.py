"""The quota store in Redis: many operations, one pipeline, one script call per shard and chunk.

Guarantees: an operation is applied at most once per operation id, whatever fails between here and
Redis; a server that has lost its scripts or its epoch is taken up again within the same call. One
that has lost numbers which it had given out to us gets a new epoch before it decides anything.
Refuses to know: plans and callers, and who rebuilds what was lost.

A pipeline that broke is sent once more when every operation in it may be: those with an operation
id are answered from their record, those without change nothing that counts.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from redis.asyncio import Redis
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    NoScriptError,
    RedisError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from tallygate.adapters.redis import keys, layout, script
from tallygate.adapters.redis.admit_call import (
    EpochDiffers,
    Frame,
    NumbersLost,
    answers,
    arguments,
)
from tallygate.adapters.redis.client import translate
from tallygate.adapters.redis.record_reads import Read, RecordReads
from tallygate.adapters.redis.records import (
    events_of_record,
    events_of_stem,
    reservation_from_record,
)
from tallygate.adapters.redis.templates import Templates
from tallygate.adapters.redis.wire import Command, exchange
from tallygate.domain.decision import Fenced, Operation, Outcome, Reservation
from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.ids import SourceId, numbered_in
from tallygate.domain.made import stem_of
from tallygate.ports import OperationKey, Recorded, ReservationKey

# A script runs alone: 64 operations of a few limits keep others waiting for under 2 ms.
CHUNK_MAX = 64
ATTEMPTS_MAX = 3
# A copy that is older than so many epochs is recognised by the ledger only.
EPOCHS_LEFT_MAX = 16


class StoreObserver(Protocol):
    """What the store tells of itself."""

    def script_reloaded(self) -> None:
        """A server did not know the script and was given it."""

    def epoch_changed(self, shard: int) -> None:
        """A shard's counters turned out to be of another epoch."""

    def rolled_back(self, shard: int) -> None:
        """A shard had forgotten numbers that it had given out; its epoch is given up."""

    def pipeline_finished(self, operations: int, seconds: float) -> None:
        """A pipeline with so many operations has been answered, or has failed."""


class SilentObserver:
    """Hears nothing."""

    def script_reloaded(self) -> None:
        """Ignore it."""

    def epoch_changed(self, shard: int) -> None:
        """Ignore it."""

    def rolled_back(self, shard: int) -> None:
        """Ignore it."""

    def pipeline_finished(self, operations: int, seconds: float) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How the store works. `now_us` is for tests: it returns 0 where the server's clock decides.

    With `opens_new`, counters that are new or were lost begin at 0 at once: nobody rebuilds them.
    """

    source_id: SourceId
    shards: int
    memory_ms: int
    opens_new: bool = True
    now_us: Callable[[], int] = field(default=lambda: 0)


@dataclass(slots=True)
class _Lane:
    """A shard as we know it: its epoch, under which name we are numbered in it, and how far."""

    epoch: str
    source_id: SourceId
    last_seq: int = 0


@dataclass(slots=True)
class _Chunk:
    """Operations of one shard that go in one script call, with their places in the reply.

    `epoch` is the only one that they may be decided in, empty for whichever there is.
    """

    shard: int
    epoch: str
    places: list[int]
    operations: list[Operation]


class RedisQuotaStore:
    """The `QuotaStore` port over one Redis."""

    def __init__(
        self, client: Redis, options: StoreOptions, observer: StoreObserver | None = None
    ) -> None:
        self._client = client
        self._records = RecordReads(client)
        self._options = options
        self._observer = observer or SilentObserver()
        self._lanes: dict[int, _Lane] = {}
        self._agreeing = asyncio.Lock()
        # Epochs that each shard has had before, the last few.
        self._left: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=EPOCHS_LEFT_MAX))
        # What was known of numbers before the server was asked for its epochs.
        self._told: dict[tuple[int, SourceId], int] = {}
        self._script: script.Script | None = None
        self._templates = Templates()

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Decide the operations. See the port; a failure stands in the place of its outcome."""
        results: list[Outcome | TallygateError] = [BackendUnavailable()] * len(operations)
        waiting = _chunks(operations)
        started = time.perf_counter()
        for attempt in range(ATTEMPTS_MAX):
            try:
                await self._open()
                waiting = await self._in_their_epochs(waiting, results)
                waiting = await self._send(waiting, results)
            except (RedisError, OSError) as error:
                if not _is_broken(error) or attempt > 0:
                    _fill(results, waiting, translate(error))
                    break
            except TallygateError as error:
                # A Redis of another layout: no operation may touch it.
                _fill(results, waiting, error)
                break
            if not waiting:
                break
        self._observer.pipeline_finished(len(operations), time.perf_counter() - started)
        return results

    def know(self, shard: int, source_id: SourceId, seq: int) -> None:
        """Take in that a number was given out under a name, which ends with its epoch.

        As a journal tells at the start: a shard that has forgotten it is not decided by.
        """
        lane = self._lanes.get(shard)
        if lane is None:
            key = (shard, source_id)
            self._told[key] = max(seq, self._told.get(key, 0))
        elif lane.source_id == source_id:
            lane.last_seq = max(seq, lane.last_seq)

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Return a reservation as it stands. See the port."""

        def names(epoch: str) -> list[str]:
            return [keys.reservation(key.shard, epoch, key.tenant_id, key.reservation_id)]

        (record,) = await self._read_records(key.shard, names)
        return reservation_from_record(record) if record is not None else None

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Return an event while its operation is remembered. See the port."""
        stem = stem_of(key.operation_id)

        def names(epoch: str) -> list[str]:
            return [
                keys.operation(key.shard, epoch, key.tenant_id, key.operation_id),
                keys.refunded(key.shard, epoch, key.tenant_id, key.event_id),
                *([keys.stem(key.shard, epoch, key.tenant_id, stem)] if stem else []),
            ]

        record, refunded, *whole = await self._read_records(key.shard, names)
        payload, at_us = events_of_record(record) if record is not None else (b"", 0)
        if not payload and whole and whole[0] is not None:
            payload, at_us = events_of_stem(whole[0], key.operation_id)
        return Recorded(payload, at_us, int(refunded or 0)) if payload else None

    async def open(self) -> None:
        """Agree with the server on shards and epochs, and give it the script.

        Raises `LayoutDiffers` when it was set up with another number of shards.
        """
        try:
            await self._open()
        except (RedisError, OSError) as error:
            raise translate(error) from error

    async def _open(self) -> None:
        if self._script is not None:
            return
        await layout.agree_on_shards(self._client, self._options.shards)
        await self._agree(range(self._options.shards))
        await self._load_script()

    async def _agree(self, shards: Sequence[int]) -> None:
        """Take up the epochs that the shards have, or are given now."""
        opens = self._options.opens_new
        # One after the other, so that a late answer is not taken for an old epoch that came back.
        async with self._agreeing:
            epochs = await layout.agree_on_epochs(self._client, shards, opens=opens)
            for shard in [shard for shard, epoch in epochs.items() if epoch in self._left[shard]]:
                # An old copy: what was counted since is not in it.
                await self._renew_epoch(shard, epochs[shard])
                epochs |= await layout.agree_on_epochs(self._client, [shard], opens=opens)
            for shard, epoch in epochs.items():
                self._take_up(shard, epoch)

    def _take_up(self, shard: int, epoch: str) -> None:
        known = self._lanes.get(shard)
        if known is not None and known.epoch == epoch:
            return
        source_id = numbered_in(self._options.source_id, epoch)
        told = self._told.pop((shard, source_id), 0)
        self._lanes[shard] = _Lane(epoch, source_id, told)
        if known is not None:
            self._left[shard].append(known.epoch)
            self._observer.epoch_changed(shard)

    async def _load_script(self) -> None:
        self._script = script.load(await layout.server_version(self._client))
        await self._client.script_load(self._script.text)

    async def _in_their_epochs(
        self, chunks: list[_Chunk], results: list[Outcome | TallygateError]
    ) -> list[_Chunk]:
        """Return the chunks that may be decided in their shard's epoch; fence the others."""
        kept: list[_Chunk] = []
        for chunk in chunks:
            if chunk.epoch and self._lanes[chunk.shard].epoch != chunk.epoch:
                # It may be us who have not heard of it yet.
                await self._adopt_epoch(chunk.shard)
            if chunk.epoch in ("", self._lanes[chunk.shard].epoch):
                kept.append(chunk)
                continue
            for place in chunk.places:
                results[place] = Fenced()
        return kept

    async def _send(
        self, chunks: list[_Chunk], results: list[Outcome | TallygateError]
    ) -> list[_Chunk]:
        """Send every chunk in one pipeline; return those that have to be sent again."""
        now_us = self._options.now_us()
        sha = cast(script.Script, self._script).sha
        commands: list[Command] = []
        lanes = [self._lanes[chunk.shard] for chunk in chunks]
        for chunk, lane in zip(chunks, lanes, strict=True):
            frame = Frame(
                chunk.shard,
                lane.epoch,
                lane.source_id,
                self._options.memory_ms,
                now_us,
                lane.last_seq,
            )
            names, args = arguments(frame, chunk.operations, self._templates)
            commands.append(("EVALSHA", sha, len(names), *names, *args))
        replies = await exchange(self._client, commands)
        again: list[_Chunk] = []
        unknown_script = False
        for chunk, lane, reply in zip(chunks, lanes, replies, strict=True):
            if isinstance(reply, NoScriptError):
                unknown_script = True
                again.append(chunk)
            elif _is_broken(reply):
                # One server of several: its connections were cut, or another takes over from it.
                _fill(results, [chunk], translate(cast(RedisError, reply)))
                again.append(chunk)
            elif isinstance(reply, RedisError):
                _fill(results, [chunk], translate(reply))
            elif not await self._answered(chunk, lane, cast(list[bytes], reply), results):
                again.append(chunk)
        if unknown_script:
            self._observer.script_reloaded()
            await self._load_script()
        return again

    async def _answered(
        self,
        chunk: _Chunk,
        lane: _Lane,
        reply: list[bytes],
        results: list[Outcome | TallygateError],
    ) -> bool:
        """Take in a reply; say whether the chunk is answered, and need not be sent again."""
        try:
            found = answers(reply, chunk.operations, lane.source_id)
        except (EpochDiffers, NumbersLost) as difference:
            try:
                if isinstance(difference, NumbersLost):
                    await self._renew_epoch(chunk.shard, lane.epoch)
                await self._adopt_epoch(chunk.shard)
            except (RedisError, OSError) as error:
                # What other chunks were answered stands.
                _fill(results, [chunk], translate(error))
                return True
            return False
        lane.last_seq = max(lane.last_seq, found.last_seq)
        for place, outcome in zip(chunk.places, found.outcomes, strict=True):
            results[place] = outcome
        return True

    async def _read_records(
        self, shard: int, names: Callable[[str], list[str]]
    ) -> list[bytes | None]:
        """Return the values of a shard's keys in its epoch.

        Raises `BackendUnavailable` for one that is missing while the shard is not rebuilt: it may
        have been there.
        """
        await self.open()
        for _ in range(ATTEMPTS_MAX):
            lane = self._lanes[shard]
            read: Read = await self._records.read(shard, *names(lane.epoch))
            if read.epoch == lane.epoch:
                if read.values[0] is None and not read.open:
                    raise BackendUnavailable("the shard's counters are being rebuilt")
                return read.values
            try:
                await self._adopt_epoch(shard)
            except (RedisError, OSError) as error:
                raise translate(error) from error
        raise BackendUnavailable("the shard's epoch changes too fast to read by")

    async def _renew_epoch(self, shard: int, epoch: str) -> None:
        # A replica that had not all has taken over, or an old copy was loaded. Its counters are
        # too low, and numbers must never be given out twice.
        await layout.renew_epoch(self._client, shard, epoch)
        self._observer.rolled_back(shard)

    async def _adopt_epoch(self, shard: int) -> None:
        # A shard without our epoch is most often a Redis that was emptied: agree on all anew.
        await layout.agree_on_shards(self._client, self._options.shards)
        await self._agree([shard])


def _chunks(operations: Sequence[Operation]) -> list[_Chunk]:
    """Divide by shard and epoch, in order, into chunks of at most `CHUNK_MAX`."""
    open_chunks: dict[tuple[int, str], _Chunk] = {}
    chunks: list[_Chunk] = []
    for place, operation in enumerate(operations):
        lane = (operation.shard, operation.epoch)
        chunk = open_chunks.get(lane)
        if chunk is None or len(chunk.places) == CHUNK_MAX:
            chunk = open_chunks[lane] = _Chunk(*lane, [], [])
            chunks.append(chunk)
        chunk.places.append(place)
        chunk.operations.append(operation)
    return chunks


def _is_broken(error: object) -> bool:
    """Say whether a connection broke, so that sending again may find a whole one."""
    late = isinstance(error, RedisTimeoutError | TimeoutError)
    return isinstance(error, RedisConnectionError | OSError) and not late


def _fill(
    results: list[Outcome | TallygateError], chunks: Sequence[_Chunk], error: TallygateError
) -> None:
    for chunk in chunks:
        for place in chunk.places:
            results[place] = error
