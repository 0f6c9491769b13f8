"""What `values.yaml` says of itself: each value, its default, and the comment above it.

Owns the reading. Guarantees values in the file's order, by path. Refuses to know what they mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from .helm import CHART

FILE = CHART / "values.yaml"


@dataclass(frozen=True, slots=True)
class Value:
    """One value. Of a section, which has documented values in it, `default` is not shown."""

    path: tuple[str, ...]
    default: object
    comment: str
    section: bool

    @property
    def name(self) -> str:
        """The path as `--set` spells it."""
        return ".".join(self.path)


def documented() -> list[Value]:
    """Return every value that is documented by itself, and each section."""
    text = FILE.read_text(encoding="utf-8")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return list(_walk(node, yaml.safe_load(text), (), text.splitlines()))


def _walk(
    node: yaml.MappingNode, default: dict[str, object], path: tuple[str, ...], lines: list[str]
) -> Iterator[Value]:
    for key, value in node.value:
        inner = default[key.value]
        here = (*path, key.value)
        section = isinstance(value, yaml.MappingNode) and _has_comments(value, lines)
        yield Value(here, inner, _comment(key, lines), section)
        if section:
            assert isinstance(value, yaml.MappingNode)
            assert isinstance(inner, dict)
            yield from _walk(value, inner, here, lines)


def _has_comments(node: yaml.MappingNode, lines: list[str]) -> bool:
    return not node.flow_style and any(_comment(key, lines) for key, _ in node.value)


def _comment(key: yaml.Node, lines: list[str]) -> str:
    """Return the block right above a key, as one paragraph."""
    found: list[str] = []
    at = key.start_mark.line - 1
    while at >= 0 and lines[at].strip().startswith("#"):
        found.insert(0, lines[at].strip().removeprefix("#").strip())
        at -= 1
    return " ".join(found)
