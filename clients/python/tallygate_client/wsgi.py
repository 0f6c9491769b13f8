"""Middleware for any WSGI app: Flask, Bottle, Pyramid, Django's own WSGI.

    open → app ⇒ each chunk passed on and counted ⇒ settle as the server closes the response

Guarantees: no chunk is gathered or held back; whoever leaves is charged what was sent till then.
Refuses to know frameworks.
"""

from __future__ import annotations

import http
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .errors import TallygateError
from .metering.answers import Answer, Refused, answer_of, standing
from .metering.cost import Cost, Ending
from .metering.fields import POLICY, RATE_LIMIT
from .metering.rules import TenantMissing, WebRequest, WebRules
from .metering.till import Till
from .values import Items

if TYPE_CHECKING:
    from .client import Client

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

COST = "tallygate"
"""Where an environ holds the `Cost`."""

EXCHANGE = "tallygate.exchange"
"""Where an environ holds the `Exchange`, by which views ask for themselves."""

OURS = frozenset({RATE_LIMIT.lower(), POLICY.lower()})


class MeteringMiddleware:
    """Charges the requests of a WSGI app."""

    def __init__(self, app: App, *, client: Client | Callable[[], Client], rules: WebRules) -> None:
        self._app = app
        self.rules = rules
        self.till = Till(client)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        exchange = Exchange(self.rules, self.till, environ, start_response)
        try:
            exchange.open_by_rules()
            return exchange.around(self._app(exchange.environ, exchange.start))
        except Refused as refused:
            exchange.settle(Ending.FAILED)
            if exchange.charged is not None:
                raise
            return exchange.refuse(refused)
        except BaseException:
            exchange.settle(Ending.FAILED)
            raise


class Exchange:
    """One request and its response, with all that is charged for it."""

    def __init__(
        self, rules: WebRules, till: Till, environ: Environ, start_response: StartResponse
    ) -> None:
        self.rules = rules
        self.till = till
        self.environ = environ
        self.request = request_of(environ)
        self.costs: list[Cost] = []
        self.charged: bool | None = None
        self._start_response = start_response
        environ[EXCHANGE] = self

    def open(self, tenant: str | None, cost: Items | None) -> Cost | None:
        """Ask for this request; None where it costs nothing.

        Raises:
            Refused: it is not to be served; let it pass up to the middleware, which answers.
        """
        try:
            again = bool(self.costs)
            question = self.rules.question(self.request, tenant, cost, again=again)
            if question is None:
                return None
            opened = self.till.open(question)
        except (TallygateError, TenantMissing) as error:
            raise Refused from error
        self.costs.append(opened)
        self.environ[COST] = opened
        return opened

    def open_by_rules(self) -> None:
        """Ask for what the rules say of every request."""
        rules = self.rules
        if rules.cost is None and rules.counted is None:
            return
        if rules.exempt is not None and rules.exempt(self.request):
            return
        self.open(rules.tenant_of(self.request), rules.cost_of(self.request))

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        """Begin the response, with where the tenant stands."""
        self.charged = self.rules.charged(int(status.partition(" ")[0]))
        self.measure(b"")
        told = standing([each.decision for each in self.costs], self.rules)
        if told:
            headers = [each for each in headers if each[0].lower() not in OURS] + told
        write = self._start_response(status, headers, *((exc_info,) if exc_info else ()))

        def counted(chunk: bytes) -> None:
            write(chunk)
            self.measure(chunk)

        return counted

    def around(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return the response's body, counted as it is sent, and settled as it is closed."""
        return _Body(self, body) if self.costs else body

    def answer(self, refused: Refused) -> Answer:
        """Return what to answer to a request that is not to be served."""
        return answer_of(refused.__cause__ or refused, self.request, self.rules)

    def refuse(self, refused: Refused) -> Iterable[bytes]:
        """Answer in place of the app."""
        answer = self.answer(refused)
        phrase = http.HTTPStatus(answer.status).phrase
        self._start_response(f"{answer.status} {phrase}", list(answer.headers))
        return [answer.body]

    def measure(self, chunk: bytes) -> None:
        """Count a chunk that was handed over."""
        size = 0 if self.request.method == "HEAD" else len(chunk)
        for cost in self.costs:
            cost.measure(size)

    def settle(self, ending: Ending) -> None:
        """Settle, unless that was done before."""
        for cost in self.costs:
            self.till.settle(cost, ending, self.charged)


class _Body:
    """A response's body, which a server reads to its end, or closes before."""

    def __init__(self, exchange: Exchange, body: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._body = body
        self._chunks = iter(body)
        # What a server closes without having come to the end, its client did not wait for.
        self._ending = Ending.LEFT
        self._under_way = b""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        # Whoever asks for the next has handed over the one before.
        self._exchange.measure(self._under_way)
        self._under_way = b""
        try:
            self._under_way = next(self._chunks)
        except StopIteration:
            self._ending = Ending.COMPLETE
            raise
        except BaseException:
            self._ending = Ending.FAILED
            raise
        return self._under_way

    def close(self) -> None:
        """End it: the app's own first, then what it came to."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException:
            self._ending = Ending.FAILED
            raise
        finally:
            self._exchange.settle(self._ending)


def cost_of(environ: Environ) -> Cost:
    """Return what the request costs, for the app to say what it came to.

    Raises:
        LookupError: the request is not metered.
    """
    found: Cost | None = environ.get(COST)
    if found is None:
        raise LookupError("this request is not metered")
    return found


def request_of(environ: Environ) -> WebRequest:
    """Return a request as the rules see it."""
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = environ[name]
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return WebRequest(environ.get("REQUEST_METHOD", "GET"), path, headers, environ)
