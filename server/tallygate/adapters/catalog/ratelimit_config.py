"""envoyproxy/ratelimit's YAML in, and a catalog document of what was made of it out.

Guarantees: what that service would refuse to load is refused here, all faults at once, each with
file, line and path; what is written reads back as the same catalog.
Refuses to know: what is made of a configuration.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.nodes import Node

from tallygate.adapters.catalog.compose import compose
from tallygate.adapters.catalog.file_view import read_document
from tallygate.adapters.catalog.nodes import Reader
from tallygate.domain.catalog import Limit, OnExceed
from tallygate.domain.envoy import ANY, EntryMatch, Given, RateDomain, RateRule
from tallygate.domain.errors import CatalogInvalid, Fault
from tallygate.domain.path_fault import closest
from tallygate.domain.ratelimit_config import (
    ConfigDescriptor,
    ConfigDomain,
    Imported,
    RateLimitBlock,
)
from tallygate.domain.window import Period

_ROOT: Final = ("domain", "descriptors")
_FLAGS: Final = ("quota_mode", "detailed_metric", "value_to_metric")
_DESCRIPTOR: Final = (
    *("key", "value", "rate_limit", "descriptors", "shadow_mode", "share_threshold"),
    *_FLAGS,
    "metadata",
)
_LIMIT: Final = ("unit", "requests_per_unit", "unlimited", "name", "replaces")
_UNITS: Final = {
    each.value: each
    for each in (
        *(Period.SECOND, Period.MINUTE, Period.HOUR, Period.DAY),
        *(Period.WEEK, Period.MONTH, Period.YEAR),
    )
}
_UINT32_MAX: Final = 2**32 - 1


def read_ratelimit_configs(paths: Sequence[Path]) -> tuple[ConfigDomain, ...]:
    """Return the domains of files, those of one name joined. Raises `CatalogInvalid`."""
    faults: list[Fault] = []
    domains: dict[str, tuple[ConfigDescriptor, ...]] = {}
    for path in paths:
        read = Reader()
        try:
            name, descriptors = _root(read, compose(read_document(path)))
        except CatalogInvalid as error:
            faults += [_in_file(path, each) for each in error.faults]
            continue
        known = {(each.key, each.value) for each in domains.get(name, ())}
        for each in descriptors:
            if (each.key, each.value) in known:
                line = read.lines.get(each.path, 0)
                read.faults.append(Fault(line, each.path, f"is in another file of {name} already"))
        faults += [_in_file(path, each) for each in read.faults]
        domains[name] = (*domains.get(name, ()), *descriptors)
    if faults:
        raise CatalogInvalid(tuple(faults))
    return tuple(ConfigDomain(name, found) for name, found in sorted(domains.items()))


def document_of(made: Imported) -> str:
    """Return a catalog document."""
    catalog = made.catalog
    parts: dict[str, Any] = {
        "version": 1,
        "meters": {
            str(each.name): {"unit": each.unit, "description": each.description}
            for each in catalog.meters.values()
        },
        "plans": {
            str(plan.name): {"limits": [_limit_out(each) for each in plan.limits]}
            for plan in catalog.plans.values()
        },
        "tenants": {str(each.tenant_id): {"plan": str(each.plan)} for each in made.tenants},
        "envoy": {
            "domains": {name: _domain_out(each) for name, each in catalog.envoy.domains.items()}
        },
    }
    return yaml.safe_dump(parts, sort_keys=False, allow_unicode=True, width=100)


def _in_file(path: Path, fault: Fault) -> Fault:
    at = f"{path.name}: {fault.path}" if fault.path else path.name
    return Fault(fault.line, at, fault.message, fault.suggestion)


def _root(read: Reader, node: Node | None) -> tuple[str, tuple[ConfigDescriptor, ...]]:
    parts = read.mapping(node, "", _ROOT)
    name = read.text(parts.get("domain"), "domain")
    if "domain" not in parts:
        read.faults.append(Fault(1, "domain", "is required"))
    return name, tuple(_descriptors(read, parts.get("descriptors"), "descriptors"))


def _descriptors(read: Reader, node: Node | None, path: str) -> Iterator[ConfigDescriptor]:
    seen: dict[tuple[str, str], str] = {}
    for item, at in read.sequence(node, path):
        found = _descriptor(read, item, at)
        first = seen.setdefault((found.key, found.value), at)
        if first != at:
            read.fault(item, at, f"has the key and value of {first}")
        yield found


def _descriptor(read: Reader, node: Node, path: str) -> ConfigDescriptor:
    parts = read.mapping(node, path, _DESCRIPTOR)
    read.needed(parts, "key", node, path)
    key = read.text(parts.get("key"), f"{path}.key")
    if ANY in key:
        read.fault(parts["key"], f"{path}.key", "a * in a key is not carried over")
    value = read.text(parts.get("value"), f"{path}.value")
    shared = read.flag(parts.get("share_threshold"), f"{path}.share_threshold")
    if shared and ANY not in value:
        read.fault(node, f"{path}.share_threshold", "is for values with a *")
    flags = [name for name in _FLAGS if read.flag(parts.get(name), f"{path}.{name}")]
    dropped = (*flags, "metadata") if "metadata" in parts else (*flags,)
    return ConfigDescriptor(
        key=key,
        value=value,
        limit=_limit(read, parts["rate_limit"], f"{path}.rate_limit")
        if "rate_limit" in parts
        else None,
        nested=tuple(_descriptors(read, parts.get("descriptors"), f"{path}.descriptors")),
        shadow=read.flag(parts.get("shadow_mode"), f"{path}.shadow_mode"),
        shared=shared,
        dropped=dropped,
        path=path,
    )


def _limit(read: Reader, node: Node, path: str) -> RateLimitBlock:
    parts = read.mapping(node, path, _LIMIT)
    unlimited = read.flag(parts.get("unlimited"), f"{path}.unlimited")
    unit = read.text(parts.get("unit"), f"{path}.unit").lower()
    if unlimited and unit:
        read.fault(node, f"{path}.unit", "is not for what is unlimited")
    elif not unlimited and unit not in _UNITS:
        message = f"must be one of {', '.join(_UNITS)}"
        read.fault(parts.get("unit", node), f"{path}.unit", message, closest(unit, _UNITS))
    units = read.integer(parts.get("requests_per_unit"), f"{path}.requests_per_unit")
    if not 0 <= units <= _UINT32_MAX:
        read.fault(node, f"{path}.requests_per_unit", f"must be from 0 to {_UINT32_MAX}")
    name = read.text(parts.get("name"), f"{path}.name")
    replaces = []
    for item, at in read.sequence(parts.get("replaces"), f"{path}.replaces"):
        each = read.mapping(item, at, ("name",))
        read.needed(each, "name", item, at)
        replaces.append(read.text(each.get("name"), f"{at}.name"))
        if name and replaces[-1] == name:
            read.fault(item, at, "names the limit itself")
    period = None if unlimited else _UNITS.get(unit)
    return RateLimitBlock(units, period, name, tuple(each for each in replaces if each))


def _limit_out(limit: Limit) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": str(limit.limit_id),
        "meter": str(limit.meter),
        "kind": limit.kind.value,
        "period": limit.period.value if limit.period else "",
        "limit": limit.limit,
    }
    if limit.per:
        found["per"] = limit.per
    if limit.on_exceed is not OnExceed.REFUSE:
        found["on_exceed"] = limit.on_exceed.value
    return found


def _domain_out(domain: RateDomain) -> dict[str, Any]:
    return {
        "charge": domain.charging.value,
        "headers": domain.headers.value,
        "on_outage": domain.without_redis.value,
        "rules": [_rule_out(each) for each in domain.rules],
    }


def _rule_out(rule: RateRule) -> dict[str, Any]:
    found: dict[str, Any] = {"match": [_entry_out(each) for each in rule.match]}
    if rule.meter:
        found |= {"tenant": _given_out(rule.tenant), "meter": str(rule.meter)}
    else:
        found["pass"] = True
    if rule.dimensions:
        found["dimensions"] = {name: _given_out(given) for name, given in rule.dimensions}
    if rule.name:
        found["name"] = rule.name
    if rule.replaces:
        found["replaces"] = [*rule.replaces]
    return found


def _entry_out(entry: EntryMatch) -> Mapping[str, str]:
    fields = {"key": entry.key, "value": entry.value, "like": entry.pattern, "name": entry.name}
    return {name: value for name, value in fields.items() if value}


def _given_out(given: Given) -> Any:  # noqa: ANN401  a text or a mapping, as YAML has it
    if not given.entries:
        return given.text
    return {"entry": given.entries[0]} if len(given.entries) == 1 else {"entries": [*given.entries]}
