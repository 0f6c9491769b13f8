"""What is declared of plans and tenants, for whoever works on the ledger.

Guarantees: what was applied to Postgres wins over the catalog's file.
Refuses to know: who asks.
"""

from collections.abc import Mapping, Sequence

from tallygate.adapters.catalog.file_view import FileCatalogView
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.errors import CatalogInvalid, CatalogNotLoaded
from tallygate.domain.ids import TenantId


class Declarations:
    """Plans and tenants: those applied to Postgres, or those of the catalog's file where none are.

    The `Declared` port of rebuilding.
    """

    def __init__(self, stored: PostgresCatalogStore, file: FileCatalogView | None) -> None:
        self._stored = stored
        self._file = file
        self._from_file = False

    async def effective(self, at_us: int) -> Catalog | None:
        """Return the catalog in effect, None where there is none."""
        found = await self._stored.effective(at_us)
        self._from_file = not found.version
        if found.version:
            return found
        if self._file is None:
            return None
        try:
            await self._file.refresh()
            return self._file.current()
        except (CatalogInvalid, CatalogNotLoaded):
            return None

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are declared."""
        if self._from_file and self._file is not None:
            return self._file.tenants_named(ids)
        return await self._stored.tenants_named(ids)
