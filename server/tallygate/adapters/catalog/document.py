"""The catalog document: one YAML file that declares everything. `docs/catalog.md` describes it.

Guarantees: a document is taken whole or refused with all its faults, each with line and path.
Refuses to know: where documents come from and go to.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import chain
from typing import Final

from yaml.nodes import Node

from tallygate.adapters.catalog.compose import compose
from tallygate.adapters.catalog.destinations import destinations
from tallygate.adapters.catalog.nodes import Reader
from tallygate.domain.catalog import (
    LATE_HORIZON_US,
    Aggregation,
    Catalog,
    Limit,
    LimitKind,
    Meter,
    OnExceed,
    Override,
    Plan,
    Tenant,
)
from tallygate.domain.catalog_rules import PathFault, catalog_faults, tenant_faults
from tallygate.domain.errors import CatalogInvalid, Fault, InvalidField
from tallygate.domain.ids import LimitId, MeterName, PlanName, TenantId, tenant_id
from tallygate.domain.window import Calendar, Period
from tallygate.ports import ParsedCatalog

DOCUMENT_VERSION: Final = "1"
# Nobody reads more; a reply with all of a large document's faults would not fit a message.
FAULTS_MAX: Final = 1_000

_ROOT: Final = ("version", "default_plan", "meters", "plans", "tenants", "destinations")
_METER: Final = ("aggregation", "unit", "description", "late_horizon")
_PLAN: Final = ("limits", "description")
_LIMIT: Final = ("id", "meter", "kind", "period", "limit", "burst", "on_exceed", "warn_at")
_TENANT: Final = (
    *("plan", "anchor", "time_zone", "currency", "stripe_customer_id", "parent", "overrides"),
)
_OVERRIDE: Final = ("limit", "burst")

# What the format has room for: a document that says it is early, not misspelt.
_METER_PLANNED: Final = ("group_by", "late_policy")
_PLAN_PLANNED: Final = ("prices",)
_LIMIT_PLANNED: Final = ("exact", "on_outage")
_AGGREGATIONS_PLANNED: Final = ("latest", "unique", "percentile", "time_weighted")
_KINDS_PLANNED: Final = ("sliding", "concurrency", "balance")


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
                meters=self._meters(parts.get("meters")),
                plans=self._plans(parts.get("plans")),
                default_plan=PlanName(default_plan) if default_plan else None,
                destinations=destinations(self._reader, parts.get("destinations")),
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

    def _needed(self, parts: dict[str, Node], name: str, node: Node, path: str) -> Node | None:
        if name not in parts:
            self._reader.fault(node, f"{path}.{name}", "is required")
        return parts.get(name)

    def _meters(self, node: Node | None) -> dict[MeterName, Meter]:
        read = self._reader
        meters: dict[MeterName, Meter] = {}
        for name, value in read.mapping(node, "meters").items():
            path = f"meters.{name}"
            parts = read.mapping(value, path, _METER, _METER_PLANNED)
            meters[MeterName(name)] = Meter(
                name=MeterName(name),
                aggregation=read.choice(
                    parts.get("aggregation"),
                    f"{path}.aggregation",
                    Aggregation,
                    default=Aggregation.SUM,
                    planned=_AGGREGATIONS_PLANNED,
                ),
                unit=read.text(parts.get("unit"), f"{path}.unit"),
                description=read.prose(parts.get("description"), f"{path}.description"),
                late_horizon_us=read.duration_us(
                    parts.get("late_horizon"), f"{path}.late_horizon", LATE_HORIZON_US
                ),
            )
        return meters

    def _plans(self, node: Node | None) -> dict[PlanName, Plan]:
        read = self._reader
        plans: dict[PlanName, Plan] = {}
        for name, value in read.mapping(node, "plans").items():
            path = f"plans.{name}"
            parts = read.mapping(value, path, _PLAN, _PLAN_PLANNED)
            plans[PlanName(name)] = Plan(
                name=PlanName(name),
                limits=tuple(
                    self._limit(item, at)
                    for item, at in read.sequence(parts.get("limits"), f"{path}.limits")
                ),
                description=read.prose(parts.get("description"), f"{path}.description"),
            )
        return plans

    def _limit(self, node: Node, path: str) -> Limit:
        read = self._reader
        parts = read.mapping(node, path, _LIMIT, _LIMIT_PLANNED)
        for name in ("id", "meter", "kind", "period", "limit"):
            self._needed(parts, name, node, path)
        kind = read.choice(
            parts.get("kind"),
            f"{path}.kind",
            LimitKind,
            default=LimitKind.WINDOW,
            planned=_KINDS_PLANNED,
        )
        # Where no number could be read, one that breaks no other rule stands in.
        limit = read.integer(parts.get("limit"), f"{path}.limit", 1)
        rate = kind is LimitKind.RATE
        return Limit(
            limit_id=LimitId(read.text(parts.get("id"), f"{path}.id")),
            meter=MeterName(read.text(parts.get("meter"), f"{path}.meter")),
            kind=kind,
            period=read.choice(
                parts.get("period"), f"{path}.period", Period, default=Period.MINUTE
            ),
            limit=limit,
            burst=read.integer(parts.get("burst"), f"{path}.burst", limit if rate else 0),
            on_exceed=read.choice(
                parts.get("on_exceed"), f"{path}.on_exceed", OnExceed, default=OnExceed.REFUSE
            ),
            warn_at_ppm=read.ratios_ppm(parts.get("warn_at"), f"{path}.warn_at"),
        )

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
        self._needed(parts, "plan", node, path)
        zone = read.text(parts.get("time_zone"), f"{path}.time_zone") or "UTC"
        parent = read.text(parts.get("parent"), f"{path}.parent")
        overrides = read.mapping(parts.get("overrides"), f"{path}.overrides")
        return Tenant(
            tenant_id=TenantId(name),
            plan=PlanName(read.text(parts.get("plan"), f"{path}.plan")),
            calendar=Calendar(zone, read.instant_us(parts.get("anchor"), f"{path}.anchor", zone)),
            currency=read.text(parts.get("currency"), f"{path}.currency") or "USD",
            stripe_customer_id=read.text(
                parts.get("stripe_customer_id"), f"{path}.stripe_customer_id"
            ),
            parent=TenantId(parent) if parent else None,
            overrides=tuple(
                self._override(limit_id, value, f"{path}.overrides.{limit_id}")
                for limit_id, value in overrides.items()
            ),
        )

    def _override(self, limit_id: str, node: Node, path: str) -> Override:
        read = self._reader
        parts = read.mapping(node, path, _OVERRIDE)
        limit = read.integer(self._needed(parts, "limit", node, path), f"{path}.limit")
        return Override(LimitId(limit_id), limit, read.integer(parts.get("burst"), f"{path}.burst"))


def _follows(path: str, told: Collection[str]) -> bool:
    """Say whether a rule's fault comes of a value that could not be read, and is told already.

    What stands in for a kind, a period or a number can break rules that the document does not.
    """
    if path in told:
        return True
    container = path.rpartition(".")[0]
    return any(f"{container}.{name}" in told for name in ("kind", "period", "limit"))
