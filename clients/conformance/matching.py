"""Whether an answer is as a case expects it.

Owns the patterns: a mapping matches what holds at least its keys, a list what has as many members
that match, and a mapping whose one key begins with `$` is a question. Guarantees that each
difference names its path. Refuses to know where answers come from.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

UNSET: Final[tuple[Any, ...]] = (None, "", [], {})
"""What says that there is nothing: languages differ in which of these they write."""

SHOWN_MAX: Final = 300
"""Characters of an answer that are enough to see what is wrong with it."""

REFERENCE: Final = re.compile(r"\$\{([^}]+)\}")


def differences(expected: Any, actual: Any, path: str = "") -> Iterator[str]:
    """Yield what is otherwise than expected, each with where it is."""
    at = path or "the answer"
    if isinstance(expected, Mapping):
        if len(expected) == 1 and next(iter(expected)).startswith("$"):
            ((question, value),) = expected.items()
            if not _holds(question, value, actual):
                yield f"{at}: expected {question} {value}, was {_short(actual)}"
        elif not isinstance(actual, Mapping):
            yield f"{at}: expected a mapping, was {_short(actual)}"
        else:
            for key, value in expected.items():
                yield from differences(value, actual.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(expected, list):
        if not isinstance(actual, list) or len(actual) != len(expected):
            yield f"{at}: expected {len(expected)} members, was {_short(actual)}"
        else:
            for number, (each, found) in enumerate(zip(expected, actual, strict=True)):
                yield from differences(each, found, f"{path}[{number}]")
    elif expected != actual or isinstance(expected, bool) != isinstance(actual, bool):
        yield f"{at}: expected {expected!r}, was {_short(actual)}"


def _short(actual: Any) -> str:
    told = repr(actual)
    return told if len(told) <= SHOWN_MAX else f"{told[:SHOWN_MAX]} ..."


def _holds(question: str, value: Any, actual: Any) -> bool:
    match question:
        case "$set":
            return (actual not in UNSET) is value
        case "$ge":
            return isinstance(actual, int | float) and actual >= value
        case "$le":
            return isinstance(actual, int | float) and actual <= value
        case "$matches":
            return isinstance(actual, str) and re.search(value, actual) is not None
        case "$not":
            return not list(differences(actual, value))
        case "$every":
            return (
                isinstance(actual, list)
                and bool(actual)
                and all(not list(differences(value, each)) for each in actual)
            )
        case "$count":
            return isinstance(actual, list) and sum(
                not list(differences(value["of"], each)) for each in actual
            ) == int(value["is"])
        case "$distinct":
            return isinstance(actual, list) and len({str(each) for each in actual}) == value
        case "$all":
            return all(not list(differences(each, actual)) for each in value)
    raise AssertionError(f"no question {question}")


def filled(pattern: Any, known: Mapping[str, Any]) -> Any:
    """Return the pattern with `${NAME.KEY}` replaced by what is known under it."""
    if isinstance(pattern, Mapping):
        return {key: filled(value, known) for key, value in pattern.items()}
    if isinstance(pattern, list):
        return [filled(each, known) for each in pattern]
    if not isinstance(pattern, str):
        return pattern
    whole = REFERENCE.fullmatch(pattern)
    if whole:
        return _found(whole[1], known)
    return REFERENCE.sub(lambda match: str(_found(match[1], known)), pattern)


def _found(name: str, known: Mapping[str, Any]) -> Any:
    value: Any = known
    for part in name.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value
