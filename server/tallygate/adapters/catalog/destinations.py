"""The `destinations` of a catalog document: where messages go.

Guarantees: a destination names where its secrets are found, and a document that holds a secret
itself is refused.
Refuses to know: how messages are sent.
"""

import re
from typing import Final
from urllib.parse import urlsplit

from yaml.nodes import MappingNode, Node, ScalarNode

from tallygate.adapters.catalog.nodes import Reader
from tallygate.adapters.catalog.stripe import ACCOUNT_KEYS, account
from tallygate.domain.catalog import Destination
from tallygate.domain.ids import is_name
from tallygate.domain.path_fault import closest
from tallygate.domain.stripe_rules import KIND

MESSAGE_TYPES: Final = (
    "usage.batch",
    "limit.threshold_crossed",
    "balance.low",
    "credit.granted",
    "usage.anomaly",
    "reconcile.drift",
    "period.closed",
    "period.held",
    "period.reopened",
    "invoice.issued",
    "invoice.held",
)
KINDS: Final = ("webhook", "stripe")

_KINDS_PLANNED: Final = ("kafka", "clickhouse", "archive")
_KEYS: Final = ("kind", "url", "types", "secret")
_STRIPE_KEYS: Final = ("kind", "url", "secret", *ACCOUNT_KEYS)
_KINDS_TOLD: Final = " or ".join(KINDS)
# Where a destination names no other, as a test does.
_STRIPE_URL: Final = "https://api.stripe.com"
_URL_LENGTH_MAX: Final = 2_048
_FILE_LENGTH_MAX: Final = 4_096
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def destinations(read: Reader, node: Node | None) -> tuple[Destination, ...]:
    """Return the destinations of a document; what is wrong is told to `read`."""
    return tuple(
        _destination(read, name, value)
        for name, value in read.mapping(node, "destinations").items()
    )


def _destination(read: Reader, name: str, node: Node) -> Destination:
    path = f"destinations.{name}"
    if not is_name(name):
        read.fault(node, path, "is not a name: a-z, 0-9, '_', '.', '-'")
    if _named_kind(node) == KIND:
        return _stripe(read, name, node, path)
    parts = read.mapping(node, path, _KEYS)
    for key in _KEYS:
        if key not in parts:
            read.fault(node, f"{path}.{key}", "is required")
    secret = _secret(read, parts.get("secret"), f"{path}.secret")
    return Destination(
        name=name,
        kind=_kind(read, parts.get("kind"), f"{path}.kind"),
        url=_url(read, parts.get("url"), f"{path}.url"),
        types=_types(read, parts.get("types"), f"{path}.types"),
        secret_env=secret.get("env", ""),
        secret_file=secret.get("file", ""),
    )


def _stripe(read: Reader, name: str, node: Node, path: str) -> Destination:
    parts = read.mapping(node, path, _STRIPE_KEYS)
    read.needed(parts, "secret", node, path)
    secret = _secret(read, parts.get("secret"), f"{path}.secret")
    reports = _secret(read, parts.get("reports_secret"), f"{path}.reports_secret")
    return Destination(
        name=name,
        kind=KIND,
        url=_url(read, parts.get("url"), f"{path}.url") or _STRIPE_URL,
        types=(),
        secret_env=secret.get("env", ""),
        secret_file=secret.get("file", ""),
        stripe=account(read, parts, path, reports),
    )


def _named_kind(node: Node) -> str:
    """Return a destination's kind before it is read: which keys it may have hangs on it."""
    if not isinstance(node, MappingNode):
        return ""
    for key, value in node.value:
        if isinstance(key, ScalarNode) and key.value == "kind" and isinstance(value, ScalarNode):
            return str(value.value)
    return ""


def _kind(read: Reader, node: Node | None, path: str) -> str:
    kind = read.text(node, path)
    if node is not None and kind in _KINDS_PLANNED:
        read.fault(node, path, f"{kind} is reserved: not offered yet, as {_KINDS_TOLD} are")
    elif node is not None and kind and kind not in KINDS:
        read.fault(node, path, f"must be {_KINDS_TOLD}, not {kind!r}", closest(kind, KINDS))
    return kind


def _url(read: Reader, node: Node | None, path: str) -> str:
    url = read.text(node, path, _URL_LENGTH_MAX)
    if node is None or not url:
        return ""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        read.fault(node, path, "is not a URL")
        return ""
    if parts.scheme not in ("http", "https") or not named or " " in url:
        read.fault(node, path, "must be a URL such as https://example.com/hooks")
    elif "@" in parts.netloc:
        # Not repeated in the message: it is a secret, and messages are logged.
        read.fault(node, path, "must hold no user or password: use `secret`")
    return url


def _types(read: Reader, node: Node | None, path: str) -> tuple[str, ...]:
    types: list[str] = []
    for item, at in read.sequence(node, path):
        name = read.text(item, at)
        if name in types:
            read.fault(item, at, f"{name} is there twice")
        elif name and name not in MESSAGE_TYPES:
            message = f"must be one of {', '.join(MESSAGE_TYPES)}, not {name!r}"
            read.fault(item, at, message, closest(name, MESSAGE_TYPES))
        types.append(name)
    if node is not None and not types:
        read.fault(node, path, f"must hold at least one of {', '.join(MESSAGE_TYPES)}")
    return tuple(types)


def _secret(read: Reader, node: Node | None, path: str) -> dict[str, str]:
    if node is None:
        return {}
    if isinstance(node, ScalarNode):
        # The value is not repeated: it may be the secret itself.
        read.fault(
            node, path, "must say where the secret is, env: NAME or file: PATH, never itself"
        )
        return {}
    where = read.mapping(node, path, ("env", "file"))
    if len(where) != 1:
        read.fault(node, path, "must say env: NAME or file: PATH, one of them")
    found = {key: read.text(each, f"{path}.{key}", _FILE_LENGTH_MAX) for key, each in where.items()}
    if found.get("env") and not _VARIABLE.fullmatch(found["env"]):
        read.fault(where["env"], f"{path}.env", "must be the name of an environment variable")
    return found
