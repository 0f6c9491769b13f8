"""Texts and names of the catalog's messages, checked as those of a document are.

Guarantees: what passes can be stored, logged and sent on.
Refuses to know: what is called so.
"""

from typing import Final

from tallygate.domain import ids
from tallygate.domain.errors import InvalidField

TEXT_LENGTH_MAX: Final = 256
PROSE_LENGTH_MAX: Final = 1024


def text(value: str, field: str, length_max: int = TEXT_LENGTH_MAX) -> str:
    """Return a text. Raises `InvalidField`."""
    if len(value) > length_max:
        raise InvalidField(f"must be at most {length_max} characters", field=field)
    if not value.isprintable():
        raise InvalidField("holds a character that cannot be printed", field=field)
    return value


def name(value: str, field: str) -> str:
    """Return a name of the catalog. Raises `InvalidField`."""
    if not value:
        raise InvalidField("is required", field=field)
    if not ids.is_name(value):
        raise InvalidField("is not a name: a-z, 0-9, '_', '.', '-'", field=field)
    return value
