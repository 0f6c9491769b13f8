"""Calls that were granted ahead of the store, as the operation that settles them records them.

Guarantees: either all calls of an operation are recorded or none: one that is known was charged
elsewhere, and its units are not to be used up.
Refuses to know: who granted them, and counters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tallygate.domain.decision import Decided, Known, Operation
from tallygate.domain.detail import Given, Late, Settlement
from tallygate.domain.ids import OperationId, TenantId
from tallygate.domain.made import PLACES_MAX, made_ids
from tallygate.domain.remembered import Remembered

Key = tuple[TenantId, OperationId]


def given_in(operation: Operation) -> tuple[Given, ...]:
    """Return the calls that the operation records, beside what it does itself."""
    return operation.detail.given if isinstance(operation.detail, Settlement | Late) else ()


def calls_of(operation: Operation) -> Iterator[tuple[OperationId | None, str, int, bytes]]:
    """Iterate over an operation's calls: the id, fingerprint, event count and events of each."""
    start = 0
    for given in given_in(operation):
        for of, fingerprint in zip(given.operation_ids, given.fingerprints, strict=True):
            end = start + given.size_bytes
            yield of, fingerprint, given.event_count, operation.payload[start:end]
            start = end


def known_among(operation: Operation, known: Mapping[Key, Remembered], now_us: int) -> Known | None:
    """Return which of an operation's calls are known already, None for none."""
    found: list[tuple[int, str]] = []
    start, tenant_id = 0, operation.tenant_id
    for run in given_in(operation):
        if run.stem:
            # Whether one is remembered still shows when each is looked for.
            if any((tenant_id, of) in known for of in made_ids(run.stem, 0, PLACES_MAX)):
                found.append((start, "t"))
        else:
            pairs = zip(run.operation_ids, run.fingerprints, strict=True)
            for place, (of, fingerprint) in enumerate(pairs, start):
                kept = known.get((tenant_id, of)) if of is not None else None
                if kept is not None and now_us < kept.until_us:
                    found.append((place, "p" if kept.fingerprint == fingerprint else "u"))
        start += len(run.operation_ids)
    return Known(tuple(found)) if found else None


def remembered_given(
    operation: Operation, answer: Decided, memory_us: int
) -> Iterator[tuple[Key, Remembered]]:
    """Iterate over what is remembered of each call: that it was granted, and its events."""
    seq, until_us = answer.first_seq, answer.at_us + memory_us
    plain = replace(answer, readings=(), refused_by=None)
    for of, fingerprint, count, payload in calls_of(operation):
        if of is not None:
            told = replace(plain, first_seq=seq)
            yield (operation.tenant_id, of), Remembered(fingerprint, until_us, told, payload)
        seq += count
