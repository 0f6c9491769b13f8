"""What a simulated ingester rebuilds counters with, and corrects them by.

Owns the ledger's ports for that over the network. Guarantees: shards are closed in one step of the
database, whose snapshot is of that moment. Refuses to know counters.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.ids import SourceId, TenantId
from tallygate.ports.rebuild import Closing, Correction
from tallygate.testing.rebuild import FakeCorrections, FakeRebuildLedger
from tests.builders import CatalogInMemory
from tests.sim.postgres import TIMEOUT_S, Database
from tests.sim.wire import Server, at_once

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DeclaredInMemory:
    """Plans and tenants as an installation declares them."""

    view: CatalogInMemory

    async def effective(self, at_us: int) -> Catalog | None:
        """Return the catalog."""
        return self.view.catalog

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are declared."""
        return {each: self.view.tenants[each] for each in ids if each in self.view.tenants}


class SimRebuildLedger:
    """The `RebuildLedger` port over the network."""

    def __init__(self, server: Server, database: Database, who: str) -> None:
        self._server = server
        self._fake: FakeRebuildLedger = database.rebuilding
        self._who = who

    async def lead(self, holder: str, lease_ms: int) -> bool:
        """Take or keep the lead."""
        return await self._call(lambda: at_once(self._fake.lead(holder, lease_ms)))

    async def epochs(self) -> Mapping[tuple[int, str], bool]:
        """Return the epochs that counters were made anew in."""
        return await self._call(lambda: at_once(self._fake.epochs()))

    async def highest(self, epochs: Sequence[str]) -> Mapping[tuple[SourceId, int], int]:
        """Return the highest numbers of those epochs."""
        return await self._call(lambda: at_once(self._fake.highest(epochs)))

    async def empty(self) -> bool:
        """Say whether there is no usage at all."""
        return await self._call(lambda: at_once(self._fake.empty()))

    @asynccontextmanager
    async def close(self, epochs: Mapping[int, str]) -> AsyncIterator[Closing]:
        """Close all older epochs of these shards; hold a snapshot of that moment."""

        def close() -> Any:
            # The fake's snapshot is a copy: leaving its block changes nothing.
            return at_once(self._fake.close(epochs).__aenter__())

        yield await self._call(close)

    async def _call(self, what: Callable[[], T]) -> T:
        return await self._server.call(self._who, what, TIMEOUT_S)


class SimCorrections:
    """The `Corrections` port over the network."""

    def __init__(self, server: Server, database: Database, who: str) -> None:
        self._server = server
        self._fake: FakeCorrections = database.corrections
        self._who = who

    async def due(self, count: int) -> list[Correction]:
        """Return corrections that are not finished."""
        return await self._call(lambda: at_once(self._fake.due(count)))

    async def trying(self, numbers: Sequence[int]) -> None:
        """Note that they are about to be given."""
        await self._call(lambda: at_once(self._fake.trying(numbers)))

    async def finish(self, outcomes: Mapping[int, str]) -> int:
        """Finish them."""
        return await self._call(lambda: at_once(self._fake.finish(outcomes)))

    async def again(self, within_s: float) -> int:
        """Have those that were given lately be due again."""
        return await self._call(lambda: at_once(self._fake.again(within_s)))

    async def depth(self) -> int:
        """Return how many are not finished."""
        return await self._call(lambda: at_once(self._fake.depth()))

    async def _call(self, what: Callable[[], T]) -> T:
        return await self._server.call(self._who, what, TIMEOUT_S)
