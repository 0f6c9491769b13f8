"""A reservation in asyncio: raw, or as what settles itself."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .calls import Call, Core
from .errors import TallygateError
from .gen.v1 import quota_pb2
from .held import Amounts, Held
from .results import Excess, Extension, Granted, Settlement

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .aio import AsyncClient
    from .values import CallOptions, CommitOptions, ReleaseOptions


class AsyncReservation(Held):
    """What is held for work, and how to settle it; see `AsyncClient.reserve`."""

    def __init__(
        self,
        client: AsyncClient,
        core: Core,
        request: quota_pb2.ReserveRequest,
        granted: Granted,
        excess: Excess,
    ) -> None:
        super().__init__(core, request, granted, excess)
        self._client = client
        self._keeping: asyncio.Task[None] | None = None
        self.settlement: Settlement | None = None

    async def commit(
        self, amounts: Amounts | None = None, **options: Unpack[CommitOptions]
    ) -> Settlement:
        """Settle with `amounts`, else with what `use` was told, else with what was reserved."""
        self.settlement = await self._client.follow(self.committing(amounts, options))
        self.drop()
        return self.settlement

    async def release(self, **options: Unpack[ReleaseOptions]) -> Settlement:
        """Give all of it back: nothing was used."""
        self.settlement = await self._client.follow(self.releasing(options))
        self.drop()
        return self.settlement

    async def extend(self, ttl: float | None = None, **options: Unpack[CallOptions]) -> Extension:
        """Move its end to `ttl` seconds from now, as many as at first unless given."""
        return await self._client.follow(self.extending(ttl, options))

    def keep(self) -> None:
        """Extend it again and again in the background, until it is settled or dropped."""
        if not self.local and self._keeping is None:
            # Weak: a reservation that nobody holds any more is to end by itself.
            keeping = _keep_alive(weakref.ref(self), self.extend_every_s)
            self._keeping = asyncio.create_task(keeping)

    def drop(self) -> None:
        """Keep it no more; unless it is settled, it ends by itself."""
        if self._keeping is not None:
            self._keeping.cancel()


class Reserving:
    """A reservation to come: await it to have it raw, or enter it to have it settle itself.

    Entered, it raises `QuotaExceeded` where it was refused. A normal end commits what `use` was
    told, else what was reserved; an exception releases and goes on. Work that takes long is kept
    alive meanwhile.
    """

    def __init__(
        self, client: AsyncClient, core: Core, call: Call[Granted], excess: Excess
    ) -> None:
        self._client = client
        self._core = core
        self._call = call
        self._excess = excess
        self._held: AsyncReservation | None = None

    def __await__(self) -> Generator[Any, None, AsyncReservation]:
        return self._reserve().__await__()

    async def __aenter__(self) -> AsyncReservation:
        held = self._held = await self._reserve()
        held.require()
        held.keep()
        return held

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        held = self._held
        assert held is not None
        held.drop()
        if held.settled:
            return
        if error is None:
            await held.commit()
            return
        # What cannot be given back comes back by itself; the work's own error is what counts.
        with contextlib.suppress(TallygateError):
            await held.release()

    async def _reserve(self) -> AsyncReservation:
        granted = await self._client.send(self._call)
        request: Any = self._call.request
        return AsyncReservation(self._client, self._core, request, granted, self._excess)


async def _keep_alive(found: weakref.ref[AsyncReservation], every_s: float) -> None:
    goes_on = True
    while goes_on:
        await asyncio.sleep(every_s)
        held = found()
        if held is None:
            return
        extended: Extension | TallygateError
        try:
            extended = await held.extend()
        except TallygateError as error:
            extended = error
        goes_on = held.goes_on(extended)
        del held
