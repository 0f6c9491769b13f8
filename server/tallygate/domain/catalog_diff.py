"""What differs between two catalogs, told value by value.

Guarantees: equal catalogs differ in nothing; every other difference is told once, by its path.
Refuses to know: how values are written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Final, TypeVar

from tallygate.domain.catalog import UNLIMITED, Catalog, Tenant
from tallygate.domain.ids import TenantId

# Tuples whose parts have a name of their own, in any order.
_KEYED: Final = {"overrides": "limit_id", "weights": "meter", "rules": "key"}

_Name = TypeVar("_Name", bound=str)


class ChangeKind(StrEnum):
    """What a change does."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `before` and `after` are as people read them, empty where there is none."""

    kind: ChangeKind
    path: str
    before: str
    after: str


def diff(old: Catalog, new: Catalog) -> Iterator[Change]:
    """Iterate over the differences of all but tenants."""
    yield from _values("default_plan", old.default_plan, new.default_plan)
    yield from _mappings("meters", old.meters, new.meters)
    yield from _plans(old, new)
    yield from _mappings(
        "destinations",
        {destination.name: destination for destination in old.destinations},
        {destination.name: destination for destination in new.destinations},
    )
    yield from _envoy(old, new)
    yield from _values("ingest.unmatched", old.ingest.unmatched, new.ingest.unmatched)
    yield from _values("ingest.events", old.ingest.rules or None, new.ingest.rules or None)


def diff_tenants(old: Mapping[TenantId, Tenant], new: Sequence[Tenant]) -> Iterator[Change]:
    """Iterate over what `new` changes; a tenant that it does not name stays as it is."""
    for tenant in new:
        yield from _mappings(
            "tenants",
            {tenant.tenant_id: old[tenant.tenant_id]} if tenant.tenant_id in old else {},
            {tenant.tenant_id: tenant},
        )


def _envoy(old: Catalog, new: Catalog) -> Iterator[Change]:
    was, will = old.envoy, new.envoy
    yield from _mappings("envoy.domains", was.domains, will.domains)
    for name in sorted({*was.domains} & {*will.domains}):
        keys = [[rule.key for rule in each.domains[name].rules] for each in (was, will)]
        # The same rules in another order are told once: of two patterns the first one counts.
        if keys[0] != keys[1] and sorted(keys[0]) == sorted(keys[1]):
            yield Change(ChangeKind.CHANGED, f"envoy.domains.{name}.rules", "", "in another order")
    yield from _values("envoy.access_logs", was.access_logs or None, will.access_logs or None)


def _plans(old: Catalog, new: Catalog) -> Iterator[Change]:
    for name in sorted({*old.plans, *new.plans}):
        before, after = old.plans.get(name), new.plans.get(name)
        if before is None or after is None:
            yield from _values(f"plans.{name}", before, after)
            continue
        yield from _values(f"plans.{name}.description", before.description, after.description)
        yield from _mappings(
            f"plans.{name}.limits",
            {limit.limit_id: limit for limit in before.limits},
            {limit.limit_id: limit for limit in after.limits},
        )
        yield from _mappings(
            f"plans.{name}.prices",
            {price.price_id: price for price in before.prices},
            {price.price_id: price for price in after.prices},
        )
        yield from _mappings(f"plans.{name}", {"terms": before.terms}, {"terms": after.terms})


def _mappings(
    path: str, old: Mapping[_Name, object], new: Mapping[_Name, object]
) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            yield from _values(f"{path}.{name}", before, after)
        elif is_dataclass(before) and is_dataclass(after):
            for field in fields(before):
                at = f"{path}.{name}.{field.name}"
                was, will = getattr(before, field.name), getattr(after, field.name)
                key = _KEYED.get(field.name)
                if key is None:
                    yield from _values(at, was, will)
                else:
                    yield from _mappings(at, _by(key, was), _by(key, will))


def _by(key: str, parts: Sequence[object]) -> dict[str, object]:
    return {getattr(part, key): part for part in parts}


def _values(path: str, before: object, after: object) -> Iterator[Change]:
    if before == after:
        return
    if before is None:
        kind = ChangeKind.ADDED
    else:
        kind = ChangeKind.REMOVED if after is None else ChangeKind.CHANGED
    name = path.rpartition(".")[2]
    yield Change(kind, path, _shown(before, name), _shown(after, name))


def _shown(value: object, name: str = "") -> str:
    if value is None:
        return ""
    if name == "limit" and value == UNLIMITED:
        return "unlimited"
    if isinstance(value, tuple):
        return "[" + ", ".join(_shown(part) for part in value) + "]"
    if is_dataclass(value):
        parts = (
            f"{field.name}: {_shown(getattr(value, field.name), field.name)}"
            for field in fields(value)
        )
        return "{" + ", ".join(parts) + "}"
    return str(value)
