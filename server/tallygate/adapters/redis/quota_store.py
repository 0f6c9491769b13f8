"""The quota store in Redis: many operations, one pipeline, one script call per shard and chunk.

Guarantees: an operation is applied at most once per operation id, whatever fails between here and
Redis; a server that has lost its scripts or its epoch is taken up again within the same call.
Refuses to know: plans and callers.

A pipeline that broke is sent once more when every operation in it may be: those with an operation
id are answered from their record, those without change nothing that counts.
"""

import time
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
from tallygate.adapters.redis.admit_call import EpochDiffers, Frame, arguments, outcomes
from tallygate.adapters.redis.client import translate
from tallygate.adapters.redis.record_reads import RecordReads
from tallygate.adapters.redis.records import events_of_record, reservation_from_record
from tallygate.adapters.redis.wire import Command, exchange
from tallygate.domain.decision import Operation, Outcome, Reservation
from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.ids import SourceId, numbered_in
from tallygate.ports import OperationKey, Recorded, ReservationKey

# A script runs alone: 64 operations of a few limits keep others waiting for under 2 ms.
CHUNK_MAX = 64
ATTEMPTS_MAX = 3


class StoreObserver(Protocol):
    """What the store tells of itself."""

    def script_reloaded(self) -> None:
        """A server did not know the script and was given it."""

    def epoch_changed(self, shard: int) -> None:
        """A shard's counters turned out to be of another epoch."""

    def pipeline_finished(self, operations: int, seconds: float) -> None:
        """A pipeline with so many operations has been answered, or has failed."""


class SilentObserver:
    """Hears nothing."""

    def script_reloaded(self) -> None:
        """Ignore it."""

    def epoch_changed(self, shard: int) -> None:
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
class _Chunk:
    """Operations of one shard that go in one script call, with their places in the reply."""

    shard: int
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
        self._epochs: dict[int, str] = {}
        self._script: script.Script | None = None

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Decide the operations. See the port; a failure stands in the place of its outcome."""
        results: list[Outcome | TallygateError] = [BackendUnavailable()] * len(operations)
        waiting = _chunks(operations)
        started = time.perf_counter()
        for attempt in range(ATTEMPTS_MAX):
            try:
                await self._open()
                waiting = await self._send(waiting, results)
            except (RedisError, OSError) as error:
                broken = isinstance(error, RedisConnectionError | OSError)
                late = isinstance(error, RedisTimeoutError | TimeoutError)
                if late or not broken or attempt > 0:
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

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Return a reservation as it stands. See the port."""
        name = keys.reservation(key.shard, key.tenant_id, key.reservation_id)
        (record,) = await self._records.read(name)
        return reservation_from_record(record) if record is not None else None

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Return an event while its operation is remembered. See the port."""
        record, refunded = await self._records.read(
            keys.operation(key.shard, key.tenant_id, key.operation_id),
            keys.refunded(key.shard, key.tenant_id, key.event_id),
        )
        payload, at_us = events_of_record(record) if record is not None else (b"", 0)
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
        self._epochs = await layout.agree_on_epochs(self._client, list(range(self._options.shards)))
        await self._load_script()

    async def _load_script(self) -> None:
        self._script = script.load(await layout.server_version(self._client))
        await self._client.script_load(self._script.text)

    async def _send(
        self, chunks: list[_Chunk], results: list[Outcome | TallygateError]
    ) -> list[_Chunk]:
        """Send every chunk in one pipeline; return those that have to be sent again."""
        now_us = self._options.now_us()
        sha = cast(script.Script, self._script).sha
        commands: list[Command] = []
        for chunk in chunks:
            frame = Frame(
                chunk.shard,
                self._epochs[chunk.shard],
                numbered_in(self._options.source_id, self._epochs[chunk.shard]),
                self._options.memory_ms,
                now_us,
            )
            names, args = arguments(frame, chunk.operations)
            commands.append(("EVALSHA", sha, len(names), *names, *args))
        replies = await exchange(self._client, commands)
        return await self._read(chunks, replies, results)

    async def _read(
        self,
        chunks: list[_Chunk],
        replies: list[object],
        results: list[Outcome | TallygateError],
    ) -> list[_Chunk]:
        again: list[_Chunk] = []
        unknown_script = False
        for chunk, reply in zip(chunks, replies, strict=True):
            if isinstance(reply, NoScriptError):
                unknown_script = True
                again.append(chunk)
            elif isinstance(reply, RedisError):
                _fill(results, [chunk], translate(reply))
            else:
                try:
                    answers = outcomes(cast(list[bytes], reply), chunk.operations)
                except EpochDiffers:
                    await self._adopt_epoch(chunk.shard)
                    again.append(chunk)
                else:
                    for place, answer in zip(chunk.places, answers, strict=True):
                        results[place] = answer
        if unknown_script:
            self._observer.script_reloaded()
            await self._load_script()
        return again

    async def _adopt_epoch(self, shard: int) -> None:
        # A shard without our epoch is most often a Redis that was emptied: agree on all anew.
        await layout.agree_on_shards(self._client, self._options.shards)
        self._epochs |= await layout.agree_on_epochs(self._client, [shard])
        self._observer.epoch_changed(shard)


def _chunks(operations: Sequence[Operation]) -> list[_Chunk]:
    """Divide by shard, in order, into chunks of at most `CHUNK_MAX`."""
    open_chunks: dict[int, _Chunk] = {}
    chunks: list[_Chunk] = []
    for place, operation in enumerate(operations):
        chunk = open_chunks.get(operation.shard)
        if chunk is None or len(chunk.places) == CHUNK_MAX:
            chunk = open_chunks[operation.shard] = _Chunk(operation.shard, [], [])
            chunks.append(chunk)
        chunk.places.append(place)
        chunk.operations.append(operation)
    return chunks


def _fill(
    results: list[Outcome | TallygateError], chunks: Sequence[_Chunk], error: TallygateError
) -> None:
    for chunk in chunks:
        for place in chunk.places:
            results[place] = error
