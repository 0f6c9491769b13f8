"""How those who were refused until the same moment are kept from coming back at that moment.

Guarantees: pure; nobody is told to come sooner than it can pass; an operation is told the same
share of the wait whenever it asks.
Refuses to know: how many were refused.
"""

import zlib
from dataclasses import replace
from typing import Final

from tallygate.domain.decision import Decided
from tallygate.domain.ids import OperationId

SHARE: Final = 10
"""A wait grows by at most one part of so many."""

SPREAD_MAX_US: Final = 1_000_000


def spread(decided: Decided, operation_id: OperationId | None) -> Decided:
    """Return a refusal whose wait, if a limit's reset ends it, is a little longer.

    All who were refused by a window may come back at its end. By as much as the operation's id
    says, up to a tenth of the wait and one second, each comes later. Other waits stay: that of a
    rate is the refused operation's own.
    """
    wait_us = decided.retry_after_us
    if wait_us is None:
        return decided
    ends_us = decided.at_us + wait_us
    if all(reading.resets_at_us != ends_us for reading in decided.readings):
        return decided
    room_us = min(wait_us // SHARE, SPREAD_MAX_US)
    later_us = zlib.crc32((operation_id or "").encode()) * (room_us + 1) >> 32
    return replace(decided, retry_after_us=wait_us + later_us)
