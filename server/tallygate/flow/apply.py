"""operator ─▶ control ─▶ [ apply ] ─▶ Postgres: a catalog is checked, compared and written whole.

If we die here before the write is committed, nothing has changed. If we die after it, `publish`
hands the new version on all the same.

Guarantees: what breaks a rule is never written; every change of a meter, plan, tenant or override
passes the same rules as a whole document.
Refuses to know: documents' syntax, and sidecars.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tallygate.domain.catalog import LINEAGE_MAX, Catalog, Meter, Override, Plan, Tenant
from tallygate.domain.catalog_diff import Change, diff, diff_tenants
from tallygate.domain.catalog_rules import catalog_faults, tenant_faults
from tallygate.domain.errors import (
    CatalogConflict,
    CatalogInvalid,
    Fault,
    InvalidField,
    NotFound,
)
from tallygate.domain.ids import PlanName, TenantId
from tallygate.domain.path_fault import PathFault
from tallygate.domain.window import DAY_US
from tallygate.ports import CatalogChange, CatalogDocuments, CatalogStore, Clock

CHANGES_SHOWN_MAX: Final = 1_000
FAULTS_TOLD_MAX: Final = 1_000
# A change of one meter, plan or tenant is made again when another got in between; each such time
# the other has come to an end, so that this is a bound on rare luck and not on load.
CHANGE_TRIES_MAX: Final = 5
USERS_COUNTED_MAX: Final = 1_000
# Of the first version: the year that a new installation may bring along, and its last month.
FIRST_BACK_US: Final = 400 * DAY_US


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying did, or would do. `changes` holds the first thousand of `change_count`."""

    version: int
    applied: bool
    changes: tuple[Change, ...]
    change_count: int


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """`effective_at_us` 0 means now; `expected_version` 0 does not ask."""

    dry_run: bool = False
    effective_at_us: int = 0
    expected_version: int = 0


def _no_line(_: str) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The newest catalog, what it shall become, and what is written of tenants."""

    newest: Catalog
    catalog: Catalog
    tenants: Sequence[Tenant] = ()
    document: str = ""
    line_of: Callable[[str], int] = _no_line


class Apply:
    """Changes the catalog."""

    def __init__(self, store: CatalogStore, documents: CatalogDocuments, clock: Clock) -> None:
        self._store = store
        self._documents = documents
        self._clock = clock

    async def document(self, text: str, options: ApplyOptions) -> Applied:
        """Apply a whole document; tenants that it does not name stay as they are.

        Raises `CatalogInvalid`, `CatalogConflict`, and `InvalidField` for a time that has passed.
        """
        # A large document takes seconds to read, in which others want to be served.
        parsed = await asyncio.to_thread(self._documents.parse, text)
        newest = await self._store.newest()
        if options.expected_version not in (0, newest.version):
            raise CatalogConflict(
                f"the newest version is {newest.version}, not {options.expected_version}"
            )
        catalog = replace(parsed.catalog, version=newest.version)
        wanted = _Wanted(newest, catalog, parsed.tenants, text, parsed.line_of)
        return await self._apply(wanted, options)

    async def meter(self, meter: Meter) -> Applied:
        """Create or replace one meter. Raises `CatalogInvalid` and `CatalogConflict`."""

        async def change(newest: Catalog) -> _Wanted:
            return _Wanted(newest, replace(newest, meters={**newest.meters, meter.name: meter}))

        return await self._change(change)

    async def plan(self, plan: Plan) -> Applied:
        """Create or replace one plan. Raises `CatalogInvalid` and `CatalogConflict`."""

        async def change(newest: Catalog) -> _Wanted:
            return _Wanted(newest, replace(newest, plans={**newest.plans, plan.name: plan}))

        return await self._change(change)

    async def tenant(self, tenant: Tenant) -> Applied:
        """Create or replace one tenant. Raises `CatalogInvalid` and `CatalogConflict`."""

        async def change(newest: Catalog) -> _Wanted:
            return _Wanted(newest, newest, [tenant])

        return await self._change(change)

    async def override(self, tenant_id: TenantId, override: Override) -> Applied:
        """Create or replace one override.

        Raises `NotFound`, `CatalogInvalid` and `CatalogConflict`.
        """

        async def change(newest: Catalog) -> _Wanted:
            tenant = await self._store.tenant(tenant_id)
            if tenant is None:
                raise NotFound(f"there is no tenant {tenant_id!r}", field="override.tenant_id")
            kept = [each for each in tenant.overrides if each.limit_id != override.limit_id]
            overrides = sorted([*kept, override], key=lambda each: each.limit_id)
            return _Wanted(newest, newest, [replace(tenant, overrides=tuple(overrides))])

        return await self._change(change)

    async def _change(self, change: Callable[[Catalog], Awaitable[_Wanted]]) -> Applied:
        """Make a change on top of the newest version, again where another got in between."""
        for _ in range(CHANGE_TRIES_MAX - 1):
            newest = await self._store.newest()
            try:
                return await self._apply(await change(newest), ApplyOptions())
            except CatalogConflict:
                if (await self._store.newest()).version == newest.version:
                    raise
        return await self._apply(await change(await self._store.newest()), ApplyOptions())

    async def _apply(self, wanted: _Wanted, options: ApplyOptions) -> Applied:
        now_us = self._clock.now_us()
        effective_at_us = options.effective_at_us or now_us
        # Before the first version nothing was decided or billed by another: usage of the time
        # before can be brought along with the prices that it had.
        back_us = 0 if wanted.newest.version else FIRST_BACK_US
        if effective_at_us < now_us - back_us:
            raise InvalidField("must not be in the past", field="effective_at")
        known = await self._known(wanted.tenants)
        await self._check(wanted, known)
        version = wanted.newest.version
        changes = [*diff(wanted.newest, wanted.catalog), *diff_tenants(known, wanted.tenants)]
        shown = tuple(changes[:CHANGES_SHOWN_MAX])
        if options.dry_run or not changes:
            return Applied(version, False, shown, len(changes))
        changed = _really_changed(known, wanted.tenants)
        change = CatalogChange(wanted.catalog, changed, wanted.document, effective_at_us)
        written = await self._store.write(change, version)
        return Applied(written.version, True, shown, len(changes))

    async def _known(self, tenants: Sequence[Tenant]) -> Mapping[TenantId, Tenant]:
        """Return what is stored of the tenants and of all above them."""
        known: dict[TenantId, Tenant] = {}
        wanted = {tenant.tenant_id for tenant in tenants} | _parents(tenants)
        for _ in range(LINEAGE_MAX):
            if not wanted:
                break
            found = await self._store.tenants_named(sorted(wanted))
            known |= found
            wanted = _parents(found.values()) - known.keys()
        return known

    async def _check(self, wanted: _Wanted, known: Mapping[TenantId, Tenant]) -> None:
        catalog, tenants = wanted.catalog, wanted.tenants
        faults = [*catalog_faults(catalog), *tenant_faults(catalog, tenants, known)]
        gone = wanted.newest.plans.keys() - catalog.plans.keys()
        faults += await self._plans_still_used(gone, tenants)
        if not faults:
            return
        placed = [
            Fault(wanted.line_of(each.path), each.path, each.message, each.suggestion)
            for each in faults
        ]
        more = len(placed) - FAULTS_TOLD_MAX
        if more > 0:
            placed[FAULTS_TOLD_MAX:] = [Fault(0, "", f"and {more} more")]
        raise CatalogInvalid(tuple(placed))

    async def _plans_still_used(
        self, gone: Iterable[PlanName], tenants: Sequence[Tenant]
    ) -> list[PathFault]:
        moved = {tenant.tenant_id for tenant in tenants}
        faults: list[PathFault] = []
        for plan in sorted(gone):
            users = await self._store.tenants_page(None, len(moved) + USERS_COUNTED_MAX, plan)
            left = [user.tenant_id for user in users if user.tenant_id not in moved]
            if left:
                many = "at least " if len(left) >= USERS_COUNTED_MAX else ""
                message = f"cannot go: {many}{len(left)} tenant(s) are on it, as {left[0]!r}"
                faults.append(PathFault(f"plans.{plan}", message))
        return faults


def _parents(tenants: Iterable[Tenant]) -> set[TenantId]:
    return {tenant.parent for tenant in tenants if tenant.parent is not None}


def _really_changed(
    known: Mapping[TenantId, Tenant], tenants: Sequence[Tenant]
) -> tuple[Tenant, ...]:
    return tuple(tenant for tenant in tenants if known.get(tenant.tenant_id) != tenant)
