"""Which rule a descriptor meets, and what comes of the two: a tenant, a meter, units, dimensions.

Guarantees: at each entry the rules that name its very value come first, then patterns in their
order, then those for any value; what was chosen is not left again, as envoyproxy/ratelimit has it.
A look-up costs as many steps as the descriptor has entries, and the patterns met on the way.
Refuses to know: who asks, and what limits say.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.envoy import ANY, EntryMatch, Given, RateRule
from tallygate.domain.errors import InvalidField
from tallygate.domain.event import DIMENSION_VALUE_LENGTH_MAX
from tallygate.domain.ids import AMOUNT_MAX, TenantId, tenant_id
from tallygate.domain.request import Item

_NUMBER: Final = re.compile(r"[0-9]{1,16}")
# What a value that is too long keeps of itself before the digest of all of it.
_KEPT: Final = DIMENSION_VALUE_LENGTH_MAX - 65


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One descriptor of a call: its entries in order, and how many hits it stands for."""

    entries: tuple[tuple[str, str], ...]
    hits: int = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """A descriptor as its rule has it. An item of 0 units asks where the limits stand."""

    rule: RateRule
    tenant_id: TenantId
    item: Item


@dataclass(slots=True)
class _Node:
    """What may follow the entries so far, and the rule that ends with them."""

    exact: dict[tuple[str, str], "_Node"] = field(default_factory=dict)
    patterns: list[tuple[str, re.Pattern[str], "_Node"]] = field(default_factory=list)
    any: dict[str, "_Node"] = field(default_factory=dict)
    rule: RateRule | None = None

    def child(self, entry: EntryMatch) -> "_Node":
        """Return what follows an entry of a rule, made where there is none."""
        if entry.pattern:
            pattern = compiled(entry.pattern)
            for key, each, node in self.patterns:
                if key == entry.key and each.pattern == pattern.pattern:
                    return node
            node = _Node()
            self.patterns.append((entry.key, pattern, node))
            return node
        if entry.value:
            return self.exact.setdefault((entry.key, entry.value), _Node())
        return self.any.setdefault(entry.key, _Node())

    def after(self, entry: tuple[str, str]) -> "_Node | None":
        """Return what follows an entry of a descriptor, None where no rule goes on so."""
        found = self.exact.get(entry)
        if found is not None:
            return found
        for key, pattern, node in self.patterns:
            if key == entry[0] and pattern.fullmatch(entry[1]):
                return node
        return self.any.get(entry[0])


class RuleTree:
    """The rules of a domain, ready to be asked."""

    def __init__(self, rules: Iterable[RateRule]) -> None:
        self._root = _Node()
        for rule in rules:
            node = self._root
            for entry in rule.match:
                node = node.child(entry)
            node.rule = rule

    def find(self, descriptor: Descriptor) -> RateRule | None:
        """Return the rule of a descriptor: one with as many entries, None where there is none."""
        node: _Node | None = self._root
        for entry in descriptor.entries:
            if node is None:
                return None
            node = node.after(entry)
        return node.rule if node is not None else None

    def rules_of(self, descriptors: Sequence[Descriptor]) -> list[RateRule | None]:
        """Return each descriptor's rule, without those that another's replaces."""
        rules = [self.find(descriptor) for descriptor in descriptors]
        replaced = {name for rule in rules if rule is not None for name in rule.replaces}
        return [
            None if rule is not None and rule.name and rule.name in replaced else rule
            for rule in rules
        ]


def compiled(pattern: str) -> re.Pattern[str]:
    """Return what matches a text in which `*` stands for any characters."""
    # A line break is a character like others; no value makes the search quadratic, as each part
    # is looked for from where the one before has ended.
    parts = [re.escape(part) for part in pattern.split(ANY)]
    first, *rest = parts
    if not rest:
        return re.compile(first, re.DOTALL)
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL)


def wanted(rule: RateRule, descriptor: Descriptor, field_name: str) -> Wanted:
    """Return what a descriptor asks for. Raises `InvalidField` naming the entry."""
    values = {
        entry.called: value
        for entry, (_, value) in zip(rule.match, descriptor.entries, strict=True)
    }
    tenant = tenant_id(_one(rule.tenant, values), f"{field_name}.entries")
    units = descriptor.hits
    if rule.amount and units:
        units = _number(values[rule.amount], f"{field_name}.entries[{rule.amount!r}]")
    if units > AMOUNT_MAX:
        raise InvalidField(f"must be at most {AMOUNT_MAX}", field=f"{field_name}.hits_addend")
    dimensions = {name: _dimension(given, values) for name, given in rule.dimensions}
    return Wanted(rule, tenant, Item(rule.meter, units, dimensions))


def shortened(value: str) -> str:
    """Return a value as a dimension can hold it: what is too long ends in a digest of all of it."""
    if len(value) <= DIMENSION_VALUE_LENGTH_MAX and "\0" not in value:
        return value
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()
    return f"{value[:_KEPT].replace(chr(0), '')}~{digest}"


def _one(given: Given, values: dict[str, str]) -> str:
    if not given.entries:
        return given.text
    if len(given.entries) == 1:
        return values[given.entries[0]]
    # No two lists of values are joined to the same text.
    return "|".join(values[name].replace("%", "%25").replace("|", "%7C") for name in given.entries)


def _dimension(given: Given, values: dict[str, str]) -> str:
    return shortened(_one(given, values))


def _number(text: str, field_name: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise InvalidField("must be a whole number from 0 on", field=field_name)
    return int(text)
