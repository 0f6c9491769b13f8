"""Tidy rules over Python source.

Owns what the house style says of sizes, names, docstrings and tests. Guarantees that each rule is a
pure function from one source to its faults. Refuses to know where sources come from.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

from .tree import Fault, Source

FUNCTION_LINES_MAX = 70
POSITIONAL_MAX = 5
# Names that say nothing of what a thing is for. A plural is no better.
EMPTY_NAMES = frozenset(
    name + plural
    for name in ("manager", "handler", "helper", "util", "common", "base", "data", "info")
    for plural in ("", "s")
)
# The domain is told the time and the chance; it never asks for them.
IMPURE_MODULES = frozenset(
    {"asyncio", "logging", "multiprocessing", "os", "pathlib", "queue", "random", "secrets"}
    | {"select", "selectors", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys"}
    | {"tempfile", "threading", "time", "urllib", "uuid"}
)
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})
AVOIDED_TESTS = frozenset({"skip", "skipif", "xfail", "importorskip"})
AVOIDED_OF = frozenset({"pytest", "mark", "unittest"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


def function_sizes(source: Source) -> Iterator[Fault]:
    """Refuse functions that are too long or take too many positional parameters."""
    for node in _walk(source):
        if not isinstance(node, Function):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield Fault(source.path, node.lineno, f"{node.name} has {lines} lines")
        names = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
        if names and names[0] in {"self", "cls"}:
            del names[0]
        if len(names) > POSITIONAL_MAX:
            text = f"{node.name} takes {len(names)} positional parameters"
            yield Fault(source.path, node.lineno, text)


def module_docstring(source: Source) -> Iterator[Fault]:
    """Ask each module for a docstring; those of the server say what they guarantee and refuse."""
    docstring = ast.get_docstring(_tree(source))
    if not docstring:
        yield Fault(source.path, 1, "the module has no docstring")
        return
    if not source.path.startswith("server/") or source.path.endswith("__init__.py"):
        return
    for verb in ("guarantee", "refuse"):
        if verb not in docstring.lower():
            yield Fault(source.path, 1, f"the module's docstring does not say what it {verb}s")


def empty_names(source: Source) -> Iterator[Fault]:
    """Refuse modules, packages and classes whose last word says nothing of what they are for."""
    path = PurePosixPath(source.path)
    for part in (*path.parent.parts, path.stem):
        if _last_word(part) in EMPTY_NAMES:
            yield Fault(source.path, 1, f"{part} says nothing of what it is for")
    for node in _walk(source):
        if isinstance(node, ast.ClassDef) and _last_word(node.name) in EMPTY_NAMES:
            yield Fault(source.path, node.lineno, f"{node.name} says nothing of what it is for")


def sleeps(source: Source) -> Iterator[Fault]:
    """Refuse a sleep of a fixed length: a test waits for what it waits for."""
    for call in _calls(source):
        if _name(call.func) != "sleep":
            continue
        length = call.args[0] if call.args else next((each.value for each in call.keywords), None)
        if length is not None and _constant(length):
            yield Fault(source.path, call.lineno, "a test sleeps for a fixed time")


def avoided_tests(source: Source) -> Iterator[Fault]:
    """Refuse tests that may not run: a missing server is a failure."""
    for node in _walk(source):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in AVOIDED_TESTS
            and _name(node.value) in AVOIDED_OF
        ):
            yield Fault(source.path, node.lineno, f"a test may be passed over by {node.attr}")


def impure_domain(source: Source) -> Iterator[Fault]:
    """Refuse a domain that imports a third party, the world, or reads a clock."""
    for line, names in _imports(source):
        for name in names:
            top = name.partition(".")[0]
            ours = name == "tallygate" or name.startswith("tallygate.domain")
            pure = top in sys.stdlib_module_names and top not in IMPURE_MODULES
            if not ours and not pure:
                yield Fault(source.path, line, f"the domain imports {name}")
    for call in _calls(source):
        if _name(call.func) in CLOCK_CALLS:
            yield Fault(source.path, call.lineno, "the domain reads a clock")


def flow_opening(source: Source) -> Iterator[Fault]:
    """Ask each step of the flow for its line of the picture and for what happens when it dies."""
    docstring = ast.get_docstring(_tree(source)) or ""
    if not re.search(r"[─═-][▶>]|[▶→]", docstring):
        yield Fault(source.path, 1, "the step does not open with its line of the picture")
    if "if we die here" not in docstring.lower():
        yield Fault(source.path, 1, 'the step does not say "If we die here"')


def _tree(source: Source) -> ast.Module:
    return ast.parse(source.text, filename=source.path)


def _walk(source: Source) -> Iterator[ast.AST]:
    return ast.walk(_tree(source))


def _calls(source: Source) -> Iterator[ast.Call]:
    return (node for node in _walk(source) if isinstance(node, ast.Call))


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _constant(node: ast.expr) -> bool:
    """Tell whether an expression is made of literals alone and is not zero."""
    if any(isinstance(each, ast.Name | ast.Attribute | ast.Call) for each in ast.walk(node)):
        return False
    return not (isinstance(node, ast.Constant) and node.value == 0)


def _imports(source: Source) -> Iterator[tuple[int, list[str]]]:
    """Yield the line of each import with the full names of the modules it asks for."""
    for node in _walk(source):
        match node:
            case ast.Import(names=names, lineno=line):
                yield line, [each.name for each in names]
            case ast.ImportFrom(module=str(module), level=0, lineno=line):
                yield line, [module]


def _last_word(name: str) -> str:
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    return words[-1].lower() if words else ""
