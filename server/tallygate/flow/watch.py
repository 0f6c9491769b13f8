"""Redis ─▶ admit.quotas ─▶ [ watch ] ─▶ api ──gRPC──▶ app: where a tenant stands, as it changes.

If we die here, the streams break and callers open them anew; each begins with a snapshot, so that
nothing has to be remembered between two of them.

Guarantees: one read per distinct question, however many watch it; a slow watcher is sent the newest
state only and costs one state of memory; what is on show is never older than `stale_ms`.
Refuses to know: protos, counters, and who runs the loop.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from tallygate.domain.decision import LimitReading, LimitState
from tallygate.domain.errors import BackendUnavailable, Overloaded, TallygateError
from tallygate.domain.ids import AccountId, LimitId, TenantId
from tallygate.domain.request import QuotaRequest, QuotaResult
from tallygate.ports import Clock

# With the loop's jitter a change is seen within 150 ms, which leaves 100 of the 250 promised.
POLL_MS: Final = 100
# One pipeline of so many checks takes a few milliseconds; decisions pass between two of them.
READS_MAX: Final = 100
# Beyond any time in which counters that can be read are read, also on a busy machine; a store that
# hangs is found out sooner by the breaker.
READ_S: Final = 2.0
# A caller that finds no room should not be back before others have had time to leave.
PUSHBACK_US: Final = 1_000_000

_Question = tuple[TenantId, tuple[str, ...], tuple[tuple[str, str], ...]]
_Reading = tuple[AccountId, LimitId, str, LimitState, int, int, int, int]


class Cause(Enum):
    """Why a watcher is told."""

    SNAPSHOT = "snapshot"
    CHANGED = "changed"
    CROSSED = "crossed"


@dataclass(frozen=True, slots=True)
class Update:
    """Where a tenant stands, and why it is told now."""

    result: QuotaResult
    cause: Cause


class Reads(Protocol):
    """Reads where tenants stand, many at a time."""

    async def quotas(
        self, requests: Sequence[QuotaRequest], expires_at: float = ...
    ) -> list[QuotaResult | TallygateError]:
        """Return one result per request, in order; what cannot be read is its error."""
        ...


class WatchObserver(Protocol):
    """What watching tells of itself."""

    def watching(self, watches: int, questions: int) -> None:
        """So many watches are open, on so many distinct questions."""

    def polled(self, outcome: str, count: int) -> None:
        """So many questions were read: `same`, `changed` or `failed`."""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How watching is bounded: open watches, and the distinct questions that they ask.

    A watch ends when nothing could be read for `stale_ms`.
    """

    watches_max: int
    questions_max: int
    stale_ms: int


@dataclass(frozen=True, slots=True)
class WatchParts:
    """What watching works with."""

    reads: Reads
    clock: Clock
    observer: WatchObserver


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll did."""

    questions: int = 0
    changed: int = 0
    failed: int = 0

    @property
    def more(self) -> bool:
        """The next look waits for its time even if this one was long: decisions go before."""
        return False


class Watch:
    """One watcher's view: what it was sent, and the newest state if that is another one."""

    def __init__(self, snapshot: QuotaResult) -> None:
        self._sent = snapshot
        self._newest = snapshot
        self._error: TallygateError | None = None
        self._wake = asyncio.Event()

    async def updates(self) -> AsyncIterator[Update]:
        """Iterate over a snapshot and then each change, the newest only. Raises what ended it."""
        yield Update(self._sent, Cause.SNAPSHOT)
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._error is not None:
                raise self._error
            # It may have changed back while the watcher was busy with the update before.
            if _same(self._sent, self._newest):
                continue
            before, self._sent = self._sent, self._newest
            yield Update(self._sent, _cause(before, self._sent))

    def offer(self, result: QuotaResult) -> bool:
        """Take note of where the tenant stands; say whether that is news."""
        if _same(self._newest, result):
            return False
        self._newest = result
        self._wake.set()
        return True

    def end(self, error: TallygateError) -> None:
        """Have the watcher told that this is the end, and why."""
        self._error = error
        self._wake.set()


@dataclass(slots=True)
class _Topic:
    """A question with those who watch it, and when it was last answered."""

    request: QuotaRequest
    read_at: float
    watches: set[Watch] = field(default_factory=set)


class Watches:
    """All watches of a process, and the step that keeps them up to date."""

    def __init__(self, parts: WatchParts, options: WatchOptions) -> None:
        self._parts = parts
        self._options = options
        self._topics: dict[_Question, _Topic] = {}
        self._open = 0

    @asynccontextmanager
    async def open(self, request: QuotaRequest) -> AsyncIterator[Watch]:
        """Watch for the length of a block.

        Raises `Overloaded` when there are too many watches, and what keeps the limits unread.
        """
        if self._open >= self._options.watches_max:
            raise _full()
        self._check_room(request)
        self._open += 1
        try:
            self._tell()
            watch = Watch(await self._snapshot(request))
            # Others may have come while it was read.
            self._check_room(request)
            # Only now: a poll that is under way could show it what was before its snapshot.
            topic = self._join(request, watch)
            try:
                yield watch
            finally:
                self._leave(topic, watch)
        finally:
            self._open -= 1
            self._tell()

    async def run_once(self) -> Polled:
        """Read every question once, and hand on what has changed."""
        # As they are now: who comes while we read has a newer snapshot than we shall have.
        asked = [(topic, tuple(topic.watches)) for topic in self._topics.values()]
        counts = {"same": 0, "changed": 0, "failed": 0}
        away: TallygateError | None = None
        for start in range(0, len(asked), READS_MAX):
            chunk = asked[start : start + READS_MAX]
            results: Sequence[QuotaResult | TallygateError]
            if away is None:
                results = await self._read([topic.request for topic, _ in chunk])
                away = _away(results)
            else:
                # Waiting for each chunk in turn would let the last ones go stale unsaid.
                results = [away] * len(chunk)
            for (topic, watches), result in zip(chunk, results, strict=True):
                counts[self._hand_on(topic, watches, result)] += 1
        for outcome, count in counts.items():
            if count:
                self._parts.observer.polled(outcome, count)
        return Polled(len(asked), counts["changed"], counts["failed"])

    def _check_room(self, request: QuotaRequest) -> None:
        full = len(self._topics) >= self._options.questions_max
        if full and _question(request) not in self._topics:
            raise _full()

    async def _snapshot(self, request: QuotaRequest) -> QuotaResult:
        [result] = await self._read([request])
        if isinstance(result, TallygateError):
            raise result
        return result

    async def _read(self, requests: Sequence[QuotaRequest]) -> list[QuotaResult | TallygateError]:
        expires_at = asyncio.get_running_loop().time() + READ_S
        try:
            async with asyncio.timeout(READ_S):
                return await self._parts.reads.quotas(requests, expires_at)
        except TimeoutError:
            return [BackendUnavailable() for _ in requests]
        except TallygateError as error:
            return [error for _ in requests]

    def _hand_on(
        self, topic: _Topic, watches: Sequence[Watch], result: QuotaResult | TallygateError
    ) -> str:
        now = self._parts.clock.monotonic()
        if not isinstance(result, TallygateError):
            topic.read_at = now
            # A sum, so that each is offered it and not only the first to whom it is news.
            return "changed" if sum(watch.offer(result) for watch in watches) else "same"
        # What passes is waited out, for a while: silence must not mean "as before" for long.
        if not result.transient or (now - topic.read_at) * 1000 >= self._options.stale_ms:
            for watch in watches:
                watch.end(result)
        return "failed"

    def _join(self, request: QuotaRequest, watch: Watch) -> _Topic:
        now = self._parts.clock.monotonic()
        topic = self._topics.setdefault(_question(request), _Topic(request, now))
        topic.read_at = now
        topic.watches.add(watch)
        self._tell()
        return topic

    def _leave(self, topic: _Topic, watch: Watch) -> None:
        topic.watches.discard(watch)
        if not topic.watches:
            self._topics.pop(_question(topic.request), None)

    def _tell(self) -> None:
        self._parts.observer.watching(self._open, len(self._topics))


def _full() -> Overloaded:
    return Overloaded("no more watches are taken here", retry_after_us=PUSHBACK_US)


def _away(results: Sequence[QuotaResult | TallygateError]) -> TallygateError | None:
    """Return the error by which nothing at all can be read now, None when something was."""
    errors = [each for each in results if isinstance(each, TallygateError) and each.transient]
    return errors[0] if errors and len(errors) == len(results) else None


def _question(request: QuotaRequest) -> _Question:
    """Return what is asked, the same for all who ask it in other words."""
    meters = tuple(sorted(set(request.meters)))
    return request.tenant_id, meters, tuple(sorted(request.dimensions.items()))


def _same(one: QuotaResult, other: QuotaResult) -> bool:
    """Say whether a watcher would see no difference; the catalog's version alone is none."""
    return one.plan == other.plan and _shown(one) == _shown(other)


def _shown(result: QuotaResult) -> list[_Reading]:
    # A window in which nothing was used turns unseen, and so does an idle bucket, whose end is
    # always now: both would be told of for ever though nothing happens.
    return [
        (
            each.account,
            each.limit_id,
            each.meter,
            each.state,
            each.used,
            each.limit,
            each.remaining,
            each.resets_at_us if each.used else 0,
        )
        for each in result.readings
    ]


def _cause(before: QuotaResult, after: QuotaResult) -> Cause:
    states = {_name(each): each.state for each in before.readings}
    crossed = any(
        each.state is not states.get(_name(each), LimitState.OK) for each in after.readings
    )
    return Cause.CROSSED if crossed else Cause.CHANGED


def _name(reading: LimitReading) -> tuple[AccountId, LimitId]:
    return reading.account, reading.limit_id
