"""gather, backlog ─▶ QuotaStore ═▶ [ journal ]: what the store has accepted goes to our own disk.

If we die here between the store's answer and the entry, the store has the event, and the caller was
told nothing: the retry is answered from the store's record, and is entered then.

Guarantees: each event that the store accepts from this process has an entry while the journal takes
any; an answer says where its entry is. Reservations are entered until they are over.
Refuses to know: who waits for which durability.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, cast

from tallygate.domain.decision import (
    Decided,
    Mode,
    Operation,
    Outcome,
    Reservation,
    Unresolved,
)
from tallygate.domain.detail import Extension, Hold, Settlement
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import SourceId, numbered_in
from tallygate.ports import OperationKey, QuotaStore, Recorded, ReservationKey
from tallygate.ports.journal import Batch, Entry, EntryKind, Journal

# An enumeration's members are slow to find, and every call comes through here.
_COMMIT: Final = Mode.COMMIT
_PLACED: Final = EntryKind.PLACED
_SETTLING: Final = frozenset({Mode.COMMIT, Mode.RELEASE})
_HOLDING: Final = frozenset({Mode.RESERVE, Mode.EXTEND})


class JournaledStore:
    """The `QuotaStore` port in front of another one, with a journal beside it."""

    def __init__(self, store: QuotaStore, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        # The epoch of each shard, as far as known: an answer without events does not tell it.
        self.epochs: dict[int, str] = {}

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Return what the store answers, entered where it was accepted."""
        outcomes = await self._store.decide(operations)
        places: list[int] = []
        placed: list[Entry] = []
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, Decided):
                if outcome.allowed:
                    entry = self._entry(operations[place], outcome)
                    if entry is None:
                        continue
                    if outcome.replayed and self._covers(entry):
                        # All that was taken up to now includes it.
                        outcomes[place] = _marked(outcome, self._journal.newest)
                        continue
                    places.append(place)
                    placed.append(entry)
            elif isinstance(outcome, Unresolved):
                self._over(operations[place])
        if placed:
            mark = self._append(placed)
            for place in places if mark else ():
                if operations[place].marked:
                    outcomes[place] = _marked(cast(Decided, outcomes[place]), mark)
        return outcomes

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Return what the store does. Raises what it raises."""
        return await self._store.reservation(key)

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Return what the store does. Raises what it raises."""
        return await self._store.recorded(key)

    def _append(self, placed: list[Entry]) -> int:
        """Enter what one pipeline has placed, and return its mark, 0 where it is not taken.

        In one record: what an entry costs is for the most part its record, and its way there.
        """
        if len(placed) == 1:
            return self._journal.append(placed[0])
        return self._journal.append(Batch(tuple(placed)))

    def _entry(self, operation: Operation, answer: Decided) -> Entry | None:
        """Note what became of a reservation; return the entry of what has events."""
        mode = operation.mode
        if operation.detail is not None:
            if mode in _SETTLING:
                self._over(operation)
            elif mode in _HOLDING:
                self._hold(operation, answer)
        if not (answer.first_seq and answer.source_id):
            return None
        placed = _with_excess(operation, answer) if mode is _COMMIT else operation
        return Entry(_PLACED, placed, answer.at_us, answer.source_id, answer.first_seq)

    def _covers(self, entry: Entry) -> bool:
        last = entry.first_seq + entry.operation.event_count - 1
        return self._journal.covers((entry.source_id, entry.operation.shard), entry.first_seq, last)

    def _hold(self, operation: Operation, answer: Decided) -> None:
        if answer.replayed:
            return
        match operation.detail:
            case Hold(_, ttl_us) if operation.payload:
                # A lease has no events: what was granted from it is entered by itself.
                kind, kept = EntryKind.HELD, operation
            case Extension(reservation_id, ttl_us, _):
                kind = EntryKind.EXTENDED
                kept = replace(operation, detail=Hold(reservation_id, ttl_us))
            case _:
                return
        # One whose epoch is not known is made anew, and found to be there.
        known = numbered_in(SourceId(""), self.epochs.get(operation.shard, ""))
        made_in = answer.source_id or known
        expires_us = answer.at_us + ttl_us
        self._journal.append(Entry(kind, kept, answer.at_us, made_in, expires_us=expires_us))

    def _over(self, operation: Operation) -> None:
        if isinstance(operation.detail, Settlement):
            self._journal.release((operation.tenant_id, operation.detail.reservation_id))


def _with_excess(operation: Operation, answer: Decided) -> Operation:
    """Return a settling with all events that it recorded as its own."""
    detail = operation.detail
    if not isinstance(detail, Settlement) or answer.refused_by is not None:
        return operation
    return replace(
        operation,
        # Two batches of events in a row are one batch.
        payload=operation.payload + detail.excess_payload,
        event_count=operation.event_count + detail.excess_count,
    )


def _marked(answer: Decided, mark: int) -> Decided:
    # Spelt out and by place: `replace`, and names, cost several times as much, for every call.
    return Decided(
        answer.allowed,
        answer.at_us,
        answer.readings,
        answer.refused_by,
        answer.retry_after_us,
        answer.first_seq,
        answer.replayed,
        answer.degraded,
        answer.leased,
        answer.source_id,
        mark,
    )
