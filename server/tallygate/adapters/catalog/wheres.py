"""The `where` of a catalog document's limits and prices: the values that they are kept to.

Guarantees: the values stand in the order of their names, which means nothing.
Refuses to know: what is kept to them.
"""

from yaml.nodes import Node, SequenceNode

from tallygate.adapters.catalog.nodes import Reader


def where(read: Reader, node: Node | None, path: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the values by name; one alone may stand without a list."""
    found: dict[str, tuple[str, ...]] = {}
    for key, value in read.mapping(node, path).items():
        at = f"{path}.{key}"
        if isinstance(value, SequenceNode):
            found[key] = tuple(read.text(item, place) for item, place in read.sequence(value, at))
        else:
            found[key] = (read.text(value, at),)
    return tuple(sorted(found.items()))
