"""The catalog document: one YAML file that declares everything. `docs/catalog.md` describes it.

Guarantees: a document is taken whole or refused with all its faults, each with line and path.
Refuses to know: where documents come from and go to.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import chain
from typing import Final

from yaml.nodes import Node

from tallygate.adapters.catalog.billing import billing
from tallygate.adapters.catalog.compose import compose
from tallygate.adapters.catalog.destinations import destinations
from tallygate.adapters.catalog.envoy import envoy
from tallygate.adapters.catalog.ingest import ingest
from tallygate.adapters.catalog.limits import limit, override
from tallygate.adapters.catalog.meters import meters
from tallygate.adapters.catalog.nodes import Reader
from tallygate.adapters.catalog.prices import price, terms
from tallygate.domain.catalog import Catalog, Plan, Tenant
from tallygate.domain.catalog_rules import catalog_faults, tenant_faults
from tallygate.domain.errors import CatalogInvalid, Fault, InvalidField
from tallygate.domain.ids import PlanName, TenantId, tenant_id
from tallygate.domain.path_fault import PathFault
from tallygate.domain.window import Calendar
from tallygate.ports import ParsedCatalog

DOCUMENT_VERSION: Final = "1"
# Nobody reads more; a reply with all of a large document's faults would not fit a message.
FAULTS_MAX: Final = 1_000

_ROOT: Final = (
    *("version", "default_plan", "meters", "plans", "tenants", "destinations"),
    *("ingest", "envoy"),
)
_PLAN: Final = ("limits", "description", "prices", "terms")
_TENANT: Final = (
    *("plan", "anchor", "time_zone", "fiscal_month", "billing"),
    *("currency", "stripe_customer_id", "parent", "overrides", "suspended"),
)

# Fields of which what stands in for them may break a rule about their neighbours.
_LEADING: Final = ("kind", "period", "limit", "duration", "model", "tiers")


class YamlCatalogDocuments:
    """The `CatalogDocuments` port: documents that may lean on tenants applied before."""

    def parse(self, text: str) -> ParsedCatalog:
        """Return the document's catalog, version 0, and tenants. Raises `CatalogInvalid`.

        A parent that the document does not declare is not judged here: it may be declared already.
        """
        document = _Document(compose(text))
        inside = {tenant.tenant_id for tenant in document.parsed.tenants}
        document.check(
            tenant if tenant.parent in inside else replace(tenant, parent=None)
            for tenant in document.parsed.tenants
        )
        return document.parsed


def parse(text: str) -> ParsedCatalog:
    """Return the catalog, version 0, and tenants of a document that stands for itself.

    Raises `CatalogInvalid`.
    """
    document = _Document(compose(text))
    document.check(document.parsed.tenants)
    return document.parsed


class _Document:
    """One document while it is read."""

    def __init__(self, root: Node | None) -> None:
        self._reader = Reader()
        parts = self._reader.mapping(root, "", _ROOT)
        version = parts.get("version")
        if version is None or self._reader.text(version, "version") != DOCUMENT_VERSION:
            line = 1 if version is None else version.start_mark.line + 1
            self._reader.faults.append(
                Fault(line, "version", f"must be {DOCUMENT_VERSION}, the version of this format")
            )
        default_plan = self._reader.text(parts.get("default_plan"), "default_plan")
        self.parsed = ParsedCatalog(
            Catalog(
                meters=meters(self._reader, parts.get("meters")),
                plans=self._plans(parts.get("plans")),
                default_plan=PlanName(default_plan) if default_plan else None,
                destinations=destinations(self._reader, parts.get("destinations")),
                envoy=envoy(self._reader, parts.get("envoy")),
                ingest=ingest(self._reader, parts.get("ingest")),
            ),
            self._tenants(parts.get("tenants")),
            self._reader.lines,
        )

    def check(self, tenants: Iterable[Tenant]) -> None:
        """Raise `CatalogInvalid` with every fault, by line."""
        catalog = self.parsed.catalog
        told = {fault.path for fault in self._reader.faults}
        rules = chain(catalog_faults(catalog), tenant_faults(catalog, [*tenants], {}))
        faults = [*self._reader.faults]
        faults += [self._placed(fault) for fault in rules if not _follows(fault.path, told)]
        if not faults:
            return
        faults.sort(key=lambda fault: fault.line)
        more = len(faults) - FAULTS_MAX
        if more > 0:
            faults[FAULTS_MAX:] = [Fault(0, "", f"and {more} more")]
        raise CatalogInvalid(tuple(faults))

    def _placed(self, fault: PathFault) -> Fault:
        line = self.parsed.line_of(fault.path)
        return Fault(line, fault.path, fault.message, fault.suggestion)

    def _plans(self, node: Node | None) -> dict[PlanName, Plan]:
        read = self._reader
        plans: dict[PlanName, Plan] = {}
        for name, value in read.mapping(node, "plans").items():
            path = f"plans.{name}"
            parts = read.mapping(value, path, _PLAN)
            plans[PlanName(name)] = Plan(
                name=PlanName(name),
                limits=tuple(
                    limit(read, item, at)
                    for item, at in read.sequence(parts.get("limits"), f"{path}.limits")
                ),
                description=read.prose(parts.get("description"), f"{path}.description"),
                prices=tuple(
                    price(read, item, at)
                    for item, at in read.sequence(parts.get("prices"), f"{path}.prices")
                ),
                terms=terms(read, parts.get("terms"), f"{path}.terms"),
            )
        return plans

    def _tenants(self, node: Node | None) -> tuple[Tenant, ...]:
        return tuple(
            self._tenant(name, value, f"tenants.{name}")
            for name, value in self._reader.mapping(node, "tenants").items()
        )

    def _tenant(self, name: str, node: Node, path: str) -> Tenant:
        read = self._reader
        try:
            tenant_id(name)
        except InvalidField as error:
            read.fault(node, path, error.message)
        parts = read.mapping(node, path, _TENANT)
        read.needed(parts, "plan", node, path)
        zone = read.text(parts.get("time_zone"), f"{path}.time_zone") or "UTC"
        parent = read.text(parts.get("parent"), f"{path}.parent")
        overrides = read.mapping(parts.get("overrides"), f"{path}.overrides")
        return Tenant(
            tenant_id=TenantId(name),
            plan=PlanName(read.text(parts.get("plan"), f"{path}.plan")),
            calendar=Calendar(
                zone,
                read.instant_us(parts.get("anchor"), f"{path}.anchor", zone),
                read.integer(parts.get("fiscal_month"), f"{path}.fiscal_month", 1),
                billing(read, parts.get("billing"), f"{path}.billing", zone),
            ),
            currency=read.text(parts.get("currency"), f"{path}.currency") or "USD",
            stripe_customer_id=read.text(
                parts.get("stripe_customer_id"), f"{path}.stripe_customer_id"
            ),
            parent=TenantId(parent) if parent else None,
            overrides=tuple(
                override(
                    read,
                    limit_id,
                    value,
                    path=f"{path}.overrides.{limit_id}",
                    time_zone=zone,
                )
                for limit_id, value in overrides.items()
            ),
            suspended=read.flag(parts.get("suspended"), f"{path}.suspended"),
        )


def _follows(path: str, told: Collection[str]) -> bool:
    """Say whether a rule's fault comes of a value that could not be read, and is told already.

    What stands in for a kind, a period or a number can break rules that the document does not.
    """
    if path in told:
        return True
    container = path.rpartition(".")[0]
    return any(f"{container}.{name}" in told for name in _LEADING)
