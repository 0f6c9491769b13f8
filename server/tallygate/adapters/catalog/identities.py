"""The identities document: which SPIFFE ids may ask for which tenants and meters.

Guarantees: a document is taken whole or refused with all its faults, each with line and path.
Refuses to know: how callers prove who they are.

`docs/security.md` describes it. It is read by what reads catalogs, by the same rules.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from yaml.nodes import Node

from tallygate.adapters.catalog.compose import compose
from tallygate.adapters.catalog.file_view import read_document
from tallygate.adapters.catalog.nodes import Choice, Reader
from tallygate.domain.caller import AdminRole
from tallygate.domain.errors import CatalogInvalid, Fault, InvalidField
from tallygate.domain.identity import (
    ANY,
    EVERY,
    ID_BYTES_MAX,
    Identities,
    IdentitiesInvalid,
    Names,
    Rule,
    Service,
    names_of,
    pattern_fault,
)
from tallygate.domain.ids import is_name, tenant_id

DOCUMENT_VERSION: Final = "1"
# A caller's first call looks at each rule; later ones at what was found.
RULES_MAX: Final = 1_000
NAMES_MAX: Final = 10_000
FAULTS_MAX: Final = 1_000

_ROOT: Final = ("version", "identities")
_RULE: Final = ("id", "services", "tenants", "meters", "roles")


def read_identities(path: Path) -> Identities:
    """Return the rules of a file. Raises `IdentitiesInvalid`."""
    try:
        return parse_identities(read_document(path))
    except CatalogInvalid as error:
        raise IdentitiesInvalid(error.faults) from None


def parse_identities(text: str) -> Identities:
    """Return the rules of a document. Raises `IdentitiesInvalid`."""
    try:
        root = compose(text)
    except CatalogInvalid as error:
        raise IdentitiesInvalid(error.faults) from None
    read = Reader()
    parts = read.mapping(root, "", _ROOT)
    version = parts.get("version")
    if version is None or read.text(version, "version") != DOCUMENT_VERSION:
        line = 1 if version is None else version.start_mark.line + 1
        message = f"must be {DOCUMENT_VERSION}, the version of this format"
        read.faults.append(Fault(line, "version", message))
    listed = [*read.sequence(parts.get("identities"), "identities")]
    if len(listed) > RULES_MAX:
        read.fault(listed[RULES_MAX][0], "identities", f"has more than {RULES_MAX} rules")
    rules = [_rule(read, node, path) for node, path in listed[:RULES_MAX]]
    if not listed and not read.faults:
        # Nobody could call: that is more likely an empty file than anybody's wish.
        read.faults.append(Fault(1, "identities", "is required, with one rule at least"))
    if read.faults:
        faults = sorted(read.faults, key=lambda fault: fault.line)
        raise IdentitiesInvalid(tuple(faults[:FAULTS_MAX]))
    return Identities(tuple(rules))


def _rule(read: Reader, node: Node, path: str) -> Rule:
    parts = read.mapping(node, path, _RULE)
    pattern = read.text(read.needed(parts, "id", node, path), f"{path}.id", ID_BYTES_MAX)
    fault = pattern_fault(pattern)
    if "id" in parts and fault is not None:
        read.fault(parts["id"], f"{path}.id", fault)
    tenants = _names(
        read, read.needed(parts, "tenants", node, path), f"{path}.tenants", _tenant_fault
    )
    meters = EVERY
    if "meters" in parts:
        meters = _names(read, parts["meters"], f"{path}.meters", _meter_fault)
    roles = _choices(read, parts.get("roles"), f"{path}.roles", AdminRole)
    if roles and "meters" in parts:
        read.fault(parts["meters"], f"{path}.meters", "control asks for no meters: give two rules")
    # Who runs the service is no caller of it, unless that is said.
    services = frozenset(Service) if "roles" not in parts else frozenset[Service]()
    if "services" in parts:
        services = _choices(read, parts["services"], f"{path}.services", Service)
    return Rule(pattern, services, tenants, meters, roles)


def _choices(read: Reader, node: Node | None, path: str, kind: type[Choice]) -> frozenset[Choice]:
    """Return those of an enumeration that are listed. An empty list is a fault."""
    told = len(read.faults)
    default = next(iter(kind))
    found = frozenset(
        read.choice(item, at, kind, default=default) for item, at in read.sequence(node, path)
    )
    if node is not None and not found and len(read.faults) == told:
        read.fault(node, path, "must list one at least")
    return found


def _names(
    read: Reader, node: Node | None, path: str, fault_of: Callable[[str], str | None]
) -> Names:
    """Return the names that are listed. An empty list, which would allow nothing, is a fault."""
    texts, told = [], len(read.faults)
    for item, at in read.sequence(node, path):
        text = read.text(item, at)
        stem = text.removesuffix(ANY)
        fault = "is empty" if not text else None
        if ANY in stem:
            fault = "a * may only stand at the end, for whatever follows"
        elif stem:
            fault = fault_of(stem)
        if fault is not None:
            read.fault(item, at, fault)
        texts.append(text)
    if node is not None and not texts and len(read.faults) == told:
        read.fault(node, path, "must list one name at least; * is for all")
    if node is not None and len(texts) > NAMES_MAX:
        read.fault(node, path, f"has more than {NAMES_MAX} names: use a prefix, as in team-*")
    return names_of(texts)


def _tenant_fault(text: str) -> str | None:
    try:
        tenant_id(text)
    except InvalidField as error:
        return error.message
    return None


def _meter_fault(text: str) -> str | None:
    return None if is_name(text) else "is not a meter's name"
