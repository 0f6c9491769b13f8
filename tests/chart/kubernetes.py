"""What Kubernetes takes: its own strict schemas, of every version that the package has.

Owns the lookup. Guarantees that kinds of nobody's schema are told apart from kinds that are known.
Refuses to know the chart.
"""

import json
import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from .objects import Object

OLDEST = (1, 29)

FOREIGN = {
    "PodMonitor": "monitoring.coreos.com/v1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "ScaledObject": "keda.sh/v1alpha1",
    "Certificate": "cert-manager.io/v1",
    "Issuer": "cert-manager.io/v1",
}
"""Kinds that operators bring, of which no schema is at hand: only what they are is held."""


def versions() -> list[str]:
    """Return the versions that there are schemas of, oldest first."""
    found = re.findall(r"v(\d+)\.(\d+)\.0-local-strict", " ".join(_folders()))
    numbers = sorted((int(major), int(minor)) for major, minor in found)
    return [f"{major}.{minor}" for major, minor in numbers if (major, minor) >= OLDEST]


def faults(each: Object, version: str) -> list[str]:
    """Return what that version's API server would refuse of an object, field by field."""
    kind, api = str(each["kind"]), str(each["apiVersion"])
    if kind in FOREIGN:
        return [] if FOREIGN[kind] == api else [f"{kind} is of {FOREIGN[kind]}, not {api}"]
    errors = _validator(version, kind, api).iter_errors(each)
    return [f"{'.'.join(map(str, error.path))}: {error.message[:200]}" for error in errors]


def _folders() -> list[str]:
    return [each.name for each in _schemas().iterdir()]


def _schemas() -> Traversable:
    return files("kubernetes_validate").joinpath("kubernetes-json-schema")


def _read(version: str, name: str) -> dict[str, object]:
    path = f"v{version}.0-local-strict/{name}.json"
    found = json.loads(_schemas().joinpath(path).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


@cache
def _definitions(version: str) -> Registry[object]:
    """Return what schemas of a version refer to, looked through once for all of them."""
    found = Resource.from_contents(_read(version, "_definitions"), default_specification=DRAFT7)
    registry: Registry[object] = Registry().with_resources([("_definitions.json", found)])
    return registry.crawl()


@cache
def _validator(version: str, kind: str, api: str) -> jsonschema.Draft7Validator:
    group, slash, number = api.rpartition("/")
    stem = f"{group.partition('.')[0]}-{number}" if slash else number
    schema = _read(version, f"{kind.lower()}-{stem}")
    return jsonschema.Draft7Validator(schema, registry=_definitions(version))
