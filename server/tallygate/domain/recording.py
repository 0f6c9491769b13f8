"""Usage handed to a sidecar by somebody else of ours, and what became of each piece.

Guarantees: pure; what may be told again is never told apart from what may not by its text.
Refuses to know: how a sidecar is reached.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

# What one call may carry, in requests.
TOGETHER_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Use:
    """One event to record, not checked yet. `time_us` 0 means now."""

    event_id: str
    tenant_id: str
    meter: str
    amount: int
    time_us: int = 0
    dimensions: Mapping[str, str] = field(default_factory=dict)
    subject_id: str = ""
    metadata_json: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """It was accepted; `replayed` when it had been before."""

    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """It was not accepted, and will not be as it is."""

    reason: str
    message: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Later:
    """It was not accepted now; the same again may be, after so long."""

    reason: str
    message: str
    after_ms: int


Outcome: TypeAlias = Recorded | Refused | Later
