"""What a shard's stream holds of one call: events, crossings, and units gone from balances.

Guarantees: an entry tells all that its call has accepted, in order.
Refuses to know: how any of it is encoded.
"""

from dataclasses import dataclass

from tallygate.domain.ids import AccountId, LimitId, MeterName, SourceId


@dataclass(frozen=True, slots=True)
class Crossed:
    """A crossing as the stream has it."""

    account: AccountId
    limit_id: LimitId
    meter: MeterName
    ratio_ppm: int
    threshold: int
    used: int
    limit: int
    starts_us: int
    ends_us: int


@dataclass(frozen=True, slots=True)
class Burned:
    """Units of a balance that were used up for good, or came back, as the stream has it."""

    account: AccountId
    limit_id: LimitId
    place: int
    units: int


@dataclass(frozen=True, slots=True)
class Record:
    """Accepted events in a stream entry. `reject_reason` is empty for usage."""

    first_seq: int
    event_count: int
    payload: bytes
    reject_reason: str = ""


Part = Record | Crossed | Burned


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry: what one call of the script has accepted."""

    at_us: int
    source_id: SourceId
    parts: tuple[Part, ...]

    @property
    def records(self) -> tuple[Record, ...]:
        """Its events."""
        return tuple(part for part in self.parts if isinstance(part, Record))

    @property
    def crossings(self) -> tuple[Crossed, ...]:
        """Its crossings."""
        return tuple(part for part in self.parts if isinstance(part, Crossed))
