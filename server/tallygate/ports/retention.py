"""The seam of retention: months of events, their archives, and who may not lose them.

Guarantees: a month is dropped only while its archive has all of it, nobody holds it and no billing
period of it is open: whoever drops looks again, with everything else kept out.
Refuses to know: SQL, policies and files.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.retention import MonthFacts
from tallygate.ports.export import ExportRows, Written


class NotDropped(TallygateError):
    """The month may not be dropped any more: plan again."""

    reason = "INVALID_FIELD"


@dataclass(frozen=True, slots=True)
class MonthUsage:
    """What a month came to, of a tenant's meter; `events` has refunds too, `count` has not."""

    tenant_id: TenantId
    meter: MeterName
    events: int
    count: int
    sum: int
    max: int
    min: int


@dataclass(frozen=True, slots=True)
class MonthRows:
    """A month's events of one moment, and what they come to."""

    rows: ExportRows
    usage: Sequence[MonthUsage]


@dataclass(frozen=True, slots=True)
class MonthArchive:
    """A file that a month's events were written to."""

    archive_id: str
    month_us: int
    leaf: str
    events: int
    file: Written
    format: str
    actor: str
    usage: Sequence[MonthUsage]


@dataclass(frozen=True, slots=True)
class LegalHold:
    """Why a tenant's events and messages may not be dropped; until it ends, its end is 0."""

    hold_id: str
    tenant_id: TenantId
    reason: str
    actor: str
    placed_at_us: int = 0
    released_at_us: int = 0
    release_reason: str = ""
    released_by: str = ""


class Retention(Protocol):
    """Archives and drops months of events, and keeps what is held."""

    async def months(self, before_us: int) -> Sequence[MonthFacts]:
        """Return the months of events before an instant that were not dropped, by time."""
        ...

    def rows(self, month_us: int) -> AbstractAsyncContextManager[MonthRows]:
        """Lend a month's events of one moment."""
        ...

    async def note(self, archive: MonthArchive) -> None:
        """Note an archive that is whole."""
        ...

    async def drop(self, facts: MonthFacts, keep_months: int, actor: str) -> int:
        """Drop a month that its archive has; return how many events. Raises `NotDropped`."""
        ...

    async def hold(self, hold: LegalHold) -> LegalHold:
        """Place a hold, once for its id. Raises `OperationIdReused` for another one of this id."""
        ...

    async def release(self, hold_id: str, reason: str, actor: str) -> bool:
        """End a hold; say whether it was in force. Raises `NotFound` for an unknown one."""
        ...

    async def holds(self, tenant_id: TenantId | None) -> Sequence[LegalHold]:
        """Return holds, of one tenant or all, the newest first, those that have ended as well."""
        ...
