"""FastAPI: what single routes cost, as dependencies, on top of the ASGI middleware.

Guarantees that a route which asks for itself is refused with the same answer as by the middleware,
and settled by it. Refuses to know what routes do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from starlette.requests import HTTPConnection

from .asgi import MeteringMiddleware
from .exchange import EXCHANGE, Exchange
from .metering.cost import Cost
from .values import Items

__all__ = ["Cost", "Metered", "MeteringMiddleware", "exchange_of"]


class Metered:
    """A dependency that asks before the route runs, and gives its `Cost`.

    `Annotated[Cost, Depends(Metered({"requests": 1}))]`; the app needs `MeteringMiddleware`, whose
    rules say who pays unless `tenant` does. Where that depends on who is logged in, write a
    dependency of your own that calls `exchange_of(request).open(tenant, cost)`.
    """

    def __init__(
        self,
        cost: Items | Callable[[HTTPConnection], Any],
        tenant: Callable[[HTTPConnection], Any] | None = None,
    ) -> None:
        self._cost = cost
        self._tenant = tenant

    async def __call__(self, connection: HTTPConnection) -> Cost | None:
        """Ask for this request; None where it costs nothing."""
        exchange = exchange_of(connection)
        cost = self._cost(connection) if callable(self._cost) else self._cost
        tenant = self._tenant(connection) if self._tenant else exchange.tenant()
        return await exchange.open(
            await tenant if inspect.isawaitable(tenant) else tenant,
            await cost if inspect.isawaitable(cost) else cost,
        )


def exchange_of(connection: HTTPConnection) -> Exchange:
    """Return the exchange of a request, by which it is asked for.

    Raises:
        LookupError: the app has no `MeteringMiddleware`.
    """
    found: Exchange | None = connection.scope.get(EXCHANGE)
    if found is None:
        raise LookupError("add tallygate_client.asgi.MeteringMiddleware to the app first")
    return found
