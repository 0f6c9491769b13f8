"""What a middleware is told: who pays, what it costs, what is charged, and how it is answered.

Guarantees that a request is asked for whole or not at all: without a tenant it is refused, never
passed. Refuses to know frameworks, clients and headers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, Literal, Protocol, TypeVar

from tallygate_client.values import Context, Item, Items

TTL_S = 60.0
NOT_CHARGED = 400
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Asked(Protocol):
    """What is charged: a request, a call, a job. It can be asked for a header by name."""

    def header(self, name: str) -> str | None:
        """Return a header, metadata or the like; None where there is none."""


A = TypeVar("A", bound=Asked)
Mode = Literal["reserve", "consume"]


class TenantMissing(Exception):
    """Nobody says who pays."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A meter whose amount the middleware counts by itself, as bytes or messages.

    Attributes:
        meter: the meter's name in the catalog.
        reserve: what is reserved beforehand; what comes to more is recorded all the same.
        dimensions: the item's.
    """

    meter: str
    reserve: int
    dimensions: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    @property
    def item(self) -> Item:
        """What is asked for."""
        return Item(self.meter, self.reserve, self.dimensions)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the sidecar for one request. `measured` is the place of the item counted."""

    tenant: str
    items: tuple[Item, ...]
    mode: Mode = "reserve"
    operation_id: str | None = None
    context: Context | None = None
    ttl: float = TTL_S
    refund_failures: bool = True
    measured: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules(Generic[A]):
    """What all kinds of middleware are told.

    Attributes:
        tenant: who pays: the name of a header, or a function; under asyncio it may be `async`.
        cost: what it costs, fixed or by a function; None or empty passes unmetered.
        exempt: which requests pass unmetered.
        mode: `reserve` asks before and settles after; `consume` charges before, and refunds.
        ttl: seconds after which a reservation whose process has died comes back.
        operation_id: names the logical call; made for each request unless given.
        context: the circumstances, stored with each event.
        refund_failures: whether `consume` refunds what failed.
    """

    tenant: str | Callable[[A], Any]
    cost: Items | Callable[[A], Any] | None = None
    exempt: Callable[[A], bool] | None = None
    mode: Mode = "reserve"
    ttl: float = TTL_S
    operation_id: Callable[[A], str | None] | None = None
    context: Callable[[A], Context | None] | None = None
    refund_failures: bool = True

    def __post_init__(self) -> None:
        if self.mode not in {"reserve", "consume"}:
            raise ValueError(f"mode is 'reserve' or 'consume', not {self.mode!r}")

    @property
    def counted(self) -> Measured | None:
        """What the middleware counts by itself."""
        return None

    def tenant_of(self, asked: A) -> Any:
        """Return who pays, or an awaitable of it."""
        return asked.header(self.tenant) if isinstance(self.tenant, str) else self.tenant(asked)

    def cost_of(self, asked: A) -> Any:
        """Return what it costs, or an awaitable of it."""
        return self.cost(asked) if callable(self.cost) else self.cost

    def question(
        self, asked: A, tenant: str | None, cost: Items | None, *, again: bool = False
    ) -> Question | None:
        """Return what to ask; None where it costs nothing.

        Args:
            asked: what is charged.
            tenant: who pays.
            cost: what it costs, besides what the middleware counts by itself.
            again: whether it was asked for before, so that what is counted is not asked for twice.

        Raises:
            TenantMissing: nobody is said to pay.
        """
        items = items_of(cost)
        counted = None if again else self.counted
        if not items and counted is None:
            return None
        if not tenant:
            raise TenantMissing
        if not isinstance(tenant, str):
            raise TypeError(f"a tenant is text, not {type(tenant).__name__}")
        measured = None
        if counted is not None:
            measured, items = len(items), (*items, counted.item)
        return Question(
            tenant,
            items,
            self.mode,
            self.operation_id(asked) if self.operation_id else None,
            self.context(asked) if self.context else None,
            self.ttl,
            self.refund_failures,
            measured,
        )


def items_of(cost: Items | None) -> tuple[Item, ...]:
    """Return what a cost is made of; amounts of 0 cost nothing and are left out."""
    if cost is None:
        return ()
    if isinstance(cost, Mapping):
        return tuple(Item(meter, amount) for meter, amount in cost.items() if amount)
    return tuple(item for item in cost if item.amount)


@dataclass(frozen=True, slots=True)
class WebRequest:
    """A request as every web framework has it.

    Attributes:
        method: as `GET`.
        path: decoded, without the query.
        headers: by their names in small letters; of several, the last.
        native: the framework's own: an ASGI scope, a WSGI environ, Django's request.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    native: Any

    def header(self, name: str) -> str | None:
        """Return a header; None where there is none."""
        return self.headers.get(name.lower())


def below_400(status: int) -> bool:
    """Tell whether a response was a success or sent the client elsewhere."""
    return status < NOT_CHARGED


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRules(Rules[WebRequest]):
    """What HTTP middleware is told besides.

    Attributes:
        charged: whether a response of this status is charged; those below 400 unless given.
        response_bytes: the meter of the response's bytes.
        messages: the meter of messages that clients send over WebSockets, and how much each costs.
        headers: whether responses say where the tenant stands.
        windows: by limit id, its window in seconds, as the service does not tell it.
        quota_units: by meter, its unit in the registry of the headers' draft.
        challenge: of `WWW-Authenticate`; then a request without a tenant is answered 401.
        answer: writes the body of an answer that is not the app's: content type, and bytes.
    """

    charged: Callable[[int], bool] = below_400
    response_bytes: Measured | None = None
    messages: Measured | None = None
    headers: bool = True
    windows: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    quota_units: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    challenge: str | None = None
    answer: Callable[[WebRequest, int, Mapping[str, Any]], tuple[str, bytes]] | None = None

    def __post_init__(self) -> None:
        Rules.__post_init__(self)
        if self.mode == "consume" and self.response_bytes is not None:
            raise ValueError("response_bytes shows only after; it needs mode 'reserve'")

    @property
    def counted(self) -> Measured | None:
        """The bytes of the response."""
        return self.response_bytes

    def unit_of(self, meter: str) -> str | None:
        """Return a meter's unit in the registry; None where nobody has said so."""
        if self.response_bytes is not None and meter == self.response_bytes.meter:
            return self.quota_units.get(meter, "content-bytes")
        return self.quota_units.get(meter)
