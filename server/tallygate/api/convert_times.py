"""Instants and lengths of time in messages.

Guarantees: what converts is within what every store can hold.
Refuses to know: what the times are of.
"""

from datetime import UTC, datetime
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tallygate.domain.errors import InvalidField
from tallygate.domain.window import DAY_US, from_datetime

DURATION_US_MAX: Final = 3_660 * DAY_US
INSTANT_US_END: Final = from_datetime(datetime(2200, 1, 1, tzinfo=UTC))


def instant_us(instant: Timestamp, field: str, least_us: int = 0) -> int:
    """Return microseconds, within the years that every store can hold. Raises `InvalidField`."""
    try:
        found_us: int = instant.ToMicroseconds()
    except ValueError:
        # Seconds or nanoseconds outside of what the type allows.
        found_us = INSTANT_US_END
    if not least_us <= found_us < INSTANT_US_END:
        raise InvalidField("must be in a year from 1970 to 2199", field=field)
    return found_us


def duration_us(duration: Duration, field: str) -> int:
    """Return microseconds, above 0 and not endless. Raises `InvalidField`."""
    try:
        found_us: int = duration.ToMicroseconds()
    except ValueError:
        found_us = 0
    if not 0 < found_us <= DURATION_US_MAX:
        raise InvalidField("must be above 0, at most 3660 days", field=field)
    return found_us
