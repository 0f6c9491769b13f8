"""Usage of two systems that ran beside each other, compared: what matches, and what does not.

Guarantees: pure; amounts are exact decimals; what both have is compared whole, and what one has
alone is never passed over.
Refuses to know: files, and where our usage is kept.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Context, Decimal
from enum import StrEnum
from typing import Final

from tallygate.domain.ids import MeterName, TenantId

# Wider than any sum of a ledger: additions are exact.
EXACT: Final = Context(prec=60)
ZERO: Final = Decimal(0)


class Match(StrEnum):
    """How an amount here and one there compare."""

    MATCHED = "matched"
    DIFFERENT = "different"
    MISSING_HERE = "missing here"
    MISSING_THERE = "missing there"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two amounts may be apart: so many units, or so large a part of ours."""

    units: Decimal = ZERO
    part: Decimal = ZERO

    def allows(self, here: Decimal, there: Decimal) -> bool:
        """Say whether two amounts count as the same."""
        apart = abs(EXACT.subtract(here, there))
        return apart <= max(self.units, EXACT.multiply(abs(here), self.part))


@dataclass(frozen=True, slots=True)
class Entry:
    """An amount of one system: of a bucket, or of an event that has an id.

    `rows` is how many rows it was added up from; of an event, or of a total, one is right.
    """

    tenant_id: TenantId
    meter: MeterName
    bucket_us: int
    units: Decimal
    event_id: str = ""
    rows: int = 1

    @property
    def key(self) -> tuple[str, str, int]:
        """What both systems know it by, in the order of the code points."""
        if self.event_id:
            return self.tenant_id, self.event_id, 0
        return self.tenant_id, self.meter, self.bucket_us

    def plus(self, other: "Entry") -> "Entry":
        """Return both as one."""
        return Entry(
            self.tenant_id,
            self.meter,
            self.bucket_us,
            EXACT.add(self.units, other.units),
            self.event_id,
            self.rows + other.rows,
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """An entry of either or both systems, and how they compare."""

    match: Match
    here: Entry | None
    there: Entry | None
    detail: str = ""

    @property
    def entry(self) -> Entry:
        """Ours, else theirs."""
        found = self.here or self.there
        assert found is not None
        return found


@dataclass(slots=True)
class Parity:
    """How much of a tenant's meter matches; `bucket_us` is set where events are compared."""

    tenant_id: TenantId
    meter: MeterName
    bucket_us: int = 0
    counts: dict[Match, int] = field(default_factory=lambda: dict.fromkeys(Match, 0))
    here: Decimal = ZERO
    there: Decimal = ZERO

    @property
    def whole(self) -> bool:
        """Whether all of it matches."""
        return self.counts[Match.MATCHED] == sum(self.counts.values())

    def add(self, found: Compared) -> None:
        """Count what was compared."""
        self.counts[found.match] += 1
        if found.here is not None:
            self.here = EXACT.add(self.here, found.here.units)
        if found.there is not None:
            self.there = EXACT.add(self.there, found.there.units)


def merged(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Iterate over sorted entries, those of one key as one."""
    last: Entry | None = None
    for entry in entries:
        if last is None:
            last = entry
        elif last.key == entry.key:
            last = last.plus(entry)
        else:
            yield last
            last = entry
    if last is not None:
        yield last


def compared(
    here: Entry | None, there: Entry | None, tolerance: Tolerance, *, adds_up: bool
) -> Compared:
    """Compare what both systems have under one key; None where one has nothing.

    Where rows do not add up, as of totals and of events with ids, there may be only one.
    """
    if here is None or there is None:
        alone = here or there
        assert alone is not None
        if not alone.event_id and not alone.units:
            # A bucket in which all was taken back, and no bucket, are the same usage.
            return Compared(Match.MATCHED, here, there)
        return Compared(Match.MISSING_HERE if here is None else Match.MISSING_THERE, here, there)
    if there.rows > 1 and not adds_up:
        return Compared(Match.DIFFERENT, here, there, f"there {there.rows} times")
    if here.meter != there.meter:
        return Compared(Match.DIFFERENT, here, there, f"of meter {there.meter} there")
    if here.bucket_us != there.bucket_us:
        return Compared(Match.DIFFERENT, here, there, "in another period there")
    if not tolerance.allows(here.units, there.units):
        return Compared(Match.DIFFERENT, here, there)
    return Compared(Match.MATCHED, here, there)
