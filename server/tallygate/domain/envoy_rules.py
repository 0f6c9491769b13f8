"""What must hold of a catalog's rules for Envoy.

Guarantees: rules without faults can be asked with anything; each fault says which field.
Refuses to know: documents and lines.
"""

from collections.abc import Collection, Iterator
from typing import Final

from tallygate.domain.catalog import Catalog
from tallygate.domain.envoy import Given, LogPlace, LogRule, RateDomain, RateRule
from tallygate.domain.errors import InvalidField
from tallygate.domain.event import DIMENSIONS_MAX
from tallygate.domain.ids import tenant_id
from tallygate.domain.limit_rules import is_key, key_message
from tallygate.domain.path_fault import PathFault, unknown

# All of it is in every sidecar's memory; an entry costs a look-up per call.
DOMAINS_MAX: Final = 1_000
RULES_MAX: Final = 10_000
ENTRIES_MAX: Final = 16
# Each is tried, one after the other, where no value is named.
PATTERNS_MAX: Final = 64
LOG_RULES_MAX: Final = 100


def envoy_faults(catalog: Catalog) -> Iterator[PathFault]:
    """Iterate over the faults of all that a catalog says of Envoy."""
    rules = catalog.envoy
    if len(rules.domains) > DOMAINS_MAX:
        yield PathFault("envoy.domains", f"holds more than {DOMAINS_MAX} domains")
    for name, domain in rules.domains.items():
        yield from _domain_faults(catalog, domain, f"envoy.domains.{name}")
    if len(rules.access_logs) > LOG_RULES_MAX:
        yield PathFault("envoy.access_logs", f"holds more than {LOG_RULES_MAX} rules")
    for index, rule in enumerate(rules.access_logs):
        yield from _log_faults(catalog, rule, f"envoy.access_logs[{index}]")


def _domain_faults(catalog: Catalog, domain: RateDomain, path: str) -> Iterator[PathFault]:
    if len(domain.rules) > RULES_MAX:
        yield PathFault(f"{path}.rules", f"holds more than {RULES_MAX} rules")
    patterns = {each for rule in domain.rules for each in rule.match if each.pattern}
    if len(patterns) > PATTERNS_MAX:
        yield PathFault(f"{path}.rules", f"holds more than {PATTERNS_MAX} patterns")
    names = {rule.name for rule in domain.rules if rule.name}
    seen: dict[tuple[tuple[str, str, str], ...], int] = {}
    for index, rule in enumerate(domain.rules):
        at = f"{path}.rules[{index}]"
        shape = tuple((each.key, each.value, each.pattern) for each in rule.match)
        first = seen.setdefault(shape, index)
        if first != index:
            yield PathFault(f"{at}.match", f"is that of rules[{first}] already")
        yield from _rule_faults(catalog, rule, at)
        for name in rule.replaces:
            if name == rule.name:
                yield PathFault(f"{at}.replaces", "names the rule itself")
            elif name not in names:
                yield unknown(f"{at}.replaces", "rule of that name", name, names)


def _rule_faults(catalog: Catalog, rule: RateRule, path: str) -> Iterator[PathFault]:
    if not 1 <= len(rule.match) <= ENTRIES_MAX:
        yield PathFault(f"{path}.match", f"must have 1 to {ENTRIES_MAX} entries")
    called = [each.called for each in rule.match]
    for index, name in enumerate(called):
        if name in called[:index]:
            message = f"{name} is there twice: give one a `name`"
            yield PathFault(f"{path}.match[{index}]", message)
    for index, each in enumerate(rule.match):
        if each.value and each.pattern:
            yield PathFault(f"{path}.match[{index}]", "has one of value and like, not both")
    if not rule.meter:
        if rule.tenant != Given() or rule.amount or rule.dimensions or rule.shadow:
            yield PathFault(path, "passes, as it has no meter: what else it says is for none")
        return
    if rule.meter not in catalog.meters:
        yield unknown(f"{path}.meter", "meter", rule.meter, catalog.meters)
    yield from _given_faults(rule.tenant, called, f"{path}.tenant")
    if rule.tenant == Given():
        yield PathFault(f"{path}.tenant", "is required: a tenant's id, or {entry: KEY}")
    elif rule.tenant.text:
        yield from _tenant_faults(rule.tenant.text, f"{path}.tenant")
    if rule.amount and rule.amount not in called:
        yield unknown(f"{path}.amount", "entry", rule.amount, called)
    yield from _dimension_faults([name for name, _ in rule.dimensions], f"{path}.dimensions")
    for name, given in rule.dimensions:
        yield from _given_faults(given, called, f"{path}.dimensions.{name}")


def _given_faults(given: Given, called: Collection[str], path: str) -> Iterator[PathFault]:
    for name in given.entries:
        if name not in called:
            yield unknown(path, "entry", name, called)


def _tenant_faults(text: str, path: str) -> Iterator[PathFault]:
    try:
        tenant_id(text)
    except InvalidField as error:
        yield PathFault(path, error.message)


def _dimension_faults(names: Collection[str], path: str) -> Iterator[PathFault]:
    if len(names) > DIMENSIONS_MAX:
        yield PathFault(path, f"holds more than {DIMENSIONS_MAX} names")
    for name in names:
        if not is_key(name):
            yield PathFault(f"{path}.{name}", key_message())


def _log_faults(catalog: Catalog, rule: LogRule, path: str) -> Iterator[PathFault]:
    if not rule.meters:
        yield PathFault(f"{path}.meters", "must name a meter at least")
    for meter, _ in rule.meters:
        if meter not in catalog.meters:
            yield unknown(f"{path}.meters.{meter}", "meter", meter, catalog.meters)
    if rule.tenant.place is LogPlace.TEXT:
        yield from _tenant_faults(rule.tenant.path[0], f"{path}.tenant")
    yield from _dimension_faults([name for name, _ in rule.dimensions], f"{path}.dimensions")
