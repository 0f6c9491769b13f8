"""What an endpoint is given, and how it is found.

Guarantees: an endpoint is a function from a call to JSON, without waiting; it sees one instant.
Refuses to know: connections, keys, rate limits and faults of the connection.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .faults import Fault
from .fields import Fields
from .limits import BASIC
from .tables import Json

if TYPE_CHECKING:
    from .world import World


@dataclass(slots=True)
class Call:
    """One call of one endpoint."""

    world: "World"
    fields: Fields
    # What the path names, from left to right.
    ids: tuple[str, ...]
    now_us: int
    request_id: str
    idempotency_key: str | None = None
    # A fault that concerns the usage itself, not the call.
    fault: Fault | None = None

    @property
    def now_s(self) -> int:
        """The instant, in seconds since the Unix epoch."""
        return self.now_us // 1_000_000


Endpoint = Callable[[Call], Json]


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint with its address: `{}` stands for one part of the path."""

    method: str
    pattern: str
    endpoint: Endpoint
    permission: str
    limit: str = BASIC
    # Whether it is authorised by a session's token, not by a key.
    by_session: bool = False
    # Whether calls for one customer and meter exclude each other.
    exclusive: bool = False


class Routes:
    """All endpoints, by method and path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[tuple[str, str], Route] = {}
        self._open: list[tuple[str, list[str], Route]] = []
        for route in routes:
            if "{}" in route.pattern:
                self._open.append((route.method, route.pattern.split("/"), route))
            else:
                self._exact[route.method, route.pattern] = route

    def __iter__(self) -> Iterator[Route]:
        return iter([*self._exact.values(), *(route for _, _, route in self._open)])

    def find(self, method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
        """Return the endpoint of a call with what its path names; None where there is none."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, ()
        parts = path.split("/")
        for wanted, pattern, route in self._open:
            if wanted == method and len(pattern) == len(parts):
                pairs = list(zip(pattern, parts, strict=True))
                if all(ours in ("{}", theirs) for ours, theirs in pairs):
                    return route, tuple(theirs for ours, theirs in pairs if ours == "{}")
        return None
