"""What a catalog says of Envoy, in the compiled catalog's JSON.

Guarantees: what is written reads back equal; fields that a later version adds are ignored.
Refuses to know: the rest of the catalog.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

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

# JSON is untyped; what is read from it is checked by building the domain's own types.
Json = Mapping[str, Any]


def envoy_to_json(rules: EnvoyRules) -> dict[str, Any]:
    """Return what is said of Envoy."""
    return asdict(rules)


def envoy_from_json(found: Json | None) -> EnvoyRules:
    """Return what is said of Envoy; of a snapshot that says nothing, that."""
    if not found:
        return NO_RULES
    return EnvoyRules(
        {str(name): _domain(each) for name, each in found.get("domains", {}).items()},
        tuple(_log_rule(each) for each in found.get("access_logs", ())),
    )


def _domain(found: Json) -> RateDomain:
    return RateDomain(
        rules=tuple(_rule(each) for each in found["rules"]),
        charging=Charging(found.get("charging", Charging.TOGETHER)),
        headers=Headers(found.get("headers", Headers.STANDARD)),
        metadata=bool(found.get("metadata", False)),
        without_redis=WithoutRedis(found.get("without_redis", WithoutRedis.REFUSE)),
    )


def _rule(found: Json) -> RateRule:
    return RateRule(
        match=tuple(
            EntryMatch(
                each["key"],
                each.get("value", ""),
                each.get("pattern", ""),
                each.get("name", ""),
            )
            for each in found["match"]
        ),
        tenant=_given(found["tenant"]),
        meter=MeterName(found["meter"]),
        amount=found.get("amount", ""),
        dimensions=tuple((name, _given(each)) for name, each in found.get("dimensions", ())),
        shadow=bool(found.get("shadow", False)),
        name=found.get("name", ""),
        replaces=tuple(found.get("replaces", ())),
    )


def _given(found: Json) -> Given:
    return Given(found.get("text", ""), tuple(found.get("entries", ())))


def _log_rule(found: Json) -> LogRule:
    return LogRule(
        tenant=_log_given(found["tenant"]),
        meters=tuple((MeterName(name), LogMeasure(each)) for name, each in found["meters"]),
        kind=LogKind(found["kind"]) if found.get("kind") is not None else None,
        where=_where(found.get("where", ())),
        dimensions=tuple((name, _log_given(each)) for name, each in found.get("dimensions", ())),
    )


def _where(found: Sequence[Any]) -> tuple[tuple[LogField, tuple[str, ...]], ...]:
    return tuple((LogField(name), tuple(values)) for name, values in found)


def _log_given(found: Json) -> LogGiven:
    return LogGiven(LogPlace(found["place"]), tuple(found["path"]))
