"""Bounded tables of objects, their ids, and the lists that the v1 API makes of them.

Guarantees: a table never holds more than its cap; lists are newest first, with cursors, as Stripe's
are; ids are counted and thus the same in every run.
Refuses to know: what the objects are.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from .errors import absent, full, not_found
from .fields import Fields

LIST_DEFAULT: Final = 10
LIST_MAX: Final = 100

T = TypeVar("T")
# What goes over the wire: its values are of any kind that JSON has.
Json = dict[str, Any]


class Mint:
    """Gives out ids, counted by their prefix."""

    def __init__(self) -> None:
        self._given: Counter[str] = Counter()

    def __call__(self, prefix: str) -> str:
        """Return the next id of a kind, as `mtr_fake000001`."""
        self._given[prefix] += 1
        return f"{prefix}_fake{self._given[prefix]:06}"


class Table(Generic[T]):
    """Objects by id, in the order they were added."""

    def __init__(self, kind: str, most: int) -> None:
        self.kind = kind
        self._most = most
        self._rows: dict[str, T] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[T]:
        return iter(self._rows.values())

    def __contains__(self, id_: object) -> bool:
        return id_ in self._rows

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""
        return len(self._rows) >= self._most

    def add(self, id_: str, row: T) -> T:
        """Keep an object. Raises `StripeFault` where the table is full."""
        if id_ not in self._rows and self.full:
            raise full(f"objects of the kind {self.kind}", self._most)
        self._rows[id_] = row
        return row

    def find(self, id_: str) -> T | None:
        """Return an object, None where there is none of this id."""
        return self._rows.get(id_)

    def get(self, id_: str) -> T:
        """Return an object that the path names. Raises `StripeFault`: 404."""
        if id_ not in self._rows:
            raise not_found(self.kind, id_)
        return self._rows[id_]

    def named(self, id_: str, param: str) -> T:
        """Return an object that a parameter names. Raises `StripeFault`: 400."""
        if id_ not in self._rows:
            raise absent(self.kind, id_, param)
        return self._rows[id_]

    def remove(self, id_: str) -> T | None:
        """Forget an object; return it."""
        return self._rows.pop(id_, None)


def listed(
    url: str,
    rows: Sequence[T],
    fields: Fields,
    rendered: Callable[[T], Mapping[str, Any]],
) -> Json:
    """Return one page of rows that are oldest first, as the v1 API does: newest first.

    Reads `limit`, `starting_after` and `ending_before`. Raises `StripeFault`.
    """
    limit = fields.integer("limit")
    limit = LIST_DEFAULT if limit is None else limit
    if not 1 <= limit <= LIST_MAX:
        raise fields.fault("limit", f"must be from 1 to {LIST_MAX}", "parameter_invalid_integer")
    after, before = fields.text("starting_after"), fields.text("ending_before")
    if after is not None and before is not None:
        raise fields.fault("ending_before", "starting_after and ending_before exclude each other")
    pages = [dict(rendered(row)) for row in reversed(rows)]
    ids = [str(each["id"]) for each in pages]
    cursor = after or before
    if cursor is not None and cursor not in ids:
        raise absent("object", cursor, "starting_after" if after else "ending_before")
    if before is not None:
        end = ids.index(before)
        start = max(0, end - limit)
        return _page(url, pages[start:end], more=start > 0)
    start = 0 if after is None else ids.index(after) + 1
    return _page(url, pages[start : start + limit], more=start + limit < len(pages))


def _page(url: str, rows: list[Json], *, more: bool) -> Json:
    return {"object": "list", "url": url, "has_more": more, "data": rows}
