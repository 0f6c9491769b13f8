"""What an expression names: metrics and labels, held to those that exist.

Owns which names a scrape can have. Guarantees that a metric or a label which we do not have is
found. Refuses to know whether an expression makes sense; promtool parses it.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

from tests.docs.test_names import metrics

from . import made
from .rule import Recording

_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_STRING: Final = re.compile(_QUOTED)
_NAMED: Final = re.compile(
    rf"\b(tallygate[_:][\w:]*|up|process_\w+)(?:\{{((?:[^}}\"]|{_QUOTED})*)\}})?|{_QUOTED}"
)
_MATCHER: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_SUFFIX: Final = re.compile(r"_(bucket|sum|count)$")
_GROUPED: Final = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")

PLACES: Final = frozenset({"cluster", "namespace", "job", "instance", "pod"})
"""What a scrape adds."""


@cache
def known() -> Mapping[str, frozenset[str]]:
    """Return each metric that can be asked for, with its own labels."""
    found = {name: frozenset(labels) for name, (_, labels) in metrics().items()}
    figures = ("cpu_seconds_total", "resident_memory_bytes", "start_time_seconds")
    found |= dict.fromkeys(("up", *(f"process_{name}" for name in figures)), frozenset())
    found |= {
        rule.name: frozenset()
        for group in made.groups()
        for rule in group.rules
        if isinstance(rule, Recording)
    }
    return found


def names(expr: str) -> set[str]:
    """Return the metrics that an expression names, as they were declared."""
    return {_declared(name) for name, _ in selectors(expr)}


def faults(expr: str) -> Iterator[str]:
    """Tell of metrics and labels in an expression that do not exist."""
    allowed = set(PLACES) | {"window"}
    for name, matchers in selectors(expr):
        declared = _declared(name)
        if declared not in known():
            yield f"no metric {name}"
            continue
        own = known()[declared] | ({"le"} if name.endswith("_bucket") else set())
        allowed |= own
        for label in _MATCHER.findall(_STRING.sub('""', matchers)):
            if label not in own | PLACES:
                yield f"{name} has no label {label}"
    for group in _GROUPED.findall(_STRING.sub('""', expr)):
        for label in filter(None, (each.strip() for each in group.split(","))):
            if label not in allowed:
                yield f"nothing here has a label {label}"


def selectors(expr: str) -> list[tuple[str, str]]:
    """Return each metric that an expression names, with what stands in its braces."""
    # What is quoted by itself, as in `label_replace`, is matched to be passed over.
    return [(found[1], found[2] or "") for found in _NAMED.finditer(expr) if found[1]]


def _declared(name: str) -> str:
    bare = _SUFFIX.sub("", name)
    return bare if name not in known() and bare in known() else name
