"""Flask: the whole app by the WSGI middleware, single views by a decorator.

Guarantees that a view which asks for itself is refused with the same answer as by the middleware.
Refuses to know what views do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import flask

from .metering.answers import Refused
from .metering.cost import Cost
from .metering.rules import WebRules
from .values import Items
from .wsgi import COST, EXCHANGE, Exchange, MeteringMiddleware

if TYPE_CHECKING:
    from .client import Client

P = ParamSpec("P")
T = TypeVar("T")


def meter(app: flask.Flask, *, client: Client | Callable[[], Client], rules: WebRules) -> None:
    """Charge the requests of an app: all of them by the rules' cost, or views by `metered`."""
    # Flask's own way to put middleware around an app, of which its types do not know.
    wrapped: Any = app
    wrapped.wsgi_app = MeteringMiddleware(wrapped.wsgi_app, client=client, rules=rules)
    app.register_error_handler(Refused, _answer)


def metered(
    cost: Items | Callable[..., Items | None], tenant: Callable[[], str | None] | None = None
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Charge a view by itself, once its URL's values are known.

    Args:
        cost: what it costs, or a function of the view's arguments.
        tenant: who pays; as the rules have it unless given.
    """

    def around(view: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(view)
        def asked(*args: P.args, **kwargs: P.kwargs) -> T:
            exchange = _exchange()
            payer = tenant() if tenant else exchange.rules.tenant_of(exchange.request)
            exchange.open(payer, cost(*args, **kwargs) if callable(cost) else cost)
            return view(*args, **kwargs)

        return asked

    return around


def current_cost() -> Cost:
    """Return what the request at hand costs, to say what it came to.

    Raises:
        LookupError: it is not metered.
    """
    found: Cost | None = flask.request.environ.get(COST)
    if found is None:
        raise LookupError("this request is not metered")
    return found


def _exchange() -> Exchange:
    found: Exchange | None = flask.request.environ.get(EXCHANGE)
    if found is None:
        raise LookupError("call tallygate_client.flask.meter(app, ...) first")
    return found


def _answer(refused: Refused) -> flask.Response:
    answer = _exchange().answer(refused)
    return flask.Response(answer.body, answer.status, list(answer.headers))
