"""ledger · stream ─▶ [ explain ] ─▶ one event's whole story.

If we die here, nothing has happened: an explanation reads, and changes nothing.

Guarantees: an event that was accepted and is not lost is found: in the ledger, in the archive of a
month that was dropped, among the dead letters, or in the streams. The streams are searched first:
what leaves them meanwhile has reached the ledger.
Refuses to know: SQL, Redis, and how a story is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tallygate.domain.catalog import default_tenant
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import EventId, TenantId
from tallygate.domain.window import Period, Window, window_at
from tallygate.ports import CatalogStore, Clock
from tallygate.ports.story import (
    Archived,
    Bucket,
    CorrectionTold,
    EventRecords,
    EventStreams,
    Letter,
    RefundTold,
    Stored,
    Told,
    Waiting,
)


class Ending(StrEnum):
    """Where an event's way has led it."""

    PERSISTED = "persisted"
    ARCHIVED = "archived"
    REJECTED = "rejected"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Chapter:
    """The story of an event of one tenant.

    `duplicates` are where it lies in the streams though the ledger has it. `period` is the billing
    period of the tenant's calendar as it is now, None for a tenant that the catalog has not.
    """

    tenant_id: TenantId
    ending: Ending
    stored: Stored | None = None
    archived: Archived | None = None
    letters: tuple[Letter, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    duplicates: tuple[Waiting, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    refunds: tuple[RefundTold, ...] = ()
    told: tuple[Told, ...] = ()
    corrections: tuple[CorrectionTold, ...] = ()
    period: Window | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """All chapters, one per tenant; `unsearched` says why the streams were not, if so."""

    event_id: EventId
    chapters: tuple[Chapter, ...]
    unsearched: str = ""

    @property
    def known(self) -> bool:
        """Whether anything is on record."""
        return bool(self.chapters)


@dataclass(frozen=True, slots=True)
class ExplainParts:
    """What an explanation reads. Without `streams`, events on their way are not found."""

    records: EventRecords
    catalogs: CatalogStore
    clock: Clock
    streams: EventStreams | None = None


class Explain:
    """Tells what became of an event."""

    def __init__(self, parts: ExplainParts) -> None:
        self._parts = parts

    async def story(self, event_id: EventId, tenant_id: TenantId | None = None) -> Story:
        """Return the story of an event, of one tenant or of all that have one of this id.

        Raises `BackendUnavailable` when Postgres does not answer.
        """
        waiting, unsearched = await self._waiting(tenant_id, event_id)
        records = self._parts.records
        stored = await records.stored(tenant_id, event_id)
        archived = await records.archived(tenant_id, event_id)
        letters = await records.letters(tenant_id, event_id)
        tenants = sorted(
            {each.event.tenant_id for each in stored}
            | {each.tenant_id for each in archived}
            | {each.event.tenant_id for each in waiting}
            | {TenantId(each.rejected.tenant_id) for each in letters}
        )
        by_tenant = {each.event.tenant_id: each for each in stored}
        dropped = {each.tenant_id: each for each in archived}
        chapters = [
            await self._chapter(
                tenant,
                by_tenant.get(tenant) or dropped.get(tenant),
                [each for each in letters if each.rejected.tenant_id == tenant],
                [each for each in waiting if each.event.tenant_id == tenant],
            )
            for tenant in tenants
        ]
        return Story(event_id, tuple(chapters), unsearched)

    async def _waiting(
        self, tenant_id: TenantId | None, event_id: EventId
    ) -> tuple[Sequence[Waiting], str]:
        if self._parts.streams is None:
            return (), "no Redis is set"
        try:
            return await self._parts.streams.waiting(tenant_id, event_id), ""
        except BackendUnavailable as error:
            return (), error.message

    async def _chapter(
        self,
        tenant_id: TenantId,
        found: Stored | Archived | None,
        letters: Sequence[Letter],
        waiting: Sequence[Waiting],
    ) -> Chapter:
        if found is None:
            ending = Ending.REJECTED if letters else Ending.WAITING
            return Chapter(tenant_id, ending, letters=tuple(letters), waiting=tuple(waiting))
        if isinstance(found, Archived):
            return await self._archived(found, letters, waiting)
        stored = found
        records, event = self._parts.records, stored.event
        # The entry that the ledger has taken may not be trimmed yet: it is no duplicate.
        numbers = (event.source_id, event.source_lane, event.source_seq)
        again = [
            each
            for each in waiting
            if (each.event.source_id, each.event.source_lane, each.event.source_seq) != numbers
        ]
        return Chapter(
            tenant_id=tenant_id,
            ending=Ending.PERSISTED,
            stored=stored,
            letters=tuple(letters),
            duplicates=tuple(again),
            buckets=tuple(await records.buckets(tenant_id, event.meter, event.event_time_us)),
            refunds=tuple(await records.refunds(tenant_id, event.event_id)),
            told=tuple(await records.told(event)),
            corrections=tuple(await records.corrections(tenant_id, event.event_id)),
            period=await self._period(tenant_id, event.event_time_us),
        )

    async def _archived(
        self, found: Archived, letters: Sequence[Letter], waiting: Sequence[Waiting]
    ) -> Chapter:
        """Return what the ledger has still of an event whose month was dropped."""
        records, tenant_id, event_id = self._parts.records, found.tenant_id, found.event_id
        return Chapter(
            tenant_id=tenant_id,
            ending=Ending.ARCHIVED,
            archived=found,
            letters=tuple(letters),
            duplicates=tuple(waiting),
            refunds=tuple(await records.refunds(tenant_id, event_id)),
            corrections=tuple(await records.corrections(tenant_id, event_id)),
            period=await self._period(tenant_id, found.event_time_us),
        )

    async def _period(self, tenant_id: TenantId, at_us: int) -> Window | None:
        catalogs = self._parts.catalogs
        tenant = await catalogs.tenant(tenant_id)
        if tenant is None:
            catalog = await catalogs.effective(self._parts.clock.now_us())
            tenant = default_tenant(catalog, tenant_id)
        return window_at(Period.BILLING_PERIOD, tenant.calendar, at_us) if tenant else None
