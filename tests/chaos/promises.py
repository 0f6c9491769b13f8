"""What is promised, how far, and which tests show it: the source of `docs/guarantees.md`.

Owns the mapping from faults to tests. Refuses to know whether they pass.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise. `rows` are the faults it is about; `commands` are runs beside pytest's."""

    title: str
    says: str
    bound: str
    rows: tuple[int, ...]
    tests: tuple[str, ...]
    commands: tuple[tuple[str, str], ...] = ()


ROWS: Final[dict[int, str]] = {}
PROMISES: Final[tuple[Promise, ...]] = ()
