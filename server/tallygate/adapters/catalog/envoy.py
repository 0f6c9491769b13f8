"""The `envoy` of a catalog document: what descriptors and entries of access logs mean.

Guarantees: each key that is not known here is a fault, with a guess at what was meant.
Refuses to know: whether meters and entries exist; that is for the catalog's rules.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from yaml.nodes import MappingNode, Node, SequenceNode

from tallygate.adapters.catalog.nodes import Reader
from tallygate.adapters.catalog.wheres import where
from tallygate.domain.envoy import (
    NO_RULES,
    Charging,
    EntryMatch,
    EnvoyRules,
    Given,
    Headers,
    LogField,
    LogGiven,
    LogKind,
    LogMeasure,
    LogPlace,
    LogRule,
    RateDomain,
    RateRule,
    WithoutRedis,
)
from tallygate.domain.ids import MeterName
from tallygate.domain.path_fault import closest

_ENVOY: Final = ("domains", "access_logs")
_DOMAIN: Final = ("rules", "charge", "headers", "metadata", "on_outage")
_RULE: Final = (
    *("match", "tenant", "meter", "amount", "dimensions", "shadow", "name", "replaces"),
    "pass",
)
_ENTRY: Final = ("key", "value", "like", "name")
_GIVEN: Final = ("entry", "entries")
_LOG: Final = ("tenant", "meters", "kind", "where", "dimensions")
_LOG_GIVEN: Final = tuple(each.value for each in LogPlace if each is not LogPlace.TEXT)
_HITS: Final = "hits"
_FIELDS: Final = tuple(each.value for each in LogField)


class _Either(StrEnum):
    """The kinds of access log, and both."""

    HTTP = "http"
    TCP = "tcp"
    BOTH = "both"


def envoy(read: Reader, node: Node | None) -> EnvoyRules:
    """Return what a document says of Envoy; what is wrong is told to `read`."""
    if node is None:
        return NO_RULES
    parts = read.mapping(node, "envoy", _ENVOY)
    domains = read.mapping(parts.get("domains"), "envoy.domains")
    listed = read.sequence(parts.get("access_logs"), "envoy.access_logs")
    return EnvoyRules(
        {name: _domain(read, each, f"envoy.domains.{name}") for name, each in domains.items()},
        tuple(_log_rule(read, each, path) for each, path in listed),
    )


def _domain(read: Reader, node: Node, path: str) -> RateDomain:
    parts = read.mapping(node, path, _DOMAIN)
    rules = read.sequence(parts.get("rules"), f"{path}.rules")
    outage = f"{path}.on_outage"
    return RateDomain(
        rules=tuple(_rule(read, each, at) for each, at in rules),
        charging=read.choice(
            parts.get("charge"), f"{path}.charge", Charging, default=Charging.TOGETHER
        ),
        headers=read.choice(
            parts.get("headers"), f"{path}.headers", Headers, default=Headers.STANDARD
        ),
        metadata=read.flag(parts.get("metadata"), f"{path}.metadata"),
        without_redis=read.choice(
            parts.get("on_outage"), outage, WithoutRedis, default=WithoutRedis.REFUSE
        ),
    )


def _rule(read: Reader, node: Node, path: str) -> RateRule:
    parts = read.mapping(node, path, _RULE)
    passes = read.flag(parts.get("pass"), f"{path}.pass")
    read.needed(parts, "match", node, path)
    if "meter" in parts and passes:
        read.fault(parts["meter"], f"{path}.meter", "is for rules without pass: true")
    elif not passes:
        read.needed(parts, "meter", node, path)
    dimensions = read.mapping(parts.get("dimensions"), f"{path}.dimensions")
    listed = read.sequence(parts.get("match"), f"{path}.match")
    return RateRule(
        match=tuple(_entry(read, each, at) for each, at in listed),
        tenant=_given(read, parts.get("tenant"), f"{path}.tenant"),
        meter=MeterName(read.text(parts.get("meter"), f"{path}.meter")),
        amount=_amount(read, parts.get("amount"), f"{path}.amount"),
        dimensions=tuple(
            (name, _given(read, each, f"{path}.dimensions.{name}"))
            for name, each in sorted(dimensions.items())
        ),
        shadow=read.flag(parts.get("shadow"), f"{path}.shadow"),
        name=read.text(parts.get("name"), f"{path}.name"),
        replaces=tuple(
            read.text(each, at)
            for each, at in read.sequence(parts.get("replaces"), f"{path}.replaces")
        ),
    )


def _entry(read: Reader, node: Node, path: str) -> EntryMatch:
    parts = read.mapping(node, path, _ENTRY)
    read.needed(parts, "key", node, path)
    return EntryMatch(*(read.text(parts.get(name), f"{path}.{name}") for name in _ENTRY))


def _given(read: Reader, node: Node | None, path: str) -> Given:
    """Return a text as it stands, or `{entry: KEY}`, or `{entries: [KEY, ...]}`."""
    if not isinstance(node, MappingNode):
        return Given(read.text(node, path))
    parts = read.mapping(node, path, _GIVEN)
    if len(parts) != 1:
        read.fault(node, path, "must be a text, {entry: KEY} or {entries: [KEY, ...]}")
        return Given()
    if "entry" in parts:
        return Given(entries=(read.text(parts["entry"], f"{path}.entry"),))
    listed = read.sequence(parts["entries"], f"{path}.entries")
    return Given(entries=tuple(read.text(each, at) for each, at in listed))


def _amount(read: Reader, node: Node | None, path: str) -> str:
    if isinstance(node, MappingNode):
        parts = read.mapping(node, path, ("entry",))
        read.needed(parts, "entry", node, path)
        return read.text(parts.get("entry"), f"{path}.entry")
    if node is not None and read.text(node, path) != _HITS:
        read.fault(node, path, "must be hits, or {entry: KEY}")
    return ""


def _log_rule(read: Reader, node: Node, path: str) -> LogRule:
    parts = read.mapping(node, path, _LOG)
    for name in ("tenant", "meters"):
        read.needed(parts, name, node, path)
    kind = read.choice(parts.get("kind"), f"{path}.kind", _Either, default=_Either.BOTH)
    dimensions = read.mapping(parts.get("dimensions"), f"{path}.dimensions")
    return LogRule(
        tenant=_log_given(read, parts.get("tenant"), f"{path}.tenant"),
        meters=tuple(
            (MeterName(name), read.choice(each, at, LogMeasure, default=LogMeasure.ONE))
            for name, each in read.mapping(parts.get("meters"), f"{path}.meters").items()
            for at in (f"{path}.meters.{name}",)
        ),
        kind=None if kind is _Either.BOTH else LogKind(kind.value),
        where=_log_where(read, parts.get("where"), f"{path}.where"),
        dimensions=tuple(
            (name, _log_given(read, each, f"{path}.dimensions.{name}"))
            for name, each in sorted(dimensions.items())
        ),
    )


def _log_where(
    read: Reader, node: Node | None, path: str
) -> tuple[tuple[LogField, tuple[str, ...]], ...]:
    found = []
    known: Mapping[str, Node] = read.mapping(node, path, _FIELDS)
    for name, values in where(read, node, path) if known else ():
        if name in known:
            found.append((LogField(name), values))
    return tuple(found)


def _log_given(read: Reader, node: Node | None, path: str) -> LogGiven:
    """Return a text as it stands, or `{PLACE: NAME}`, of metadata `{metadata: [NAME, ...]}`."""
    if not isinstance(node, MappingNode):
        return LogGiven(LogPlace.TEXT, (read.text(node, path),))
    parts = read.mapping(node, path, _LOG_GIVEN)
    if len(parts) != 1:
        if parts or not node.value:
            read.fault(node, path, f"must be a text, or one of {', '.join(_LOG_GIVEN)}")
        return LogGiven(LogPlace.TEXT, ("",))
    ((name, value),) = parts.items()
    place, at = LogPlace(name), f"{path}.{name}"
    if isinstance(value, SequenceNode) and place is LogPlace.METADATA:
        names = tuple(read.text(each, where_) for each, where_ in read.sequence(value, at))
    else:
        names = (read.text(value, at),)
    if place is LogPlace.FIELD and names[0] not in _FIELDS:
        message = f"must be one of {', '.join(_FIELDS)}, not {names[0]!r}"
        read.fault(value, at, message, closest(names[0], _FIELDS))
        return LogGiven(LogPlace.TEXT, ("",))
    if place is LogPlace.METADATA and len(names) < 2:
        read.fault(value, at, "must be a list: the namespace, and the keys to the value")
    if place in (LogPlace.REQUEST_HEADER, LogPlace.RESPONSE_HEADER):
        # Envoy has headers' names in lower case.
        names = tuple(each.lower() for each in names)
    return LogGiven(place, names)
