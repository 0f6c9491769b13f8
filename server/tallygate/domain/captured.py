"""Usage that triggers have captured in an app's own database.

Guarantees: pure; the event's id is the row's own, however often it is told.
Refuses to know: how rows are held.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.recording import Refused, Use

# A level of nothing is told as a unit that is refunded at once: amounts are at least 1.
NOTHING: Final = 1


@dataclass(frozen=True, slots=True)
class CapturedUse:
    """A row of the outbox. An `amount` of 0 is a level that has come to nothing."""

    captured_id: int
    event_id: str
    tenant_id: str
    meter: str
    amount: int
    captured_at_us: int
    dimensions: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 1

    def use(self) -> Use:
        """Return the event to record."""
        return Use(
            self.event_id,
            self.tenant_id,
            self.meter,
            self.amount or NOTHING,
            self.captured_at_us,
            self.dimensions,
        )


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of claimed rows: accepted, refused for good, or to be told again later."""

    accepted: Sequence[int] = ()
    refused: Mapping[int, Refused] = field(default_factory=dict)
    later_ms: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CaptureBacklog:
    """What an outbox holds. `oldest_s` is the age of the oldest row that waits, 0 for none."""

    waiting: int = 0
    unfolded: int = 0
    oldest_s: float = 0.0
    rejected: int = 0
    unmeasured: int = 0
