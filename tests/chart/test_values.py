"""Every value is documented once, and the schema knows each of them and no other."""

import json
from collections.abc import Iterator
from importlib.metadata import version

import yaml

from . import pages
from .helm import CHART, Helm
from .values import documented

Schema = dict[str, object]


def test_the_readme_is_what_the_values_say() -> None:
    """README.md is fresh; `python -m tests.chart.pages` makes it."""
    assert pages.README.read_text(encoding="utf-8") == pages.readme()


def test_the_schema_says_what_the_values_say() -> None:
    """Its descriptions, and the settings that it lets pass, are fresh; the same command."""
    assert pages.SCHEMA.read_text(encoding="utf-8") == pages.schema()


def test_every_value_is_documented() -> None:
    """The comment above each value is a sentence."""
    faults = [
        each.name
        for each in documented()
        if not (each.comment[:1].isupper() or each.comment[:1] == "`")
        or not each.comment.endswith(".")
    ]
    assert faults == []


def test_the_schema_has_each_value_and_no_other() -> None:
    """What values.yaml has and what the schema lets pass are the same keys."""
    schema = json.loads(pages.SCHEMA.read_text(encoding="utf-8"))
    assert dict(_differences(schema, schema, _defaults(), "values")) == {}


def test_nothing_unknown_is_let_pass() -> None:
    """Objects have no further properties, typed ones, or are Kubernetes' own or a parent's."""
    schema = json.loads(pages.SCHEMA.read_text(encoding="utf-8"))
    assert sorted(_open(schema, "values")) == sorted(
        ["values.definitions.object", "values.definitions.objects.items", "values.global"]
    )


def test_lint_finds_nothing(helm: Helm) -> None:
    """`helm lint --strict` has nothing to say."""
    needed = {
        "redis": {"url": {"secretName": "redis"}},
        "postgres": {"dsn": {"secretName": "postgres"}},
    }
    assert helm.lint(needed) == []


def test_the_chart_is_of_this_version() -> None:
    """Chart and product are released together, under one version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == chart["version"] == version("tallygate")


def _defaults() -> dict[str, object]:
    return {value.path[0]: value.default for value in documented() if len(value.path) == 1}


def _resolved(root: Schema, schema: object) -> Schema:
    assert isinstance(schema, dict)
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    definitions = root["definitions"]
    assert isinstance(definitions, dict)
    return definitions[name] if name else schema


def _differences(
    root: Schema, schema: Schema, values: object, path: str
) -> Iterator[tuple[str, str]]:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not isinstance(values, dict):
        return
    # What outranks something else is empty unless set.
    if values:
        for key in set(properties) - set(values):
            # A claim on a device is asked for by who has one.
            if not path.endswith("resources") and key != "claims":
                yield f"{path}.{key}", "is in the schema alone"
    for key, value in values.items():
        if key not in properties:
            yield f"{path}.{key}", "is in values.yaml alone"
            continue
        yield from _differences(root, _resolved(root, properties[key]), value, f"{path}.{key}")


def _open(schema: object, path: str) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and "additionalProperties" not in schema:
        yield path
    for word in ("properties", "definitions"):
        for key, inner in (schema.get(word) or {}).items():
            name = f"{path}.{key}" if word == "properties" else f"{path}.{word}.{key}"
            yield from _open(inner, name)
    if "items" in schema:
        yield from _open(schema["items"], f"{path}.items")
