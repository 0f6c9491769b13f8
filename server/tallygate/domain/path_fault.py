"""A fault of a catalog by its path, and the guess at what was meant.

Guarantees: a guess is a word that is there, or empty.
Refuses to know: the rules, and the lines of documents.
"""

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

# Each guess compares with every known word: among many tenants it would take minutes.
GUESSED_AMONG_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class PathFault:
    """One fault: where, what is wrong, and what may have been meant."""

    path: str
    message: str
    suggestion: str = ""


def closest(value: str, known: Collection[str]) -> str:
    """Return which of the known words, if not too many, `value` may have meant; empty for none."""
    if len(known) > GUESSED_AMONG_MAX:
        return ""
    found = difflib.get_close_matches(value, known, n=1, cutoff=0.6)
    return found[0] if found else ""


def unknown(path: str, kind: str, name: str, known: Collection[str]) -> PathFault:
    """Return the fault of a name that refers to nothing."""
    return PathFault(path, f"there is no {kind} {name!r}", closest(name, known))
