"""Operation ids that the service makes for calls that came together: one stem, and places on it.

Guarantees: calls of one stem differ by their places alone, so that they may be recorded as one; an
id of a caller that looks like one of these is an id like any other.
Refuses to know: where stems come from, and what is recorded.
"""

import re
from typing import Final

from tallygate.domain.ids import OperationId

# Places on a stem.
PLACES_MAX: Final = 256
# What a stem has between its marks: enough that no two are ever alike.
STEM_DIGITS: Final = 24

_MARK: Final = "~"
_PLACES: Final = tuple(f"{place:02x}" for place in range(PLACES_MAX))
_FORM: Final = re.compile(r"(~[0-9a-f]{24}~)[0-9a-f]{2}")
_WITHIN: Final = re.compile(_FORM.pattern.encode())


def stem_of_digits(digits: str) -> str:
    """Return the stem with these digits, `STEM_DIGITS` of them, in hexadecimal."""
    assert len(digits) == STEM_DIGITS
    return f"{_MARK}{digits}{_MARK}"


def made_ids(stem: str, start: int, end: int) -> list[OperationId]:
    """Return the ids of these places of a stem."""
    return [OperationId(stem + place) for place in _PLACES[start:end]]


def stem_of(of: OperationId) -> str:
    """Return the stem of an id, empty where it has none."""
    found = _FORM.fullmatch(of) if of.startswith(_MARK) else None
    return found[1] if found is not None else ""


def place_of(of: OperationId) -> int:
    """Return the place of an id that has a stem."""
    return int(of[-2:], 16)


def without_places(content: bytes) -> bytes:
    """Return a content in which ids of one stem are the same."""
    return _WITHIN.sub(rb"\1", content) if b"~" in content else content
