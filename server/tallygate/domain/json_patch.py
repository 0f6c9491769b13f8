"""JSON documents as Python has them, and what changes one into another (RFC 6902).

Guarantees: the operations, applied in order to the old document, give the new one; members of lists
that have names are followed by their names, so that what stays is not sent again.
Refuses to know what documents mean, and how they are sent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Object: TypeAlias = dict[str, "Json"]

NAME: Final = "name"


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a patch; `value` means nothing where something is removed."""

    op: Literal["add", "remove", "replace"]
    path: str
    value: Json = None

    def document(self) -> Object:
        """Return the operation as it is sent."""
        found: Object = {"op": self.op, "path": self.path}
        if self.op != "remove":
            found["value"] = self.value
        return found


def difference(old: Json, new: Json, path: str = "") -> Iterator[Operation]:
    """Yield what turns the old document into the new one, in the order to apply it."""
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _of_objects(old, new, path)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _of_lists(old, new, path)
    elif not alike(old, new):
        yield Operation("replace", path, new)


def alike(one: Json, other: Json) -> bool:
    """Say whether two documents are equal as JSON, where 1 is not true and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == other


def _of_objects(old: Object, new: Object, path: str) -> Iterator[Operation]:
    for key, value in old.items():
        below = f"{path}/{_escaped(key)}"
        if key in new:
            yield from difference(value, new[key], below)
        else:
            yield Operation("remove", below)
    for key, value in new.items():
        if key not in old:
            yield Operation("add", f"{path}/{_escaped(key)}", value)


def _of_lists(old: list[Json], new: list[Json], path: str) -> Iterator[Operation]:
    places = _places(old, new)
    if places is None:
        yield Operation("replace", path, new)
        return
    for place, (value, found) in enumerate(zip(old, places, strict=True)):
        yield from difference(value, new[found], f"{path}/{place}")
    kept = set(places)
    # From the front on: each is put where it ends up, as all before it are in place already.
    for place, value in enumerate(new):
        if place not in kept:
            yield Operation("add", f"{path}/{place}", value)


def _places(old: Sequence[Json], new: Sequence[Json]) -> list[int] | None:
    """Return where each old member is in the new list, None where they are not all in order."""
    found: list[int] = []
    begin = 0
    for value in old:
        place = next((n for n in range(begin, len(new)) if _same(value, new[n])), None)
        if place is None:
            return None
        found.append(place)
        begin = place + 1
    return found


def _same(one: Json, other: Json) -> bool:
    """Say whether two members are the same thing, be it changed."""
    if isinstance(one, dict) and isinstance(other, dict) and NAME in one:
        return alike(one[NAME], other.get(NAME))
    return alike(one, other)


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
