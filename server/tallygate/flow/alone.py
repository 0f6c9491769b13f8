"""admit ─▶ [ alone ] ─▶ outage ─▶ gather: a call of one request is its own part of a pipeline.

If we die here, what was sent may have been applied: the caller retries with the same operation id
and gets the first answer.

Guarantees: is told of once: what the store has answered, or why it has not.
Refuses to know: what becomes of either.
"""

from collections.abc import Callable, Sequence
from typing import Final

from tallygate.domain.decision import Operation, Outcome
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import TenantId
from tallygate.domain.request import ConsumeRequest, UsageRequest
from tallygate.flow.draft import Draft
from tallygate.flow.fair import Answers
from tallygate.flow.rounds import Told


class Alone:
    """One request with its draft, and its operation as it is sent at `now_us`, the store's time."""

    __slots__ = (
        "_heard",
        "draft",
        "expires_at",
        "now_us",
        "operations",
        "record",
        "request",
        "tenant_id",
        "ticket",
        "told",
    )

    def __init__(
        self,
        heard: "Callable[[Alone, Outcome | TallygateError], None]",
        to: tuple[Told, int],
        request: ConsumeRequest | UsageRequest,
        sent: tuple[Draft, Operation, int],
        *,
        expires_at: float,
        record: bool,
    ) -> None:
        """Keep all of it; `to` is whom to tell, by which ticket."""
        self._heard: Final = heard
        self.told, self.ticket = to
        self.request: Final = request
        self.draft, operation, self.now_us = sent
        self.operations: Sequence[Operation] = (operation,)
        self.tenant_id: TenantId = operation.tenant_id
        self.expires_at: Final = expires_at
        self.record: Final = record

    def gone(self) -> bool:
        """Say whether nobody waits for it any more."""
        return not self.told.waits(self.ticket)

    def answered(self, answers: Answers) -> None:
        """Take the store's answer."""
        try:
            self._heard(self, answers[0])
        except Exception as error:  # noqa: BLE001  a fault in one call must not end all others
            self.told.failed(self.ticket, error)

    def failed(self, error: Exception) -> None:
        """Take why the store was not asked, or has not answered."""
        self.told.failed(self.ticket, error)
