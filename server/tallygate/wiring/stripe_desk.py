"""What the verbs about Stripe need: the sends in Postgres, and an account's meters.

Guarantees: nothing here outlives its `async with`; Stripe's client is imported where an account is
asked, so that the other verbs do without it.
Refuses to know: how results are shown.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from importlib.util import find_spec

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.stripe_intents import PostgresStripeIntents
from tallygate.adapters.postgres.stripe_sends import PostgresStripeSends
from tallygate.domain.catalog import Catalog, Destination
from tallygate.domain.errors import NotFound, TallygateError
from tallygate.domain.window import Window
from tallygate.flow.stripe_catalog import SyncCatalog
from tallygate.flow.stripe_items import IntendItems
from tallygate.flow.stripe_mend import Mend
from tallygate.ports import CatalogStore
from tallygate.ports.stripe import StripeApi
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
    """Lend what brings an account in line. Raises `NotFound` and `ExtraMissing`."""
    try:
        from tallygate.adapters.stripe.meters import StripeAccountMeters  # noqa: PLC0415
        from tallygate.adapters.stripe.prices import StripeAccountPrices  # noqa: PLC0415
        from tallygate.wiring.stripe import client_of  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ExtraMissing from error
    client = client_of(account_named(catalog, name), settings)
    try:
        yield SyncCatalog(StripeAccountMeters(client), StripeAccountPrices(client))
    finally:
        await client.close()


class AccountSums:
    """The `StripeSums` port: accounts of the catalog as it is, each with a client of its own."""

    def __init__(self, settings: Settings, catalogs: CatalogStore) -> None:
        self._settings = settings
        self._catalogs = catalogs
        self._accounts: dict[str, tuple[StripeApi, Callable[[], Awaitable[None]]]] = {}

    async def asks(self, destination: str) -> bool:
        """Say whether an account can be asked now: its key is there."""
        from tallygate.wiring.stripe import secret_of  # noqa: PLC0415

        catalog = await self._catalogs.effective(SystemClock().now_us())
        try:
            secret_of(account_named(catalog, destination)).read()
        except TallygateError:
            return False
        return True

    async def summed(
        self, destination: str, event_name: str, customer: str, window: Window
    ) -> Decimal:
        """Return what an account has of a customer's meter, in its own unit."""
        if destination not in self._accounts:
            await self._open(destination)
        api, _ = self._accounts[destination]
        return await api.summed(event_name, customer, window.start_us, window.end_us)

    async def close(self) -> None:
        """Close the clients."""
        for _, close in self._accounts.values():
            await close()

    async def _open(self, name: str) -> None:
        from tallygate.adapters.stripe.api import StripeUsage  # noqa: PLC0415
        from tallygate.wiring.stripe import client_of  # noqa: PLC0415

        clock = SystemClock()
        catalog = await self._catalogs.effective(clock.now_us())
        client = client_of(account_named(catalog, name), self._settings)
        self._accounts[name] = (StripeUsage(client, clock), client.close)


def stripe_sums(settings: Settings, postgres: Postgres) -> AccountSums:
    """Return what asks Stripe for its sums. Raises `ExtraMissing`."""
    if find_spec("stripe") is None:
        raise ExtraMissing
    return AccountSums(settings, PostgresCatalogStore(postgres))


def account_named(catalog: Catalog, name: str) -> Destination:
    """Return an account of the catalog. Raises `NotFound`."""
    for each in catalog.destinations:
        if each.name == name and each.stripe is not None:
            return each
    raise NotFound(f"the catalog has no destination {name} of kind stripe")
