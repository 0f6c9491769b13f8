"""The hash over a period's events: what is hashed, in which order, and how much of it at a time.

Guarantees: the digest of a revision is a SHA-256 over the digests of its minutes, in order, and
over the revision before it. Who finds other events with the same digest has found a collision of
SHA-256. What a minute has is proven by that minute's events alone.
Refuses to know: where events lie.

`docs/periods.md` defines the bytes; `minute_digest` is the same in Python as in the ledger's SQL.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName
from tallygate.domain.period import Figures, PeriodKey
from tallygate.domain.window import HOUR_US, MINUTE_US, Window

FORMAT: Final = "tallygate-period 1"


class LeafKind(StrEnum):
    """Why a period has events: they came in time, came for it late, or for one closed before."""

    EVENTS = "events"
    LATE = "late"
    ADJUSTED = "adjusted"


@dataclass(frozen=True, slots=True)
class Leaf:
    """The events of one meter in one minute."""

    kind: LeafKind
    minute_us: int
    meter: MeterName
    events: int
    figures: Figures
    digest: bytes


@dataclass(frozen=True, slots=True)
class Covered:
    """What a revision covers beside those before it: events, in figures by kind and meter.

    `events` counts those of earlier revisions too; `digest` has them in it.
    """

    events: int
    digest: bytes
    figures: Mapping[tuple[LeafKind, MeterName], Figures]


class PeriodDigest:
    """Takes the leaves of one revision, in order, in bounded memory."""

    def __init__(self, key: PeriodKey, end_us: int, revision: int, before: Covered | None) -> None:
        self._hash = hashlib.sha256()
        self._events = before.events if before else 0
        self._figures: dict[tuple[LeafKind, MeterName], Figures] = {}
        previous = before.digest.hex() if before else "-"
        for line in (FORMAT, key.tenant_id, key.start_us, end_us, revision, previous):
            self._hash.update(f"{line}\n".encode())

    def add(self, leaf: Leaf) -> None:
        """Take the next leaf."""
        shown = (leaf.kind, leaf.minute_us, leaf.events, leaf.meter, leaf.digest.hex())
        self._hash.update(f"{' '.join(map(str, shown))}\n".encode())
        self._events += leaf.events
        place = (leaf.kind, leaf.meter)
        self._figures[place] = self._figures.get(place, Figures()).merged(leaf.figures)

    def covered(self) -> Covered:
        """Return what has been taken."""
        return Covered(self._events, self._hash.digest(), self._figures)


def minute_digest(events: Iterable[UsageEvent]) -> bytes:
    """Return the digest of a minute's events, in whichever order they come."""
    ordered = sorted(events, key=lambda event: event.event_id.encode())
    return hashlib.sha256(b"".join(map(event_digest, ordered))).digest()


def event_digest(event: UsageEvent) -> bytes:
    """Return the digest of what of an event is billed."""
    lines = (
        event.event_id,
        event.amount,
        event.event_time_us,
        event.refund_of,
        _dimensions(event.dimensions),
    )
    return hashlib.sha256("\n".join(map(str, lines)).encode()).digest()


def pieces(hours: Sequence[tuple[int, int]], within: Window, events_max: int) -> Iterator[Window]:
    """Divide a stretch so that no part has many more events; `hours` says how many each has.

    Parts are whole minutes, and together they are all of it.
    """
    start, events = within.start_us, 0
    for hour_us, count in hours:
        begin, end = max(hour_us, start), min(hour_us + HOUR_US, within.end_us)
        if begin >= end:
            continue
        if events and events + count > events_max:
            if start < begin:
                yield Window(start, begin)
            start, events = begin, 0
        if count > events_max:
            minutes = (end - start) // MINUTE_US
            parts = min(minutes, -(-count // events_max))
            for part in range(parts):
                cut = start + minutes * part // parts * MINUTE_US
                yield Window(cut, start + minutes * (part + 1) // parts * MINUTE_US)
            start = end
            continue
        events += count
    if start < within.end_us:
        yield Window(start, within.end_us)


def _dimensions(dimensions: Mapping[str, str]) -> str:
    """Return dimensions as Postgres writes its jsonb: keys by length, then by bytes."""
    keys = sorted(dimensions, key=lambda key: (len(key.encode()), key.encode()))
    return json.dumps({key: dimensions[key] for key in keys}, ensure_ascii=False)
