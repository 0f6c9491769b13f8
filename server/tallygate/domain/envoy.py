"""What Envoy asks, as the catalog understands it: domains, their rules, and access logs.

Guarantees: the parts are immutable; each of their values is taken from one named place.
Refuses to know: Envoy's messages, and how rules are found (see `envoy_match`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tallygate.domain.ids import MeterName

ANY: Final = "*"
"""In a pattern, any characters, also none."""


class Charging(StrEnum):
    """What becomes of a call's other descriptors when one is over its limit.

    TOGETHER charges all of a tenant or none. EACH charges every one that fits by itself.
    """

    TOGETHER = "together"
    EACH = "each"


class Headers(StrEnum):
    """Which headers Envoy is told to add to responses."""

    STANDARD = "standard"
    LEGACY = "legacy"
    OFF = "off"


class WithoutRedis(StrEnum):
    """What Envoy is told where a limit's `on_outage` refuses: over limit, or an error."""

    REFUSE = "refuse"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class EntryMatch:
    """What one entry of a descriptor has to be: a key, and any value, one, or one of a pattern.

    `name` is what the rule calls it, the key unless set.
    """

    key: str
    value: str = ""
    pattern: str = ""
    name: str = ""

    @property
    def called(self) -> str:
        """What the rule calls it."""
        return self.name or self.key


@dataclass(frozen=True, slots=True)
class Given:
    """A text as it stands, or the values of entries: one as it is, several joined."""

    text: str = ""
    entries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RateRule:
    """What a descriptor means. Without `meter` it passes, and nothing is counted.

    `amount` names the entry whose number counts; empty for the hits. With `shadow`, what is over
    passes all the same. `name` lets another rule's `replaces` name this one.
    """

    match: tuple[EntryMatch, ...]
    tenant: Given = Given()
    meter: MeterName = MeterName("")
    amount: str = ""
    dimensions: tuple[tuple[str, Given], ...] = ()
    shadow: bool = False
    name: str = ""
    replaces: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What it matches, as people read it; no other rule of its domain has the same."""
        return ",".join(
            f"{each.key}~{each.pattern}"
            if each.pattern
            else f"{each.key}={each.value}"
            if each.value
            else each.key
            for each in self.match
        )


@dataclass(frozen=True, slots=True)
class RateDomain:
    """A domain of Envoy's rate limits, and how it is answered."""

    rules: tuple[RateRule, ...] = ()
    charging: Charging = Charging.TOGETHER
    headers: Headers = Headers.STANDARD
    metadata: bool = False
    without_redis: WithoutRedis = WithoutRedis.REFUSE


class LogKind(StrEnum):
    """What an access log is of."""

    HTTP = "http"
    TCP = "tcp"


class LogPlace(StrEnum):
    """Where in an entry of an access log a value stands."""

    TEXT = "text"
    REQUEST_HEADER = "request_header"
    RESPONSE_HEADER = "response_header"
    METADATA = "metadata"
    TAG = "tag"
    FIELD = "field"


class LogField(StrEnum):
    """A field of an entry of an access log, as the catalog spells it."""

    AUTHORITY = "authority"
    CLUSTER = "cluster"
    LOG_NAME = "log_name"
    METHOD = "method"
    NODE = "node"
    NODE_CLUSTER = "node_cluster"
    PATH = "path"
    PEER = "peer"
    ROUTE = "route"
    SERVER_NAME = "server_name"
    STATUS = "status"


class LogMeasure(StrEnum):
    """A number of an entry of an access log."""

    ONE = "one"
    REQUEST_BYTES = "request_bytes"
    RESPONSE_BYTES = "response_bytes"
    RECEIVED_BYTES = "received_bytes"
    SENT_BYTES = "sent_bytes"
    DURATION_MS = "duration_ms"


@dataclass(frozen=True, slots=True)
class LogGiven:
    """Where a value comes from: `path` is a header's, tag's or field's name, or a metadata path.

    Of TEXT it is the value itself.
    """

    place: LogPlace
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogRule:
    """What entries of access logs mean: those that have one of the values, for each place named.

    A value may be a pattern. `kind` None is for both kinds.
    """

    tenant: LogGiven
    meters: tuple[tuple[MeterName, LogMeasure], ...]
    kind: LogKind | None = None
    where: tuple[tuple[LogField, tuple[str, ...]], ...] = ()
    dimensions: tuple[tuple[str, LogGiven], ...] = ()


@dataclass(frozen=True, slots=True)
class EnvoyRules:
    """All that a catalog says of Envoy."""

    domains: Mapping[str, RateDomain] = field(default_factory=dict)
    access_logs: tuple[LogRule, ...] = ()


NO_RULES: Final = EnvoyRules()
