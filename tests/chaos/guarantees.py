"""`docs/guarantees.md`: each promise, its bound, the tests that show it, and their last result.

`python -m tests.chaos.guarantees` runs those tests, keeps what came of them in `results.json`, and
writes the page; with `--render` it writes the page alone. Guarantees that the page says of a test
only what pytest said. Refuses to know what a test does.
"""

import argparse
import ast
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from tests.chaos.fault_rows import REQUIRED, ROWS
from tests.chaos.kept import Result, Run, read, today, write
from tests.chaos.promise import Promise
from tests.chaos.promises import PROMISES
from tests.chaos.row_parts import ROW_PARTS
from tests.chaos.seeds import VARIABLE
from tests.docs.pages import ROOT

PAGE: Final = ROOT / "docs" / "guarantees.md"

HEAD: Final = """\
# Guarantees

What Tallygate promises, how far, and the tests that show it, with what they said last. The rows are
the faults that each promise was made for. Made by `make test-faults` from
`tests/chaos/promises.py`; do not edit.

"""


def nodes_of(test: str) -> list[str]:
    """Return what pytest calls a test, `FILE::NAME`, in each class that has it, or nothing.

    Nothing is imported.
    """
    file, _, name = test.partition("::")
    path = ROOT / file
    found = _tests(ast.parse(path.read_text())) if path.is_file() else ()
    return [f"{file}::{each}" for each in found if each.rpartition("::")[2] == name]


def uncovered(promises: Iterable[Promise] = PROMISES) -> set[int]:
    """Return the faults that must have a test, and have none."""
    return set(REQUIRED) - {row for each in promises if each.tests for row in each.rows}


def render(run: Run) -> str:
    """Return the page."""
    last = f"Last run: {run.date}, seed {run.seed}.\n\n" if run.date else "Not run yet.\n\n"
    return (
        HEAD + last + "\n".join(_section(each, run) for each in PROMISES) + _larger(run) + _rows()
    )


def _section(promise: Promise, run: Run) -> str:
    rows = ", ".join(map(str, promise.rows))
    lines = [
        f"## {promise.title}\n",
        f"{promise.says}\n",
        f"Bound: {promise.bound}\n",
        f"Rows: {rows}\n" if rows else "",
        "| test | last result |\n|---|---|",
        *(f"| `{test}` | {run.of(test)} |" for test in promise.tests),
        *(f"| {command} | {where} |" for command, where in promise.commands),
        "",
    ]
    return "\n".join(each for each in lines if each or each is lines[-1])


def _larger(run: Run) -> str:
    parts = [
        f"\n### `{command}`\n\n{kept.date}:\n\n```\n{kept.text}\n```\n"
        for command, kept in sorted(run.larger.items())
    ]
    return "".join(["\n## Larger runs\n", *parts]) if parts else ""


def _rows() -> str:
    lines = ["\n## Faults by row\n", "| row | fault | promises |", "|---|---|---|"]
    for row, fault in ROWS.items():
        titles = "; ".join(each.title for each in PROMISES if row in each.rows)
        lines.append(f"| {row} | {fault} | {titles} |")
    lines += ["\n## Faults in their parts\n", "| row | part | shown by |", "|---|---|---|"]
    for row, parts in ROW_PARTS.items():
        for part, tests in parts:
            named = ", ".join(f"`{test.removeprefix('tests/')}`" for test in tests)
            lines.append(f"| {row} | {part} | {named} |")
    return "\n".join(lines) + "\n"


def _tests(module: ast.Module) -> Iterator[str]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            # A machine of hypothesis becomes a test by being given its name.
            yield from (each.id for each in node.targets if isinstance(each, ast.Name))
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    for tests in classes:
        # A contract is kept by each class that is made of it.
        bases = {each.id for each in tests.bases if isinstance(each, ast.Name)} | {tests.name}
        for owner in classes if tests.name.startswith("Test") else ():
            if owner.name in bases:
                for node in owner.body:
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                        yield f"{tests.name}::{node.name}"


def results_of(report: Path) -> dict[str, Result]:
    """Return the results in a JUnit report of pytest, by `FILE::NAME`, cases added up."""
    found: dict[str, Result] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        # A class of tests, if there is one, is the last part of the dotted name.
        parts = [
            part for part in (case.get("classname") or "").split(".") if not part[:1].isupper()
        ]
        name = f"{'/'.join(parts)}.py::{(case.get('name') or '').partition('[')[0]}"
        before = found.get(name, Result(0, 0, 0.0))
        fine = not any(case.find(tag) is not None for tag in ("failure", "error", "skipped"))
        found[name] = Result(
            before.cases + 1,
            before.passed + fine,
            round(before.seconds + float(case.get("time") or 0), 3),
        )
    return found


def long_tests() -> list[str]:
    """Return the tests that `make test` leaves out; what calls cost is counted by `make guard`."""
    command = (sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "faults_long")
    found = subprocess.run(
        (*command, "--ignore=tests/guard"), cwd=ROOT, capture_output=True, text=True, check=True
    )
    return sorted({line.partition("[")[0] for line in found.stdout.splitlines() if "::" in line})


def run_tests(seed: int, arguments: Iterable[str]) -> tuple[int, Run]:
    """Run what shows a promise, and what is long; return pytest's exit code and what came of it."""
    tests = sorted({test for each in PROMISES for test in each.tests})
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        nodes = [node for test in tests for node in nodes_of(test)]
        # What is named twice runs once.
        nodes += long_tests()
        command = [
            *(sys.executable, "-m", "pytest", "-m", "faults_long or not faults_long"),
            *(f"--junitxml={report}", *arguments, *nodes),
        ]
        environment = {**os.environ, VARIABLE: str(seed)}
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        results = results_of(report) if report.exists() else {}
    # What was not run this time, as the arguments say, keeps its last result.
    before = read()
    known = {**before.results, **results}
    wanted = {test: known[test] for test in tests if test in known}
    return code, Run(today(), seed, wanted, before.larger)


def main() -> int:
    """Run the tests and write the page, or write the page alone."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.guarantees")
    parser.add_argument("--render", action="store_true", help="write the page from the last run")
    parser.add_argument("--seed", type=int, default=None)
    given, arguments = parser.parse_known_args()
    code, run = 0, read()
    if not given.render:
        seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
        sys.stdout.write(f"seed {seed}\n")
        sys.stdout.flush()
        code, run = run_tests(seed, arguments)
        write(run)
    PAGE.write_text(render(run))
    return code


if __name__ == "__main__":
    sys.exit(main())
