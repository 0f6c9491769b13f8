"""From a text to YAML nodes, within bounds.

Guarantees: a text that is too large, nests too deep, or would unfold, is refused before any node
is made of it, so that no document can exhaust the process.
Refuses to know: what the nodes mean.
"""

from typing import Final

import yaml
from yaml.nodes import Node

from tallygate.domain.errors import CatalogInvalid, Fault

DOCUMENT_BYTES_MAX: Final = 16 * 1024 * 1024
# The deepest value of a catalog lies at 6: tenants, a tenant, overrides, a limit, a number.
DEPTH_MAX: Final = 32
# A node costs about a kilobyte; a catalog of 100,000 tenants has under a million.
NODES_MAX: Final = 2_000_000

# libyaml's is some ten times faster; a build of PyYAML may lack it.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_OPENING: Final = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSING: Final = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def compose(text: str) -> Node | None:
    """Return the document's root node, None for an empty one.

    Raises `CatalogInvalid` for what is not one YAML document within the bounds.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _refusal(0, "is not Unicode: it holds a lone surrogate") from None
    if size > DOCUMENT_BYTES_MAX:
        raise _refusal(0, f"is larger than {DOCUMENT_BYTES_MAX} bytes")
    try:
        _check_events(text)
        root: Node | None = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise _refusal(line, f"is not YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 0
        raise _refusal(line, "is not YAML: it holds a character that is not allowed") from None
    except yaml.YAMLError:
        raise _refusal(0, "is not YAML") from None
    return root


def _check_events(text: str) -> None:
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            # A small document could unfold into a huge one.
            raise _refusal(line, f"aliases are not taken: write *{event.anchor} out")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _refusal(line, "holds a second document")
        if isinstance(event, _CLOSING):
            depth -= 1
        if not isinstance(event, (*_OPENING, yaml.ScalarEvent)):
            continue
        nodes += 1
        depth += isinstance(event, _OPENING)
        if event.tag is not None:
            raise _refusal(line, f"tags are not taken: {event.tag}")
        if depth > DEPTH_MAX:
            raise _refusal(line, f"nests deeper than {DEPTH_MAX}")
        if nodes > NODES_MAX:
            raise _refusal(line, f"holds more than {NODES_MAX} values")


def _refusal(line: int, message: str) -> CatalogInvalid:
    return CatalogInvalid((Fault(line, "", message),))
