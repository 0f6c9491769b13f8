"""What the verbs about Stripe need: the sends in Postgres, and an account's meters.

Guarantees: nothing here outlives its `async with`; Stripe's client is imported where an account is
asked, so that the other verbs do without it.
Refuses to know: how results are shown.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.stripe_intents import PostgresStripeIntents
from tallygate.adapters.postgres.stripe_sends import PostgresStripeSends
from tallygate.domain.catalog import Catalog
from tallygate.domain.errors import NotFound, TallygateError
from tallygate.flow.stripe_catalog import SyncCatalog
from tallygate.flow.stripe_items import IntendItems
from tallygate.flow.stripe_mend import Mend
from tallygate.settings import Settings


class ExtraMissing(TallygateError):
    """Stripe's client is not installed: install tallygate[stripe]."""

    reason = "INVALID_FIELD"


@dataclass(frozen=True, slots=True)
class StripeDesk:
    """The sends, the catalog, and what mends sends."""

    sends: PostgresStripeSends
    catalogs: PostgresCatalogStore
    mend: Mend
    items: IntendItems
    clock: SystemClock


@asynccontextmanager
async def stripe_desk(dsn: str) -> AsyncIterator[StripeDesk]:
    """Lend all of it."""
    postgres = Postgres(dsn)
    sends, catalogs = PostgresStripeSends(postgres), PostgresCatalogStore(postgres)
    clock = SystemClock()
    try:
        items = IntendItems(PostgresStripeIntents(postgres), catalogs, clock)
        yield StripeDesk(sends, catalogs, Mend(sends, catalogs, clock), items, clock)
    finally:
        await postgres.close()


@asynccontextmanager
async def catalog_sync(
    settings: Settings, catalog: Catalog, name: str
) -> AsyncIterator[SyncCatalog]:
    """Lend what brings an account's meters in line. Raises `NotFound` and `ExtraMissing`."""
    try:
        from tallygate.adapters.stripe.meters import StripeAccountMeters  # noqa: PLC0415
        from tallygate.wiring.stripe import client_of  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ExtraMissing from error
    found = [each for each in catalog.destinations if each.name == name and each.stripe is not None]
    if not found:
        raise NotFound(f"the catalog has no destination {name} of kind stripe")
    client = client_of(found[0], settings)
    try:
        yield SyncCatalog(StripeAccountMeters(client))
    finally:
        await client.close()
