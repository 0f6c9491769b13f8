"""I1 to I8: what must hold whatever happened. Each is a function from a history to what is wrong.

Owns the invariants of the whole chain. Refuses to know which faults there were: what a history may
be excused for stands in it.
"""

from collections import Counter as Times
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from tests.oracle.facts import Answer, Call, Counter, Held, History, Kind, Row

Invariant = Callable[[History], Iterator[str]]

GATED: Final = frozenset({Kind.CONSUME, Kind.COMMIT})


def conservation(history: History) -> Iterator[str]:
    """I1: a counter is the ledger's sum and what is held; a rollup is the ledger's sum."""
    for counter in history.rest.counters:
        expected = sum(row.amount for row in _counted(counter, history.rest.ledger))
        if counter.used != expected + counter.held:
            yield (
                f"counter {counter.account} {counter.limit_id} holds {counter.used}, the ledger"
                f" {expected} and reservations {counter.held}"
            )
    for rollup in history.rest.rollups:
        rows = [
            row
            for row in history.rest.ledger
            if (row.tenant, row.meter) == (rollup.tenant, rollup.meter)
            and rollup.starts_us <= row.event_time_us < rollup.ends_us
        ]
        found = (sum(not row.refund_of for row in rows), sum(row.amount for row in rows))
        if found != (rollup.count, rollup.sum):
            yield (
                f"rollup {rollup.tenant} {rollup.meter} at {rollup.starts_us} has"
                f" {(rollup.count, rollup.sum)}, the ledger {found}"
            )


def limits_kept(history: History) -> Iterator[str]:
    """I2: what was gated passes no limit; what was degraded, by no more than the allowance."""
    gated = {
        (call.tenant, call.operation) for call in history.calls if call.kind in GATED and call.gated
    }
    present = {(row.tenant, row.event) for row in history.rest.ledger}
    for counter in history.rest.counters:
        if counter.limit is None:
            continue
        rows = [
            row
            for row in _counted(counter, history.rest.ledger)
            if (row.tenant, row.operation) in gated
        ]
        events = {(row.tenant, row.event) for row in rows}
        granted = sum(row.amount for row in rows)
        granted += sum(
            row.amount
            for row in _counted(counter, history.rest.ledger)
            if row.refund_of and (row.tenant, row.refund_of) in events
        )
        granted += sum(_unrecorded(counter, history.calls, present))
        if granted > counter.limit + counter.allowance:
            yield (
                f"{counter.account} {counter.limit_id} was granted {granted} of {counter.limit}"
                f" and an allowance of {counter.allowance}"
            )


def exactly_once(history: History) -> Iterator[str]:
    """I3: each acknowledged event is in the ledger once, and told each destination once."""
    times = Times((row.tenant, row.event) for row in history.rest.ledger)
    for key, number in times.items():
        if number > 1:
            yield f"event {key} is {number} times in the ledger"
    rejected = set(history.rest.dead_letters)
    told: set[tuple[str, str]] = set()
    for call in history.calls:
        if call.answer is not Answer.GRANTED or call.held in history.lossy:
            continue
        for event in call.events:
            key = (call.tenant, event)
            if key not in times and key not in rejected and key not in told:
                told.add(key)
                yield f"event {key} was acknowledged as {call.held or 'held'} and is not stored"
    yield from _unasked(history)
    yield from _deliveries(history, times)


def same_answer(history: History) -> Iterator[str]:
    """I4: the same operation is told the same, and is done once."""
    by_operation: dict[tuple[str, str, str], list[Call]] = defaultdict(list)
    for call in history.calls:
        by_operation[call.tenant, call.kind, call.operation].append(call)
    for key, calls in by_operation.items():
        granted = [call for call in calls if call.answer is Answer.GRANTED]
        for first in granted:
            for other in calls:
                if other.sent_us < first.ended_us or _forgotten(history, first, other):
                    continue
                if other.answer is Answer.REFUSED and other.degraded:
                    # Said by a sidecar for itself: what Redis has granted it cannot know.
                    continue
                if other.answer in (Answer.REFUSED, Answer.FAILED, Answer.CLOSED):
                    yield f"{key} was granted, and a repeat was {other.answer}: {other.text}"
        done = [call for call in granted if not call.replayed and not call.degraded]
        for one, two in pairwise(done):
            if not _forgotten(history, one, two) and not _forgotten(history, two, one):
                yield f"{key} was granted anew {len(done)} times"
        plain = [call for call in granted if not call.degraded]
        for one, two in pairwise(plain):
            if one.decision != two.decision and not _forgotten(history, one, two):
                yield f"{key} was told {one.decision!r}, then {two.decision!r}"
        if len({call.events for call in granted}) > 1:
            yield f"{key} was told different events: {sorted({call.events for call in granted})}"


def complete(history: History) -> Iterator[str]:
    """I5: accepted = persisted + in the stream + in the journal + known to be lost."""
    for lane in history.rest.lanes:
        found = lane.persisted + lane.in_stream + lane.in_journal + lane.lost
        if lane.accepted != found:
            yield (
                f"{lane.source} lane {lane.lane}: {lane.accepted} accepted, {lane.persisted}"
                f" persisted, {lane.in_stream} in the stream, {lane.in_journal} in the journal,"
                f" {lane.lost} lost"
            )
        missing = sum(last - first + 1 for first, last in lane.gaps)
        if missing > lane.in_stream + lane.in_journal + lane.lost:
            yield f"{lane.source} lane {lane.lane} has gaps that nothing accounts for: {lane.gaps}"


def drained(history: History) -> Iterator[str]:
    """I6: once the faults are over, lag goes back to 0 in bounded time."""
    rest = history.rest
    if rest.drained_s is None:
        yield f"lag did not go back to 0 within {rest.drain_max_s:g} s of healing"
    elif rest.drained_s > rest.drain_max_s:
        yield f"lag took {rest.drained_s:g} s to go back to 0, not {rest.drain_max_s:g} s"
    if rest.journal_left:
        yield f"journals still hold {rest.journal_left} events that the ledger has not confirmed"


def own_tenant_only(history: History) -> Iterator[str]:
    """I7: nobody is shown, charged or billed for what is another tenant's."""
    for call in history.calls:
        lineage = _lineage(history.tenants, call.tenant)
        for account in call.accounts:
            if account and account.partition(" ")[0] not in lineage:
                yield f"{call.kind} {call.operation} of {call.tenant} was shown {account}"
    asked = {(call.operation, call.tenant) for call in history.calls}
    operations = {operation for operation, _ in asked}
    for row in history.rest.ledger:
        if row.operation in operations and (row.operation, row.tenant) not in asked:
            yield f"event {row.event} of operation {row.operation} is {row.tenant}'s"


def no_secrets(history: History) -> Iterator[str]:
    """I8: no secret in a reply, in a log, in a message."""
    texts = [
        *((f"the reply to {call.operation}", call.text) for call in history.calls),
        *(("a log line", line) for line in history.logs),
        *(
            (f"message {each.message_id}", each.payload.decode(errors="replace"))
            for each in history.rest.taken
        ),
    ]
    for secret in history.secrets:
        for where, text in texts:
            if secret in text:
                yield f"{where} holds a secret"


INVARIANTS: Final[Mapping[str, Invariant]] = {
    "I1": conservation,
    "I2": limits_kept,
    "I3": exactly_once,
    "I4": same_answer,
    "I5": complete,
    "I6": drained,
    "I7": own_tenant_only,
    "I8": no_secrets,
}


def verdicts(history: History) -> dict[str, list[str]]:
    """Return what is wrong by each invariant, in order; nothing wrong is an empty list."""
    return {name: list(invariant(history)) for name, invariant in INVARIANTS.items()}


def faults(history: History) -> list[str]:
    """Return all that is wrong, each line with its invariant's name."""
    return [f"{name}: {each}" for name, found in verdicts(history).items() for each in found]


def _counted(counter: Counter, ledger: Sequence[Row]) -> Iterator[Row]:
    """Iterate over the events that a counter's window counts: by when they were, if it was live."""
    for row in ledger:
        at_us = min(row.event_time_us, row.received_us)
        if (
            row.tenant in counter.family
            and row.meter == counter.meter
            and counter.starts_us <= at_us < counter.ends_us
            and counter.starts_us <= row.received_us < counter.ends_us
            and (counter.per is None or row.dimensions.get(counter.per[0]) == counter.per[1])
        ):
            yield row


def _unrecorded(
    counter: Counter, calls: Sequence[Call], present: set[tuple[str, str]]
) -> Iterator[int]:
    """Iterate over the units of grants in the counter's window that the ledger does not have."""
    told: set[tuple[str, str]] = set()
    for call in calls:
        key = (call.tenant, call.operation)
        granted = call.answer is Answer.GRANTED and call.kind is Kind.CONSUME and call.gated
        inside = counter.starts_us <= call.sent_us and call.ended_us < counter.ends_us
        if not granted or not inside or call.tenant not in counter.family or key in told:
            continue
        if not any((call.tenant, event) in present for event in call.events):
            told.add(key)
            yield sum(units for meter, units in call.units if meter == counter.meter)


def _unasked(history: History) -> Iterator[str]:
    """Tell of events in the ledger that nobody asked for."""
    asked = {(call.tenant, call.operation) for call in history.calls}
    if not asked:
        return
    for row in history.rest.ledger:
        if (row.tenant, row.operation) not in asked:
            yield f"event {row.tenant, row.event} is in the ledger, and nobody asked for it"


def _deliveries(history: History, stored: Mapping[tuple[str, str], int]) -> Iterator[str]:
    rest = history.rest
    for destination in sorted({message.destination for message in rest.wanted}):
        taken: dict[str, set[tuple[tuple[tuple[str, str], ...], bytes]]] = defaultdict(set)
        for message in rest.taken:
            if message.destination == destination:
                taken[message.message_id].add((message.events, message.payload))
        for message_id, contents in taken.items():
            if len(contents) > 1:
                yield f"{destination} was told different things as message {message_id}"
        wanted = [each for each in rest.wanted if each.destination == destination]
        for message in wanted:
            if message.message_id not in taken and message.message_id not in rest.parked:
                yield f"{destination} was never told message {message.message_id}"
        # One content per message id: the destination knows a repeat by it.
        billed = Times(key for contents in taken.values() for key in next(iter(contents))[0])
        whole = not rest.parked and any(message.events for message in wanted)
        yield from _billed(destination, billed, stored, whole=whole)


def _billed(
    destination: str,
    billed: Mapping[tuple[str, str], int],
    stored: Mapping[tuple[str, str], int],
    *,
    whole: bool,
) -> Iterator[str]:
    """Tell of events that a destination was told twice, wrongly, or where all are due, never."""
    for key, number in billed.items():
        if number > 1:
            yield f"{destination} was told event {key} in {number} messages"
        if key not in stored:
            yield f"{destination} was told event {key}, which is not in the ledger"
    for key in stored if whole else ():
        if key not in billed:
            yield f"{destination} was never told event {key}"


def _forgotten(history: History, one: Call, two: Call) -> bool:
    """Say whether the first answer may be forgotten, or unknown, where the second was given."""
    if two.sent_us - one.ended_us >= history.memory_us:
        return True
    if any(one.sent_us <= at_us <= two.ended_us for at_us in history.forgotten_us):
        return True
    # What was granted without the store is known to its own sidecar until the store has it.
    return one.degraded and one.sidecar != two.sidecar


def _lineage(tenants: Mapping[str, str], tenant: str) -> set[str]:
    found: set[str] = set()
    while tenant and tenant not in found:
        found.add(tenant)
        tenant = tenants.get(tenant, "")
    return found


__all__ = ["INVARIANTS", "Held", "faults", "verdicts"]
