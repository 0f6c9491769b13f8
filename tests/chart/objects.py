"""Rendered files as objects, and as what golden files keep of them.

Owns the reading. Guarantees objects in a fixed order, each once. Refuses to know what they should
be.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from .cases import CASES
from .helm import CHART, Helm

GOLDEN: Final = Path(__file__).parent / "golden"
BASE: Final = "needed"

Object = dict[str, Any]
"""As deep as Kubernetes has it: types for it would be a copy of its interface."""


class Plain(yaml.SafeDumper):
    """Writes each value where it stands, as aliases are for machines, and texts line by line."""

    def ignore_aliases(self, data: object) -> bool:
        """Say that nothing is an alias."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Plain.add_representer(str, _text)


def objects(rendered: dict[str, str]) -> list[Object]:
    """Return what was rendered, by kind and name. Raises ValueError where a name comes twice."""
    found = {}
    for path, text in sorted(rendered.items()):
        if not path.endswith(".yaml"):
            continue
        for each in yaml.safe_load_all(text):
            if each is None:
                continue
            if name(each) in found:
                raise ValueError(f"{name(each)} is rendered twice")
            found[name(each)] = each
    return [found[key] for key in sorted(found)]


def name(each: Object) -> str:
    """Return kind and name, as kubectl has it."""
    metadata = each["metadata"]
    assert isinstance(metadata, dict)
    return f"{each['kind']}/{metadata['name']}"


def kept(case: str, made: list[Object], base: list[Object]) -> str:
    """Return a golden file: every object of the base, of others what they have otherwise."""
    lines = [f"# {case}: what the chart renders; `python -m tests.chart.golden` writes it.\n"]
    known = {name(each): each for each in base} if case != BASE else {}
    same = sorted(n for n in known if n in {name(e) for e in made if known.get(name(e)) == e})
    if case != BASE:
        gone = sorted(set(known) - {name(each) for each in made})
        lines += [f"# As in {BASE}.yaml: {', '.join(same) or 'nothing'}.\n"]
        lines += [f"# Of {BASE}.yaml not here: {', '.join(gone) or 'nothing'}.\n"]
    for each in made:
        if name(each) not in same:
            lines.append("---\n")
            lines.append(yaml.dump(_shortened(each), Dumper=Plain, sort_keys=False, width=100))
    return "".join(lines)


def _shortened(each: Object) -> Object:
    """Put in place of a file's text the file's name: it is held to the file elsewhere."""
    if each["kind"] == "PrometheusRule":
        return {**each, "spec": "as in its file"}
    data = each.get("data")
    if each["kind"] == "ConfigMap" and isinstance(data, dict):
        files = {key for key in data if key.endswith((".json", ".py"))}
        return {**each, "data": {k: "as in its file" if k in files else data[k] for k in data}}
    return each


def shipped(folder: str, suffix: str) -> list[Path]:
    """Return the files that others write for the chart."""
    return sorted((CHART / "files" / folder).glob(f"*{suffix}"))


def golden_files(helm: Helm) -> Iterator[tuple[Path, str]]:
    """Return each golden file and what it should hold."""
    base = objects(helm.render(CASES[BASE]))
    for case, values in CASES.items():
        made = [each for each in objects(helm.render(values)) if not _others(each)]
        yield GOLDEN / f"{case}.yaml", kept(case, made, base)


def _others(each: Object) -> bool:
    """Whether it is of a file that comes and goes: rules and dashboards."""
    return each["kind"] == "PrometheusRule" or "-dashboard-" in name(each)
