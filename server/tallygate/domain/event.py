"""Events: usage as it lies in the ledger, crossings, and what a stream entry holds.

Guarantees: an event's fields are within the bounds that every store and destination can hold.
Refuses to know: how events are encoded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import (
    EventId,
    LimitId,
    MeterName,
    OperationId,
    ReservationId,
    SourceId,
    TenantId,
)
from tallygate.domain.quick import quick

SCHEMA_VERSION: Final = 1
# The reason of a dead letter that can never be stored as what it is.
UNSTORABLE: Final = "UNSTORABLE"
DIMENSIONS_MAX: Final = 16
DIMENSION_KEY_LENGTH_MAX: Final = 64
DIMENSION_VALUE_LENGTH_MAX: Final = 256
CONTEXT_LENGTH_MAX: Final = 256
METADATA_BYTES_MAX: Final = 4096
# How far a client's clock may run ahead; Stripe refuses beyond the same five minutes.
FUTURE_SKEW_US: Final = 300_000_000

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class EventContext:
    """The circumstances of a use; empty strings where unknown."""

    subject_id: str = ""
    resource_id: str = ""
    session_id: str = ""
    region: str = ""
    sku: str = ""
    correlation_id: str = ""
    sdk: str = ""


NO_CONTEXT: Final = EventContext()


@quick
@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One use of one meter by one tenant. Times are microseconds since the epoch.

    A refund's `amount` is below 0, and `refund_of` names the event it takes back.

    `metadata_json` is a JSON object as text, empty for none. The fields from `received_at_us` on
    are set when the event is accepted; `event_time_us` 0 means the moment it is accepted.
    """

    event_id: EventId
    tenant_id: TenantId
    meter: MeterName
    amount: int
    event_time_us: int
    operation_id: OperationId
    context: EventContext = NO_CONTEXT
    dimensions: Mapping[str, str] = field(default_factory=dict)
    metadata_json: str = ""
    received_at_us: int = 0
    source_id: SourceId = SourceId("")
    source_lane: int = 0
    source_seq: int = 0
    counter_epoch: str = ""
    schema_version: int = SCHEMA_VERSION
    refund_of: EventId = EventId("")
    reservation_id: ReservationId = ReservationId("")
    # The place in a trace of the call that it came with, empty for none: no part of what it says.
    trace: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class ThresholdCrossing:
    """A limit's warning threshold was reached, once in its window.

    Of a balance, `threshold` and `used` are units left, and there is no window. `scope` is
    `KEY=VALUE` for a limit per dimension.
    """

    tenant_id: TenantId
    limit_id: LimitId
    meter: MeterName
    ratio_ppm: int
    threshold: int
    used: int
    limit: int
    window_start_us: int
    window_end_us: int
    crossed_at_us: int
    scope: str = ""
    # The place in a trace of the call that crossed it, empty for none.
    trace: bytes = field(default=b"", compare=False)

    @property
    def of_balance(self) -> bool:
        """Say whether it is a balance's; a warning's ratio is above 0."""
        return self.ratio_ppm == 0


@dataclass(frozen=True, slots=True)
class BalanceBurn:
    """Units of a balance that were used up, or with a negative amount came back.

    `grant_seq` is the grant's number; 0 is the overdraft, -1 what nothing has funded. The source,
    its lane, `number` and the entry that it lay in make it one of a kind. `counter_epoch` is that
    of the counters it was taken from.
    """

    tenant_id: TenantId
    limit_id: LimitId
    grant_seq: int
    amount: int
    source_id: SourceId
    source_lane: int
    entry_id: str
    number: int
    burned_at_us: int
    counter_epoch: str = ""


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """An event that was refused but is kept, with the reason, or that can never be stored.

    `payload` is the event as it was received, or the bytes that could not be read.
    """

    tenant_id: str
    event_id: str
    reason: str
    detail: str
    payload: bytes
    received_at_us: int
    source_id: SourceId
    source_lane: int
    source_seq: int


@dataclass(frozen=True, slots=True)
class SequenceRange:
    """Numbers of one source's lane, both ends inclusive."""

    source_id: SourceId
    source_lane: int
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry of a shard's stream, decoded; `ranges` covers every event, readable or not."""

    shard: int
    entry_id: str
    received_at_us: int
    events: tuple[UsageEvent, ...] = ()
    crossings: tuple[ThresholdCrossing, ...] = ()
    rejected: tuple[RejectedEvent, ...] = ()
    ranges: tuple[SequenceRange, ...] = ()
    burns: tuple[BalanceBurn, ...] = ()


def text(value: str, field_name: str, length_max: int = CONTEXT_LENGTH_MAX) -> str:
    """Return `value` if every store can hold it.

    Raises `InvalidField` for more than `length_max` characters, a NUL or a lone surrogate: Postgres
    can hold neither, and one such event would block a whole batch.
    """
    if len(value) > length_max:
        raise InvalidField(f"must be at most {length_max} characters", field=field_name)
    if _UNSTORABLE.search(value):
        raise InvalidField("must not contain NUL or lone surrogates", field=field_name)
    return value


def dimensions(value: Mapping[str, str], field_name: str = "dimensions") -> dict[str, str]:
    """Return a copy of `value` if it is within the bounds of an event's dimensions.

    Raises `InvalidField` naming the key at fault.
    """
    if len(value) > DIMENSIONS_MAX:
        raise InvalidField(f"must have at most {DIMENSIONS_MAX} keys", field=field_name)
    for key, content in value.items():
        if not key:
            raise InvalidField("must not have an empty key", field=field_name)
        text(key, f"{field_name}[{key[:DIMENSION_KEY_LENGTH_MAX]!r}]", DIMENSION_KEY_LENGTH_MAX)
        text(content, f"{field_name}[{key!r}]", DIMENSION_VALUE_LENGTH_MAX)
    return dict(value)
