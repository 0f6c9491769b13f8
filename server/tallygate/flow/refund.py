"""app ──gRPC──▶ api ─▶ [ refund ] ─▶ decide ═▶ Redis: give quota back, record a negative event.

If we die here before the store is called, nothing has happened; after it, the caller retries with
the same operation id and gets the first answer.

Guarantees: an event is never refunded beyond its amount, however many ask; the refund is linked to
its event and dated as it is, so that it counts in the same period.
Refuses to know: events that the store has forgotten: the ledger's are for the control process.
"""

import json
from dataclasses import replace
from typing import Final

from tallygate.domain.catalog import Aggregation, Catalog
from tallygate.domain.decision import Mode, Operation
from tallygate.domain.detail import Refund
from tallygate.domain.errors import EventNotFound, InvalidField, StorageFault
from tallygate.domain.event import UsageEvent
from tallygate.domain.fingerprint import fingerprint
from tallygate.domain.ids import EventId, OperationId
from tallygate.domain.request import Item, RefundRequest, RefundResult, event_id_of
from tallygate.flow.decide import Decide, granted
from tallygate.flow.draft import FOREVER, OFFERED, Draft
from tallygate.ports import OperationKey, QuotaStore

_DIGITS: Final = frozenset("0123456789")


class Refunds:
    """Takes events back. `expires_at` is loop time, in seconds, when callers give up."""

    def __init__(self, decide: Decide, store: QuotaStore) -> None:
        self._decide = decide
        self._store = store

    async def refund(self, request: RefundRequest, expires_at: float = FOREVER) -> RefundResult:
        """Take back `amount` units of an event, or all that is left.

        Raises `EventNotFound`, `RefundTooLarge`, and `InvalidField` for a refund of a refund.
        """
        catalog = self._decide.catalog()
        lineage = await self._decide.lineage(request.tenant_id)
        shard = self._decide.drafter.shard(lineage)
        event, refunded = await self._find(request, shard)
        if event.refund_of:
            raise InvalidField("is a refund itself", field="event_id")
        # What is left may be nothing: then the script knows a repeat, or says so.
        units = request.amount or (event.amount - refunded) or event.amount
        operation_id = request.operation_id
        taken = replace(
            event,
            event_id=event_id_of(operation_id, 0),
            operation_id=operation_id,
            amount=-units,
            refund_of=event.event_id,
            received_at_us=0,
            metadata_json=json.dumps({"reason": request.reason}) if request.reason else "",
        )
        content = json.dumps([request.event_id, request.amount, request.reason]).encode()
        operation = Operation(
            mode=Mode.REFUND,
            tenant_id=request.tenant_id,
            shard=shard,
            operation_id=operation_id,
            fingerprint=fingerprint(Mode.REFUND, content),
            event_count=1,
            event_ids=(taken.event_id,),
            event_time_us=event.event_time_us,
            payload=self._decide.drafter.encoder.encode([taken]),
            # An event of a meter that counts is one until all of it is taken back.
            detail=Refund(event.event_id, units, event.amount, _counts(catalog, event)),
        )
        items = _items(catalog, event, units)
        draft = Draft(operation, catalog, lineage, items, event.context)
        decided = granted((await self._decide.decide([draft], expires_at))[0])
        if decided.replayed:
            units = await self._refunded_before(request, shard)
        return RefundResult(taken.event_id, units, OFFERED, decided.replayed, decided.readings)

    async def _find(self, request: RefundRequest, shard: int) -> tuple[UsageEvent, int]:
        """Return the event and the units of it that were refunded."""
        for operation_id in _operations_of(request.event_id):
            key = OperationKey(shard, request.tenant_id, operation_id, request.event_id)
            recorded = await self._store.recorded(key)
            if recorded is None:
                continue
            for event in self._decoded(recorded.payload, recorded.at_us):
                if event.event_id == request.event_id:
                    return event, recorded.refunded
        raise EventNotFound(
            f"there is no event {request.event_id!r} young enough to be refunded here",
            field="event_id",
        )

    async def _refunded_before(self, request: RefundRequest, shard: int) -> int:
        """Return how much the first call with this operation id has taken back."""
        event_id = event_id_of(request.operation_id, 0)
        key = OperationKey(shard, request.tenant_id, request.operation_id, event_id)
        recorded = await self._store.recorded(key)
        if recorded is None:
            raise StorageFault("a refund that was made cannot be read back")
        return -self._decoded(recorded.payload, recorded.at_us)[0].amount

    def _decoded(self, payload: bytes, at_us: int) -> list[UsageEvent]:
        try:
            return self._decide.drafter.encoder.decode(payload, at_us)
        except ValueError as error:
            raise StorageFault("a stored operation's events cannot be read") from error


def _operations_of(event_id: EventId) -> list[OperationId]:
    """Return the operations that may have recorded an event: its own, or the one it is an item of.

    RecordUsage remembers by the event's id; all others make ids with `event_id_of`.
    """
    operation, colon, index = event_id.rpartition(":")
    named = [OperationId(event_id)]
    if colon and operation and index and _DIGITS.issuperset(index):
        named.append(OperationId(operation))
    return named


def _counts(catalog: Catalog, event: UsageEvent) -> bool:
    meter = catalog.meters.get(event.meter)
    return meter is not None and meter.aggregation is Aggregation.COUNT


def _items(catalog: Catalog, event: UsageEvent, units: int) -> tuple[Item, ...]:
    if event.meter not in catalog.meters:
        # Gone from the catalog: there is no limit to give anything back to.
        return ()
    return (Item(event.meter, units, event.dimensions),)
