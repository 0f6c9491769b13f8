"""The catalog of one file, for `serve --catalog FILE`: no Postgres, no control process.

Guarantees: a changed file is taken over at the next `refresh`; a broken one is told, and the last
good one stays in use.
Refuses to know: who refreshes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from tallygate.adapters.catalog.compose import DOCUMENT_BYTES_MAX
from tallygate.adapters.catalog.document import parse
from tallygate.adapters.file_stamp import Stamp, stamp_of
from tallygate.domain.catalog import Catalog, Tenant, default_tenant
from tallygate.domain.errors import CatalogInvalid, CatalogNotLoaded, Fault, UnknownTenant
from tallygate.domain.ids import TenantId
from tallygate.ports import ParsedCatalog

# Undeclared tenants live by the default plan, and anybody may name one.
HELD_MAX: Final = 20_000


def read_document(path: Path) -> str:
    """Return the text of a catalog file. Raises `CatalogInvalid` when it cannot be read."""
    try:
        with path.open("rb") as file:
            # One more than is taken, so that too much is told as such.
            content = file.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as error:
        # The system's own word for it, without the path, which the caller knows.
        raise CatalogInvalid((Fault(0, "", f"cannot be read: {error.strerror}"),)) from None
    if len(content) > DOCUMENT_BYTES_MAX:
        raise CatalogInvalid((Fault(0, "", f"is larger than {DOCUMENT_BYTES_MAX} bytes"),))
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CatalogInvalid((Fault(line, "", "is not UTF-8"),)) from None


class FileCatalogView:
    """The `CatalogView` port over one document, all of it in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: Stamp | None = None
        self._catalog: Catalog | None = None
        self._tenants: dict[TenantId, Tenant] = {}
        # Lineages that were asked for, until the file changes.
        self._held: dict[TenantId, tuple[Tenant, ...]] = {}

    @property
    def version(self) -> int:
        """How often the file was taken over, 0 for never."""
        return self._catalog.version if self._catalog else 0

    def current(self) -> Catalog:
        """Return the newest good catalog. Raises `CatalogNotLoaded`."""
        if self._catalog is None:
            raise CatalogNotLoaded
        return self._catalog

    def lineage_held(self, tenant_id: TenantId) -> tuple[Tenant, ...] | None:
        """Return the lineage: all of it is in memory. None for an unknown tenant."""
        held = self._held.get(tenant_id)
        if held is not None:
            return held
        tenant = self._tenants.get(tenant_id) or default_tenant(self.current(), tenant_id)
        if tenant is None:
            return None
        lineage = [tenant]
        # The document was refused if a parent were missing, or the lineage endless.
        while (parent := lineage[-1].parent) is not None:
            lineage.append(self._tenants[parent])
        if len(self._held) >= HELD_MAX:
            self._held.clear()
        found = self._held[tenant_id] = tuple(lineage)
        return found

    async def lineage(self, tenant_id: TenantId) -> tuple[Tenant, ...]:
        """Return the tenant and those above it. Raises `UnknownTenant`."""
        found = self.lineage_held(tenant_id)
        if found is None:
            raise UnknownTenant(
                f"the catalog has no tenant {tenant_id!r} and no default plan", field="tenant_id"
            )
        return found

    def tenants_named(self, ids: Sequence[TenantId]) -> dict[TenantId, Tenant]:
        """Return those of the tenants that are declared."""
        return {each: self._tenants[each] for each in ids if each in self._tenants}

    async def refresh(self) -> int:
        """Take over the file if it has changed; return 1 if it was.

        Raises `CatalogInvalid`, once per broken state of the file. Costs one stat when nothing
        has changed; a change is read beside the event loop.
        """
        stamp = await asyncio.to_thread(stamp_of, self._path)
        if stamp == self._stamp:
            return 0
        # Before it is read, so that what is written meanwhile is read next time.
        self._stamp = stamp
        parsed = await asyncio.to_thread(_parsed, self._path)
        self._tenants = {tenant.tenant_id: tenant for tenant in parsed.tenants}
        self._catalog = replace(parsed.catalog, version=self.version + 1)
        self._held.clear()
        return 1


def _parsed(path: Path) -> ParsedCatalog:
    return parse(read_document(path))
