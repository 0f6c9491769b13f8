"""Bodies and queries, as they come: forms with bracket keys, and JSON.

Guarantees: `a[b]=1`, `a[0][b]=1` and `a[]=1` become nested mappings and lists; depth and number of
keys are bounded; what contradicts itself is a 400.
Refuses to know: which parameters an endpoint takes.
"""

import json
import re
from typing import Any, Final
from urllib.parse import parse_qsl

from .errors import invalid

KEYS_MAX: Final = 2_000
DEPTH_MAX: Final = 8

_KEY: Final = re.compile(r"^(?P<name>[^\[\]]+)(?P<rest>(?:\[[^\[\]]*\])*)$")
_PART: Final = re.compile(r"\[([^\[\]]*)\]")

# A node is text, a mapping or a list: what a form can say has no closed type.
Values = dict[str, Any]


def form(text: str) -> Values:
    """Read a form, or a query. Raises `StripeFault`."""
    if not text:
        return {}
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, max_num_fields=KEYS_MAX
        )
    except ValueError as error:
        raise invalid(f"Invalid form body: {error}.") from None
    root: Values = {}
    for key, value in pairs:
        _put(root, key, value)
    return {name: _settled(node) for name, node in root.items()}


def document(text: str) -> Values:
    """Read a JSON object. Raises `StripeFault`."""
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise invalid("Invalid JSON body.", code="invalid_json") from None
    if not isinstance(found, dict):
        raise invalid("The body must be a JSON object.", code="invalid_json")
    return found


def _put(root: Values, key: str, value: str) -> None:
    match = _KEY.match(key)
    if match is None:
        raise invalid(f"Invalid parameter name: {key}.", param=key)
    parts = [match["name"], *_PART.findall(match["rest"])]
    if len(parts) > DEPTH_MAX:
        raise invalid(f"The parameter {key} is nested too deeply.", param=key)
    node = root
    for at, part in enumerate(parts[:-1]):
        below = node.setdefault(_named(node, part), {})
        if not isinstance(below, dict):
            name = parts[0] + "".join(f"[{each}]" for each in parts[1 : at + 1])
            raise invalid(f"Invalid parameter: {name} is a value and a hash at once.", param=name)
        node = below
    last = _named(node, parts[-1])
    if isinstance(node.get(last), dict):
        raise invalid(f"Invalid parameter: {key} is a value and a hash at once.", param=key)
    node[last] = value


def _named(node: Values, part: str) -> str:
    """Return a part's name; `[]` is the next number."""
    return part or str(len(node))


def _settled(node: Any) -> Any:  # noqa: ANN401 - see Values
    """Make lists of the mappings whose keys are the numbers from 0 on."""
    if not isinstance(node, dict):
        return node
    settled = {name: _settled(each) for name, each in node.items()}
    if settled and set(settled) == {str(number) for number in range(len(settled))}:
        return [settled[str(number)] for number in range(len(settled))]
    return settled
