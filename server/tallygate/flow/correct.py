"""ledger ─▶ [ correct ] ─▶ Redis: counters are set right for events that came twice or late.

If we die here before Redis has a correction, the next run gives it. If we die after it and before
the mark, it is given again, and Redis knows it by its operation id. After Redis has forgotten that
id, it is not given any more: the counter may then stand too high by it, never too low.
If Redis dies after it and a copy that lagged takes over, it is given again to that copy.

Guarantees: a correction reaches the epoch it is meant for or none; in another one the counters were
made of the ledger as it is. It appends no event.
Refuses to know: why a correction is due.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from tallygate.domain.catalog import Aggregation, Catalog, Tenant
from tallygate.domain.decision import BalanceRule, Decided, Fenced, Mode, Operation, Stale
from tallygate.domain.detail import Refund
from tallygate.domain.errors import CounterOverflow, TallygateError, TooManyLimits, UnknownMeter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, OperationId, shard_of
from tallygate.domain.request import Item
from tallygate.flow.bind import Binder
from tallygate.flow.family import lineages
from tallygate.ports import Clock, QuotaStore, UsageStream
from tallygate.ports.epochs import CounterStages, ShardState, Stage
from tallygate.ports.rebuild import Correction, Corrections, Declared, RebuildLedger

BATCH_MAX: Final = 256
TRIES_MAX: Final = 3
# Well before Redis forgets what it was given, so that what it has still is given once.
AGAIN_SHARE: Final = 0.5

APPLIED: Final = "applied"
SUPERSEDED: Final = "superseded"
UNCERTAIN: Final = "uncertain"
MOVED: Final = "moved"
UNBOUND: Final = "unbound"
REFUSED: Final = "refused"
OUTCOMES: Final = (APPLIED, SUPERSEDED, UNCERTAIN, MOVED, UNBOUND, REFUSED)


class CorrectObserver(Protocol):
    """What correcting tells of itself."""

    def corrected(self, outcome: str, corrections: int) -> None:
        """So many corrections were finished."""

    def pending(self, corrections: int) -> None:
        """So many are due."""


class SilentCorrectObserver:
    """Hears nothing."""

    def corrected(self, outcome: str, corrections: int) -> None:
        """Ignore it."""

    def pending(self, corrections: int) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class CorrectOptions:
    """Who corrects, and for how long Redis remembers an operation for certain."""

    holder: str
    shards: int
    memory_s: float
    lease_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class CorrectParts:
    """What correcting works with."""

    corrections: Corrections
    ledger: RebuildLedger
    stages: CounterStages
    stream: UsageStream
    store: QuotaStore
    declared: Declared
    clock: Clock
    observer: CorrectObserver = field(default_factory=SilentCorrectObserver)


@dataclass(frozen=True, slots=True)
class CorrectCounts:
    """What one run finished; `more` says that others are due that can be given now."""

    finished: int = 0
    more: bool = False


class Correct:
    """Gives counters what they are due, run by run. One process at a time does."""

    def __init__(self, parts: CorrectParts, options: CorrectOptions) -> None:
        self._parts = parts
        self._options = options
        self._binder = Binder()
        self._life = ""

    async def run_once(self) -> CorrectCounts:
        """Give the oldest corrections to the counters that are open; finish what is of no use.

        Raises what the ledger and the stream raise, and the first outage of Redis.
        """
        parts, options = self._parts, self._options
        if not await parts.ledger.lead(options.holder, options.lease_ms):
            return CorrectCounts()
        life = await parts.stages.life()
        if life != self._life:
            # What was given last may be lost with a server that is gone, without any number.
            await parts.corrections.again(options.memory_s * AGAIN_SHARE)
            self._life = life
        due = await parts.corrections.due(BATCH_MAX)
        parts.observer.pending(await parts.corrections.depth() if due else 0)
        catalog = await parts.declared.effective(parts.clock.now_us()) if due else None
        if catalog is None:
            return CorrectCounts()
        states = {state.shard: state for state in await parts.stages.states()}
        outcomes: dict[int, str] = {}
        going: list[Correction] = []
        for each in due:
            outcome = self._vain(each, states.get(each.shard))
            if outcome:
                outcomes[each.number] = outcome
            elif states[each.shard].stage is Stage.OPEN:
                going.append(each)
        # What is added comes first: a counter ends at 0, and what is taken back of one operation
        # may have been added to it by another, which is due as well.
        going.sort(key=_takes)
        failure = await self._apply(going, catalog, outcomes)
        if outcomes:
            await parts.corrections.finish(outcomes)
            for outcome, corrections in Counter(outcomes.values()).items():
                parts.observer.corrected(outcome, corrections)
        if failure is not None:
            raise failure
        return CorrectCounts(len(outcomes), more=bool(outcomes) and len(due) == BATCH_MAX)

    def _vain(self, due: Correction, state: ShardState | None) -> str:
        """Return why a correction is not to be given any more, empty if it is."""
        if state is None or state.epoch != due.epoch:
            return SUPERSEDED
        # It may have been given, and nobody knows any more.
        return UNCERTAIN if due.tried_s > self._options.memory_s else ""

    async def _apply(
        self, going: Sequence[Correction], catalog: Catalog, outcomes: dict[int, str]
    ) -> TallygateError | None:
        """Give corrections to the counters, noting their outcomes; return the first outage."""
        if not going:
            return None
        parts = self._parts
        await parts.corrections.trying([each.number for each in going])
        ids = sorted({each.event.tenant_id for each in going})
        families = await lineages(parts.declared, catalog, ids)
        now_us = await parts.stream.now_us()
        failure: TallygateError | None = None
        for _ in range(TRIES_MAX):
            asked: list[tuple[Correction, Operation]] = []
            for each in going:
                lineage = families.get(each.event.tenant_id, ())
                operation = self._operation(each, catalog, lineage, now_us)
                if isinstance(operation, str):
                    outcomes[each.number] = operation
                else:
                    asked.append((each, operation))
            going = []
            found = await parts.store.decide([operation for _, operation in asked])
            for (each, _), outcome in zip(asked, found, strict=True):
                match outcome:
                    case Decided():
                        outcomes[each.number] = APPLIED
                    case Stale(at_us):
                        now_us = max(now_us, at_us)
                        going.append(each)
                    case Fenced():
                        pass
                    case TallygateError() if outcome.transient:
                        failure = failure or outcome
                    case _:
                        outcomes[each.number] = REFUSED
            if not going:
                break
        return failure

    def _operation(
        self, due: Correction, catalog: Catalog, lineage: tuple[Tenant, ...], now_us: int
    ) -> Operation | str:
        """Return what gives a correction to the counters, or why there is nothing to give."""
        event = due.event
        if not lineage:
            return UNBOUND
        if shard_of(lineage[-1].tenant_id, self._options.shards) != due.shard:
            return MOVED
        items = [Item(event.meter, abs(event.amount), event.dimensions)]
        try:
            charges = self._binder.charges(catalog, lineage, items, event.context, now_us)
        except (UnknownMeter, TooManyLimits, CounterOverflow):
            return UNBOUND
        if not due.takes_back:
            # What it took from a balance was posted with it: the books of credits have that.
            charges = tuple(each for each in charges if not isinstance(each.rule, BalanceRule))
        if not charges or _counts_nothing(catalog, event):
            return APPLIED
        name = f"correction {due.number}"
        takes = _takes(due)
        return Operation(
            mode=Mode.REFUND if takes else Mode.RECORD,
            tenant_id=event.tenant_id,
            shard=due.shard,
            # No client's operation id holds a space, so that none is taken for a correction's.
            operation_id=OperationId(name),
            fingerprint=name,
            charges=charges,
            event_time_us=min(event.event_time_us, event.received_at_us),
            detail=Refund(EventId(name), 1, 1) if takes else None,
            epoch=due.epoch,
        )


def _takes(due: Correction) -> bool:
    """Say whether a correction makes counters smaller; that of a refund is the other way round."""
    return due.takes_back == (due.event.amount > 0)


def _counts_nothing(catalog: Catalog, event: UsageEvent) -> bool:
    """Say whether an event changes no counter by itself: a part of one that counts as a whole."""
    meter = catalog.meters[event.meter]
    return bool(event.refund_of) and meter.aggregation is Aggregation.COUNT
