"""The repository holds the house style, and every rule is able to say no."""

from collections.abc import Callable, Iterator

import pytest

from . import python_rules, text_rules
from .tree import Fault, Source, sources

Rule = Callable[[Source], Iterator[Fault]]

CODE = (".py", ".lua", ".sql", ".proto")
EVERYTHING: tuple[str, ...] = ()

# Each rule with the files it holds for: suffixes, and where they lie.
RULES: list[tuple[Rule, tuple[str, ...], str]] = [
    (python_rules.function_sizes, (".py",), ""),
    (python_rules.module_docstring, (".py",), ""),
    (python_rules.empty_names, (".py",), ""),
    (python_rules.sleeps, (".py",), "tests/"),
    (python_rules.avoided_tests, (".py",), "tests/"),
    (python_rules.impure_domain, (".py",), "server/tallygate/domain/"),
    (text_rules.file_size, CODE, ""),
    (text_rules.line_sizes, CODE, ""),
    (text_rules.unfinished, EVERYTHING, ""),
    (text_rules.machine_traces, EVERYTHING, ""),
    (text_rules.lua_header, (".lua",), ""),
    (text_rules.sql_purposes, (".sql",), ""),
]

LUA = "-- Charges.\n-- KEYS[1] a\n-- ARGV[1] b\n-- Returns c\n-- Invariant: d\n-- Cost: e\n"
STEP = '"""app ──▶ Redis\n\nIf we die here, nothing is lost.\n"""\n'
OWNED = '"""Guarantees order. Refuses to know time."""\n'

# Each rule with a path, a text it refuses, and the nearest text it lets pass.
SAMPLES: list[tuple[Rule, str, str, str]] = [
    (
        python_rules.function_sizes,
        "a.py",
        "def f():\n" + "    pass\n" * 70,
        "def f():\n" + "    pass\n" * 69,
    ),
    (
        python_rules.function_sizes,
        "a.py",
        "def f(a, b, c, d, e, f): ...",
        "def f(self, a, b, c, d, e, *, f): ...",
    ),
    (python_rules.module_docstring, "tests/a.py", "x = 1", '"""A fact."""'),
    (python_rules.module_docstring, "server/a.py", '"""Guarantees order."""', OWNED),
    (python_rules.module_docstring, "server/a.py", '"""Refuses to know time."""', OWNED),
    (python_rules.empty_names, "a.py", "class SlotManager: ...", "class Managed: ..."),
    (python_rules.empty_names, "a.py", "class HTTPHandler: ...", "class Database: ..."),
    (python_rules.empty_names, "redis_utils.py", "", ""),
    (python_rules.empty_names, "common/a.py", "", ""),
    (python_rules.sleeps, "a.py", "asyncio.sleep(0.1)", "asyncio.sleep(0)"),
    (python_rules.sleeps, "a.py", "sleep(60 * 2)", "sleep(interval)"),
    (python_rules.sleeps, "a.py", "asyncio.sleep(delay=1)", "asyncio.sleep(delay=0)"),
    (python_rules.avoided_tests, "a.py", "@pytest.mark.skipif(x)\ndef f(): ...", "rows.skip(1)"),
    (python_rules.avoided_tests, "a.py", "pytest.skip('no server')", "pytest.fail('no server')"),
    (python_rules.impure_domain, "a.py", "import redis", "from tallygate.domain import ids"),
    (python_rules.impure_domain, "a.py", "from tallygate.ports import Clock", "import math"),
    (python_rules.impure_domain, "a.py", "from time import time", "from datetime import time"),
    (python_rules.impure_domain, "a.py", "datetime.now(UTC)", "datetime.fromtimestamp(0, UTC)"),
    (python_rules.flow_opening, "a.py", STEP.replace("──▶", "and"), STEP),
    (python_rules.flow_opening, "a.py", STEP.replace("die", "stop"), STEP),
    (text_rules.file_size, "a.py", "\n" * 401, "\n" * 400),
    (text_rules.line_sizes, "a.py", "x" * 101, "x" * 100),
    (text_rules.readme_size, "README.md", "\n" * 151, "\n" * 150),
    (text_rules.unfinished, "a.md", "TO" + "DO: think", "What to do: think"),
    (text_rules.machine_traces, "a.md", "in /ro" + "ot/x", "in the root/x"),
    (text_rules.machine_traces, "a.md", "https://py" + "pi.org/simple", "https://example.org/"),
    (text_rules.lua_header, "a.lua", LUA.replace("Charges.", ""), "#!lua flags=x\n" + LUA),
    *[
        (text_rules.lua_header, "a.lua", LUA.replace(label, "What"), LUA)
        for label in text_rules.LUA_LABELS
    ],
    (text_rules.sql_purposes, "a.sql", "select 1;", "-- Proves that we are connected.\nselect 1;"),
    (
        text_rules.sql_purposes,
        "a.sql",
        "-- name: alive\nselect 1;",
        "-- name: alive\n-- Proves that we are connected.\nselect 1;",
    ),
]


@pytest.mark.parametrize(
    ("rule", "suffixes", "below"), RULES, ids=[rule.__name__ for rule, _, _ in RULES]
)
def test_repository(rule: Rule, suffixes: tuple[str, ...], below: str) -> None:
    """Every file of the repository holds every rule."""
    faults = [str(fault) for source in sources(*suffixes, below=below) for fault in rule(source)]
    assert not faults, "\n" + "\n".join(faults)


def test_flow_tells_its_story() -> None:
    """Every step of the flow opens with its line of the picture and with where it may die."""
    steps = [
        source
        for source in sources(".py", below="server/tallygate/flow/")
        if not source.path.endswith("__init__.py")
    ]
    assert steps
    faults = [str(fault) for step in steps for fault in python_rules.flow_opening(step)]
    assert not faults, "\n" + "\n".join(faults)


def test_readme_is_short() -> None:
    """The README exists and is read in one sitting."""
    (readme,) = sources(".md", below="README.md")
    assert not list(text_rules.readme_size(readme))


@pytest.mark.parametrize(("rule", "path", "bad", "good"), SAMPLES)
def test_rules_can_fail(rule: Rule, path: str, bad: str, good: str) -> None:
    """Each rule refuses what it is there for, and lets the nearest good text pass."""
    assert list(rule(Source(path, bad)))
    if good:
        assert not list(rule(Source(path, good)))


def test_every_rule_has_a_sample() -> None:
    """No rule is without a text that it refuses."""
    shown = {sample[0] for sample in SAMPLES}
    assert {rule for rule, _, _ in RULES} <= shown
