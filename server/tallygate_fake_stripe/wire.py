"""A request as it came, what is answered, and what is remembered of both.

Guarantees: nothing of a connection is in them.
Refuses to know: who asks and who answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

NOTED_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as it came."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def v2(self) -> bool:
        """Whether it is of the v2 API."""
        return self.path.startswith("/v2/")


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered; `drop` is to cut the connection instead."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    content_type: str = "application/json"


@dataclass(slots=True)
class Noted:
    """One request in the log."""

    id: str
    method: str
    path: str
    at_us: int
    status: int
    code: str | None
    idempotency_key: str | None
    fault: str | None
    replayed: bool
    api_version: str
    # As it came, query or body; a long one without its end.
    said: str
