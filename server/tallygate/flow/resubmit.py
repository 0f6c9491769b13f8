"""backlog, hand_in ─▶ [ resubmit ] ─▶ QuotaStore: what was accepted is put as it was, ungated.

If we die here, whoever resubmits begins anew, from the journal: the store knows operations by ids.

Guarantees: no limit refuses what was accepted; a window that has passed is left as it was; an event
reaches the ledger even where its counters cannot be changed.
Refuses to know: why it has to be put again.
"""

from dataclasses import dataclass, replace
from typing import Final, Protocol

from tallygate.domain.catalog import OnExceed
from tallygate.domain.decision import (
    Broken,
    Decided,
    Mode,
    Moved,
    Operation,
    Outcome,
    Reused,
    Stale,
)
from tallygate.domain.detail import Hold
from tallygate.domain.errors import CounterOverflow, TooManyLimits, UnknownMeter, UnknownTenant
from tallygate.domain.event import NO_CONTEXT
from tallygate.domain.limit import in_reach
from tallygate.domain.request import Item
from tallygate.flow.draft import Drafter
from tallygate.ports import CatalogView
from tallygate.ports.journal import Entry

FOREVER: Final = float("inf")
# What is a fact by now is recorded, whatever it once asked for.
_AGAIN: Final = {Mode.REFUND: Mode.REFUND, Mode.REJECT: Mode.REJECT, Mode.CONSUME: Mode.CONSUME}


class EventDater(Protocol):
    """Writes a time into encoded events."""

    def dated(self, payload: bytes, at_us: int) -> bytes:
        """Return the events of a unit of the stream with that time where they name none."""
        ...


@dataclass(slots=True)
class Granted:
    """An operation that was accepted, its answer, and when, in loop time.

    `mark` is its own in the journal. Read back from there, it is not `bound` to charges at first.
    """

    operation: Operation
    answer: Decided
    granted_s: float
    uncounted: bool = False
    mark: int = 0
    bound: bool = True


def ungated(operation: Operation, at_us: int, dater: EventDater) -> Operation:
    """Return the operation as it was accepted at `at_us`, such that no limit refuses it."""
    payload = operation.payload
    if not operation.event_time_us and operation.mode is not Mode.RESERVE:
        # An event says when it was, and that was not when the store comes to it.
        payload = dater.dated(payload, at_us)
    return replace(
        operation,
        charges=tuple(
            replace(charge, on_exceed=OnExceed.ALLOW)
            if charge.on_exceed is OnExceed.REFUSE
            else charge
            for charge in operation.charges
        ),
        event_time_us=operation.event_time_us or at_us,
        payload=payload,
        expires_at=FOREVER,
        deadline_us=0,
    )


def settle(granted: Granted, outcome: Outcome) -> str:
    """Take in an outcome: return what became of it, or empty when it has to be put again."""
    operation = granted.operation
    match outcome:
        case Decided(allowed=True, replayed=replayed):
            counted = "uncounted" if granted.uncounted else "counted"
            return "replayed" if replayed else counted
        case Reused():
            # Somebody used the same id with other content: the caller's own fault.
            return "conflict"
        case Stale(now_us):
            # Counters of windows that are over need nothing any more.
            live = tuple(each for each in operation.charges if in_reach(each.rule, now_us))
            granted.operation = replace(operation, charges=live)
        case Moved():
            # Its counters are elsewhere by now. Its event belongs to the ledger, which knows it
            # by its own id.
            granted.uncounted = True
            granted.operation = replace(operation, charges=(), operation_id=None)
        case Broken() if operation.operation_id is not None and not operation.charges:
            # What stands under its id cannot be read; the ledger knows its event by itself.
            granted.operation = replace(operation, operation_id=None)
        case _ if operation.charges:
            # A counter that cannot be changed must not keep its event from the ledger.
            granted.uncounted = True
            granted.operation = replace(operation, charges=())
        case _:
            return "conflict"
    return ""


class Rebinder:
    """Binds what a journal kept without charges to the limits of now, at the time it was accepted.

    Limits may have changed since: what is counted anew is counted by those that decide from now on.
    """

    def __init__(self, catalog: CatalogView, drafter: Drafter) -> None:
        self._catalog = catalog
        self._drafter = drafter

    async def operation(self, entry: Entry) -> Operation:
        """Return the operation with charges; with none where its limits cannot be known any more.

        Raises `BackendUnavailable` while the catalog cannot be read.
        """
        kept = entry.operation
        mode = _AGAIN.get(kept.mode, Mode.RECORD)
        # Of a settling only its events are left: the reservation is gone.
        detail = kept.detail if mode is Mode.REFUND else None
        return await self._bound(replace(kept, mode=mode, detail=detail), entry)

    async def reservation(self, entry: Entry, ttl_us: int) -> Operation:
        """Return the reservation, with that much left of its time. Raises as `operation` does."""
        detail = entry.operation.detail
        assert isinstance(detail, Hold)
        kept = replace(entry.operation, detail=Hold(detail.reservation_id, ttl_us))
        return await self._bound(kept, entry)

    async def _bound(self, operation: Operation, entry: Entry) -> Operation:
        operation = replace(operation, charges=())
        if operation.mode is Mode.REJECT:
            return operation
        view = self._catalog
        try:
            catalog = view.current()
            held = view.lineage_held(operation.tenant_id)
            lineage = held if held is not None else await view.lineage(operation.tenant_id)
            events = self._drafter.encoder.decode(operation.payload, entry.at_us)
            items = tuple(
                Item(event.meter, abs(event.amount), event.dimensions)
                for event in events
                if event.meter in catalog.meters
            )
            context = events[0].context if events else NO_CONTEXT
            charges = self._drafter.binder.charges(catalog, lineage, items, context, entry.at_us)
        except (UnknownTenant, UnknownMeter, TooManyLimits, CounterOverflow, ValueError):
            return operation
        # Its tenant may have moved to another family since.
        return replace(operation, charges=charges, shard=self._drafter.shard(lineage))
