"""What is made from `values.yaml`: `python -m tests.chart.pages`.

Owns the chart's README, and descriptions and names of settings in its schema. Guarantees that all
say what the comments and `Settings` say. Refuses to know the types: those the schema has by hand.
"""

import json
from collections.abc import Iterator

from tallygate.settings import Settings
from tallygate.settings_sources import secret_fields

from .helm import CHART
from .values import Value, documented

README = CHART / "README.md"
HEAD = CHART / "README.head.md"
SCHEMA = CHART / "values.schema.json"

OWNED = frozenset(
    {
        *("call_ca_file", "catalog", "control_address", "data_dir", "drain_grace_ms"),
        *("grpc_address", "journal", "journal_max_bytes", "ops_address", "socket_mode"),
        *("stripe_reports_address", "tls_cert_file", "tls_client_ca_file", "tls_identities"),
        *("tls_key_file", "tls_ops", "token_file", "token_keys_file"),
        *("injector_address", "injector_cert_file", "injector_cert_secret", "injector_config"),
        *("injector_excluded_namespaces", "injector_host_network", "injector_key_file"),
        *("injector_namespace", "injector_service", "injector_webhook"),
    }
)
"""Settings that the chart makes of other values, or that its probes rely on."""


KEPT = ("enum", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def readme() -> str:
    """Return the README: its head, then every value."""
    return HEAD.read_text(encoding="utf-8") + "".join(_sections(documented()))


def schema() -> str:
    """Return the schema, with descriptions and the names of settings as they are now."""
    document = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for value in documented():
        found = _property(document, value.path)
        if found is not None:
            found["description"] = value.comment
    document["definitions"]["settings"]["properties"] = _settings()
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _settings() -> dict[str, object]:
    """Return what each setting takes, as the process itself would refuse anything else."""
    known = Settings.model_json_schema()["properties"]
    refused = OWNED | set(secret_fields())
    return {name: _taken(known[name]) for name in sorted(set(known) - refused)}


def _taken(field: dict[str, object]) -> dict[str, object]:
    """Return a setting's schema as of a value that goes through the environment."""
    found = {key: field[key] for key in KEPT if key in field}
    choices = field.get("anyOf", [])
    assert isinstance(choices, list)
    types = {each["type"] for each in choices} - {"null"} or {field["type"]}
    # A list is written with commas.
    plain = sorted("string" if each == "array" else each for each in types)
    return {
        "description": " ".join(str(field["description"]).split()),
        "type": plain[0] if len(plain) == 1 else plain,
        **found,
    }


def _property(document: dict[str, object], path: tuple[str, ...]) -> dict[str, object] | None:
    """Return the schema of a value; None where it lies in a definition that several share."""
    found: object = document
    for key in path:
        if not isinstance(found, dict) or "properties" not in found:
            return None
        found = found["properties"][key]
    assert isinstance(found, dict)
    return found


def _sections(values: list[Value]) -> Iterator[str]:
    yield "\n| value | default | what |\n|---|---|---|\n"
    yield from (_row(value) for value in values if len(value.path) == 1 and not value.section)
    for section in (value for value in values if len(value.path) == 1 and value.section):
        yield f"\n### `{section.name}`\n\n{section.comment}\n"
        yield "\n| value | default | what |\n|---|---|---|\n"
        yield from (
            _row(value)
            for value in values
            if value.path[0] == section.name and value is not section
        )


def _row(value: Value) -> str:
    text = value.comment.replace("|", "\\|")
    default = "" if value.section else f"`{json.dumps(value.default, ensure_ascii=False)}`"
    return f"| `{value.name}` | {default} | {text} |\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema(), encoding="utf-8")
    README.write_text(readme(), encoding="utf-8")
