"""Where usage is recorded by somebody of ours who is no sidecar.

Guarantees: what comes back as recorded is as durable as the implementation says.
Refuses to know: transports.
"""

from collections.abc import Sequence
from typing import Protocol

from tallygate.domain.recording import Outcome, Use


class UsageRecorder(Protocol):
    """Records usage, each piece by itself."""

    async def record(self, uses: Sequence[Use]) -> Sequence[Outcome]:
        """Record a list of at most `TOGETHER_MAX`; return an outcome for each, in order.

        Where nobody answers, all of them are `Later`.
        """
        ...

    async def take_back(self, use: Use) -> Outcome:
        """Refund all of an event that was recorded; harmless when repeated."""
        ...
