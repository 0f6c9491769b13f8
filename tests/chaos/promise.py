"""A promise: what is said, how far, and which tests show it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise. `rows` are the faults it is about; `commands` are runs beside pytest's."""

    title: str
    says: str
    bound: str
    rows: tuple[int, ...]
    tests: tuple[str, ...]
    commands: tuple[tuple[str, str], ...] = ()


def tests_of(file: str, *names: str) -> tuple[str, ...]:
    """Return tests of one file below `tests`, spelt without what they have in common."""
    return tuple(f"tests/{file}.py::test_{name}" for name in names)
