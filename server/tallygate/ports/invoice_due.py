"""The seam of issuing: which closed periods are to be invoiced, and why some are not.

Guarantees: a period is there from the transaction that closes it until it is invoiced; of two
processes that ask at once, one has it.
Refuses to know: SQL, prices, and how an invoice is worked out.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tallygate.domain.ids import TenantId
from tallygate.domain.window import Window


class Withheld(StrEnum):
    """Why a closed period is not invoiced."""

    DRIFT = "drift"
    EXCHANGE_RATE = "exchange_rate"
    TOO_LARGE = "too_large"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DueInvoice:
    """A closed revision of a period to invoice, the first of its tenant; `token` is who has it."""

    tenant_id: TenantId
    period: Window
    revision: int
    attempts: int
    token: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a period is not invoiced now, in words too, and when to look again."""

    reason: Withheld
    detail: str
    next_us: int


@dataclass(frozen=True, slots=True)
class DueCount:
    """How many periods are to be invoiced, held for a reason or for none, the first since when."""

    held: Withheld | None
    periods: int
    since_us: int = 0


class InvoiceQueue(Protocol):
    """Closed periods that are to be invoiced, by tenant in their order."""

    async def claim(self, now_us: int, count: int, lease_us: int) -> Sequence[DueInvoice]:
        """Take up to `count` that are due, the first of each tenant; nobody else has them then."""
        ...

    async def done(self, due: DueInvoice) -> bool:
        """Take one out, unless it was closed anew meanwhile; say whether it was still ours."""
        ...

    async def hold(self, due: DueInvoice, hold: Hold, now_us: int) -> bool:
        """Note why one is not invoiced, and tell it where that is new; say whether it was told."""
        ...

    async def counts(self) -> Sequence[DueCount]:
        """Count what is to be invoiced, by why it is held."""
        ...
