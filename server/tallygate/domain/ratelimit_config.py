"""The configuration of envoyproxy/ratelimit as a catalog that decides the same.

Guarantees: each of its limits becomes a plan, a tenant on it, and a rule that leads there; the same
configuration gives the same names, whatever stands beside it. What cannot be carried over is told.
Refuses to know: YAML, in and out.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.catalog import Catalog, Limit, LimitKind, Meter, OnExceed, Plan, Tenant
from tallygate.domain.envoy import (
    ANY,
    Charging,
    EntryMatch,
    EnvoyRules,
    Given,
    Headers,
    RateDomain,
    RateRule,
    WithoutRedis,
)
from tallygate.domain.ids import LimitId, MeterName, PlanName, TenantId
from tallygate.domain.window import Period

METER: Final = MeterName("ratelimit_hits")
DIMENSION: Final = "descriptor"
"""The dimension whose values have a counter each, as values that are not named have there."""

_SLUG_MAX: Final = 52
_DIGEST_DIGITS: Final = 8
_OTHER: Final = re.compile(r"[^a-z0-9_.-]+")

# Where ours begin at other instants, or are of other lengths.
_UNEQUAL: Final = {
    Period.WEEK: "a week begins on Monday here, and on Thursday there",
    Period.MONTH: "a month is the calendar's here, and 30 days there",
    Period.YEAR: "a year is the calendar's here, and 365 days there",
}


@dataclass(frozen=True, slots=True)
class RateLimitBlock:
    """A `rate_limit`. `period` None is unlimited."""

    units: int = 0
    period: Period | None = None
    name: str = ""
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigDescriptor:
    """A descriptor, its flags, and those nested in it. `dropped` are keys that only they have."""

    key: str
    value: str = ""
    limit: RateLimitBlock | None = None
    nested: tuple["ConfigDescriptor", ...] = ()
    shadow: bool = False
    shared: bool = False
    dropped: tuple[str, ...] = ()
    path: str = ""


@dataclass(frozen=True, slots=True)
class ConfigDomain:
    """A domain, of one file or of several."""

    name: str
    descriptors: tuple[ConfigDescriptor, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """A catalog, its tenants, and what it does not have of the configuration, by path."""

    catalog: Catalog
    tenants: tuple[Tenant, ...]
    notes: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Making:
    """What has been made so far."""

    plans: dict[PlanName, Plan] = field(default_factory=dict)
    tenants: list[Tenant] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def imported(domains: Sequence[ConfigDomain]) -> Imported:
    """Return the catalog of a configuration."""
    making = _Making()
    made = {domain.name: _domain(making, domain) for domain in domains}
    meter = Meter(METER, unit="hit", description="Hits of imported rate limits.")
    catalog = Catalog(meters={METER: meter}, plans=making.plans, envoy=EnvoyRules(made))
    return Imported(catalog, tuple(making.tenants), tuple(making.notes))


def _domain(making: _Making, domain: ConfigDomain) -> RateDomain:
    lines = [*_lines((), domain.descriptors)]
    names = {line[-1].limit.name for line in lines if line[-1].limit is not None} - {""}
    rules = tuple(_rule(making, domain.name, line, names) for line in lines)
    # There each descriptor is counted by itself, and an error is left to Envoy.
    return RateDomain(rules, Charging.EACH, Headers.OFF, without_redis=WithoutRedis.ERROR)


def _lines(
    above: tuple[ConfigDescriptor, ...], descriptors: Sequence[ConfigDescriptor]
) -> Iterator[tuple[ConfigDescriptor, ...]]:
    """Iterate over the ways from the top to what says something.

    A descriptor with nothing in it says that those like it pass, whatever less special ones say.
    """
    for each in descriptors:
        line = (*above, each)
        if each.limit is not None or not each.nested:
            yield line
        yield from _lines(line, each.nested)


def _rule(
    making: _Making, domain: str, line: Sequence[ConfigDescriptor], names: set[str]
) -> RateRule:
    last, limit = line[-1], line[-1].limit
    match = _match(line)
    if limit is None:
        return RateRule(match)
    for key in last.dropped:
        making.notes.append((f"{last.path}.{key}", "is not carried over"))
    replaces = tuple(name for name in limit.replaces if name in names)
    for name in limit.replaces:
        if name not in names:
            making.notes.append((f"{last.path}.rate_limit.replaces", f"no limit is named {name!r}"))
    if limit.period is None:
        return RateRule(match, name=limit.name, replaces=replaces)
    if limit.period in _UNEQUAL:
        making.notes.append((f"{last.path}.rate_limit.unit", _UNEQUAL[limit.period]))
    varying = tuple(
        entry.called
        for entry, each in zip(match, line, strict=True)
        if not entry.value and not (entry.pattern and each.shared)
    )
    name = named(domain, match)
    own = Limit(
        limit_id=LimitId(name),
        meter=METER,
        kind=LimitKind.WINDOW,
        period=limit.period,
        limit=limit.units,
        on_exceed=OnExceed.SHADOW if last.shadow else OnExceed.REFUSE,
        per=DIMENSION if varying else "",
    )
    making.plans[PlanName(name)] = Plan(PlanName(name), (own,))
    making.tenants.append(Tenant(TenantId(name), PlanName(name)))
    dimensions = ((DIMENSION, Given(entries=varying)),) if varying else ()
    return RateRule(
        match,
        tenant=Given(text=name),
        meter=METER,
        dimensions=dimensions,
        name=limit.name,
        replaces=replaces,
    )


def _match(line: Sequence[ConfigDescriptor]) -> tuple[EntryMatch, ...]:
    keys = [each.key for each in line]
    return tuple(
        EntryMatch(
            key=each.key,
            value="" if ANY in each.value else each.value,
            pattern=each.value if ANY in each.value else "",
            name=f"{each.key}.{place + 1}" if keys.count(each.key) > 1 else "",
        )
        for place, each in enumerate(line)
    )


def named(domain: str, match: Sequence[EntryMatch]) -> str:
    """Return the name of a limit: readable, and of this domain and these entries alone."""
    parts = [(each.key, each.value, each.pattern) for each in match]
    digest = hashlib.sha256(repr((domain, parts)).encode()).hexdigest()[:_DIGEST_DIGITS]
    words = [domain, *(word for part in parts for word in part if word)]
    slug = _OTHER.sub("-", ".".join(words).lower()).strip("-._")[:_SLUG_MAX].rstrip("-._")
    return f"{slug}-{digest}" if slug else digest
